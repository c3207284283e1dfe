package dispatch

import (
	"context"
	"errors"
	"math"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

func TestLineIsFirstComeFirstServed(t *testing.T) {
	var l line
	var waiters []*waiter
	for range 5 {
		waiters = append(waiters, l.join(time.Now()))
	}
	if !l.leave(waiters[1]) || l.leave(waiters[1]) {
		t.Error("a waiter leaves once")
	}
	for i, want := range []*waiter{waiters[0], waiters[2]} {
		b := &bird{}
		if !l.give(b) {
			t.Fatalf("give %d found nobody", i)
		}
		select {
		case g := <-want.given:
			if g.bird != b || g.err != nil {
				t.Errorf("waiter %d was given %+v", i, g)
			}
		default:
			t.Errorf("slot %d went to somebody else than the first in line", i)
		}
		if l.leave(want) {
			t.Error("who was given a slot cannot leave without it")
		}
	}
	if l.len() != 2 {
		t.Errorf("%d wait, want 2", l.len())
	}
	broken := errors.New("broken")
	l.fail(broken)
	for _, w := range waiters[3:] {
		if g := <-w.given; g.err != broken || g.bird != nil {
			t.Errorf("was given %+v, want the error", g)
		}
	}
	if l.len() != 0 || l.give(&bird{}) {
		t.Error("somebody is left in the line")
	}
}

// bare makes a function that has no sandbox, and an engine that does not
// finish one before what it returns is closed.
func (w *world) bare(set string) (*faas.Function, chan struct{}) {
	w.t.Helper()
	fn := w.create("gated", "idle_timeout=1s "+set)
	time.Sleep(5 * time.Second)
	created := make(chan struct{})
	w.engine.set(func() { w.engine.creating = created })
	return fn, created
}

func TestStartTimeout(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn, created := w.bare("start_timeout=3s queue_timeout=1s")
		begun := time.Now()
		call := w.call(t.Context(), faas.Ref{ID: fn.ID})
		e := call.fails(t, faas.CodeNoCapacity, "start_timeout of 3s")
		if waited := time.Since(begun); waited != 3*time.Second || e.RetryAfter <= 0 || call.timing.Queue != waited {
			t.Errorf("it waited %v, says %v, and %+v", waited, call.timing, e)
		}
		close(created)
		close(w.engine.gate)
		synctest.Wait() // the next call is glad of what was started
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
	})
}

// However long the first sandbox took: from then on it is queue_timeout.
func TestQueueTimeoutCountsFromTheFirstSandbox(t *testing.T) {
	for _, budgets := range []string{"queue_timeout=2s start_timeout=10s", "queue_timeout=20s start_timeout=10s"} {
		simulated(t, nil, func(t *testing.T, w *world) {
			fn, created := w.bare("max_scale=1 " + budgets)
			begun := time.Now()
			calls := w.beginAll(fn, 2)
			time.Sleep(9 * time.Second)
			synctest.Wait()
			still(t, calls...)
			close(created)
			(<-calls[1]).fails(t, faas.CodeNoCapacity, "queue_timeout of "+time.Duration(fn.Live().Settings.QueueTimeout).String())
			if waited, want := time.Since(begun), 9*time.Second+time.Duration(fn.Live().Settings.QueueTimeout); waited != want {
				t.Errorf("it waited %v, want %v", waited, want)
			}
			close(w.engine.gate)
			(<-calls[0]).wants(t, `{"result":1}`)
		})
	}
}

// The last sandbox may go while calls wait: then it is a start that they wait
// for again.
func TestWaitingBeyondADeath(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_scale=1 queue_timeout=4s start_timeout=10s")
		calls := w.beginAll(fn, 2)
		time.Sleep(3 * time.Second)
		created := make(chan struct{})
		w.engine.set(func() { w.engine.creating = created })
		w.engine.there()[0].die(sandbox.Exit{Code: 1})
		(<-calls[0]).fails(t, faas.CodeSandboxDied)
		time.Sleep(9 * time.Second)
		synctest.Wait()
		still(t, calls[1])
		close(created)
		close(w.engine.gate)
		(<-calls[1]).wants(t, `{"result":1}`)
	})
}

func Test500FirstCallsStartOneSandbox(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn, created := w.bare("max_scale=20")
		made := w.engine.attempts
		calls := w.beginAll(fn, 500)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := w.engine.attempts - made; n != 1 {
			t.Errorf("%d sandboxes were started", n)
		}
		close(created)
		time.Sleep(time.Second)
		synctest.Wait()
		if n := w.engine.attempts - made; n != 20 {
			t.Errorf("%d sandboxes were started once it was there, and max_scale is 20", n)
		}
		close(w.engine.gate)
		for _, call := range calls {
			(<-call).wants(t, `{"result":1}`)
		}
	})
}

// Calls that wait are demand as long as they wait and no longer, whenever
// anybody looks.
func TestDemandOfALine(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_scale=1")
		f := w.flockOf(fn)
		time.Sleep(growPatience) // in which nobody counts yet
		want := demand{window: f.demand.window, at: time.Now()}
		leave := make([]context.CancelFunc, 300)
		for i := range leave {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w.begin(ctx, fn)
			leave[i] = cancel
			synctest.Wait()
		}
		want.add(300, time.Now())
		time.Sleep(20 * time.Millisecond)
		for range 100 {
			w.engine.gate <- struct{}{}
			synctest.Wait()
			want.add(-1, time.Now())
			time.Sleep(time.Millisecond)
		}
		for i := 299; i >= 200; i-- {
			leave[i]()
			synctest.Wait()
			want.add(-1, time.Now())
			time.Sleep(time.Millisecond)
		}
		close(w.engine.gate)
		synctest.Wait()
		want.add(-100, time.Now())
		time.Sleep(50 * time.Millisecond)
		want.add(0, time.Now())
		f.mu.Lock()
		defer f.mu.Unlock()
		f.demand.add(0, time.Now())
		if got := f.demand.average; f.demand.waiting != 0 || math.Abs(got-want.average) > 1e-9 {
			t.Errorf("the average demand is %v, with %d in line; want %v", got, f.demand.waiting, want.average)
		}
	})
}

// Nor do they start more once it is there, when it soon gets through them.
func Test500FirstCallsThatAreShort(t *testing.T) {
	for phase := range 10 { // of the looks at the line
		simulated(t, nil, func(t *testing.T, w *world) {
			fn, created := w.bare("max_scale=20")
			w.engine.calls["gated"] = func(s *fakeSandbox, _ *http.Request) string {
				time.Sleep(190 * time.Microsecond)
				return s.version()
			}
			made := w.engine.attempts
			calls := w.beginAll(fn, 500)
			time.Sleep(time.Second + time.Duration(phase)*growPatience/10)
			close(created)
			for _, call := range calls {
				(<-call).wants(t, `{"result":1}`)
			}
			if n := w.engine.attempts - made; n != 1 {
				t.Errorf("phase %d: %d sandboxes were started", phase, n)
			}
		})
	}
}

package dispatch

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

func TestSlotsAreGivenInTheOrderOfComing(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_scale=1 concurrency=2")
		calls := w.beginAll(fn, 6)
		for i := range calls {
			w.check()
			still(t, calls[i:]...)
			if running := min(2, len(calls)-i); w.flockOf(fn).line.len() != len(calls)-i-running {
				t.Fatalf("%d calls wait, want %d", w.flockOf(fn).line.len(), len(calls)-i-running)
			}
			w.engine.gate <- struct{}{} // ends either of the two that run
			synctest.Wait()
		}
		for _, call := range calls {
			(<-call).wants(t, `{"result":1}`)
		}
		if served, most := w.engine.running("gated")[0].numbers(); served != 6 || most != 2 {
			t.Errorf("the sandbox served %d calls, %d at a time; want 6 and 2", served, most)
		}
	})
}

func TestFairness(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_scale=1")
		calls := w.beginAll(fn, 10)
		for i, call := range calls {
			w.engine.gate <- struct{}{}
			synctest.Wait()
			select {
			case o := <-call:
				o.wants(t, `{"result":1}`)
			default:
				t.Fatalf("call %d was not the one to be answered", i)
			}
			still(t, calls[i+1:]...)
		}
	})
}

func TestQueueLimit(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_scale=2 concurrency=2 queue=3")
		created := make(chan struct{})
		w.engine.set(func() { w.engine.creating = created })
		// 2 in the sandbox, 2 that another is being started for, 3 queued.
		calls := w.beginAll(fn, 7)
		over := w.call(t.Context(), faas.Ref{ID: fn.ID})
		if e := over.fails(t, faas.CodeOverLimit, "5 calls wait", "queue=3"); e.RetryAfter <= 0 {
			t.Error("it does not say when to try again")
		}
		still(t, calls...)
		close(created)
		synctest.Wait()
		if n := w.flockOf(fn).line.len(); n != 3 {
			t.Errorf("%d calls wait, want 3", n)
		}
		w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, faas.CodeOverLimit)
		close(w.engine.gate)
		for _, call := range calls {
			(<-call).wants(t, `{"result":1}`)
		}
	})
}

func TestNoQueue(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_scale=2 queue=0")
		calls := w.beginAll(fn, 2) // the second has a sandbox started for it
		w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, faas.CodeOverLimit)
		close(w.engine.gate)
		for _, call := range calls {
			(<-call).wants(t, `{"result":1}`)
		}
	})
}

func TestQueueTimeout(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_scale=1 queue_timeout=2s")
		running := w.begin(t.Context(), fn)
		synctest.Wait()
		begun := time.Now()
		late := w.call(t.Context(), faas.Ref{ID: fn.ID})
		late.fails(t, faas.CodeNoCapacity, "queue_timeout of 2s")
		if waited := time.Since(begun); waited != 2*time.Second || late.timing.Queue != waited {
			t.Errorf("it waited %v and says %v", waited, late.timing.Queue)
		}
		close(w.engine.gate)
		(<-running).wants(t, `{"result":1}`)
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
	})
}

func TestTimingTellsQueueFromStart(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_scale=2")
		created := make(chan struct{})
		w.engine.set(func() { w.engine.creating = created })
		calls := w.beginAll(fn, 3)
		time.Sleep(time.Second)
		close(created) // the second call's sandbox
		synctest.Wait()
		time.Sleep(time.Second)
		close(w.engine.gate) // the third gets a slot
		(<-calls[0]).wants(t, `{"result":1}`)
		second, third := <-calls[1], <-calls[2]
		second.wants(t, `{"result":1}`)
		third.wants(t, `{"result":1}`)
		// It waited a while until the start was worth it, then for the start.
		if got := second.timing; got.Queue+got.Start != time.Second || got.Start < time.Second/2 || got.Run != time.Second {
			t.Errorf("the call that a sandbox was started for took %+v", got)
		}
		if got := second.timing; got.Load < 0 || got.Load > got.Start {
			t.Errorf("of the start of %v the load took %v", got.Start, got.Load)
		}
		if got := third.timing; got.Queue+got.Start != 2*time.Second || got.Queue == 0 {
			t.Errorf("the call that came last took %+v", got)
		}
	})
}

func TestAClientThatGoesAwayLosesNoSlot(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_scale=1")
		running := w.begin(t.Context(), fn)
		synctest.Wait()
		ctx, leave := context.WithCancel(t.Context())
		waiting := w.begin(ctx, fn)
		synctest.Wait()
		behind := w.begin(t.Context(), fn)
		synctest.Wait()
		leave()
		if o := <-waiting; !errors.Is(o.err, context.Canceled) {
			t.Errorf("the call that was given up ended with %q, %v", o.body, o.err)
		}
		close(w.engine.gate)
		(<-running).wants(t, `{"result":1}`)
		(<-behind).wants(t, `{"result":1}`)
		if served, _ := w.engine.running("gated")[0].numbers(); served != 2 {
			t.Errorf("the sandbox served %d calls, want 2", served)
		}
	})
}

// A client may go at the very moment at which its slot comes.
func TestLeavingRacesWithTheGrant(t *testing.T) {
	leakless(t)
	w := newWorld(t, nil)
	defer w.Close()
	fn := w.create("gated", "max_scale=1")
	f := w.flockOf(fn)
	for i := range 1000 {
		first := w.begin(t.Context(), fn)
		eventually(t, "the first call runs", func() bool { return w.Stats()["busy"] == 1 })
		ctx, leave := context.WithCancel(t.Context())
		second := w.begin(ctx, fn)
		eventually(t, "the second call waits", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.line.len() == 1 })
		// Both find the door shut for a moment, and either may be first.
		f.mu.Lock()
		w.engine.gate <- struct{}{}
		for range i % 100 {
			runtime.Gosched()
		}
		leave()
		for range i % 70 {
			runtime.Gosched()
		}
		f.mu.Unlock()
		(<-first).wants(t, `{"result":1}`)
		var o outcome
		select {
		case w.engine.gate <- struct{}{}:
			o = <-second
		case o = <-second:
		}
		if o.err != nil && !errors.Is(o.err, context.Canceled) {
			t.Fatal(o.err)
		}
		eventually(t, "no slot is lost", func() bool { return w.Stats()["idle"] == 1 })
		w.check()
	}
	w.engine.Purge(context.Background())
}

func TestScaleUpToMaxScale(t *testing.T) {
	leakless(t)
	w := newWorld(t, nil)
	defer w.engine.Purge(context.Background())
	defer w.Close()
	fn := w.create("gated", "max_scale=5 concurrency=3")
	done := make(chan struct{})
	go func() {
		defer close(done)
		together(64, func(int) {
			for range 5 {
				if o := w.call(t.Context(), faas.Ref{ID: fn.ID}); o.err != nil {
					t.Error(o.err)
				}
				w.check()
			}
		})
	}()
	eventually(t, "all slots are taken", func() bool { return w.Stats()["busy"] == 5 && w.Stats()["starting"] == 0 })
	close(w.engine.gate)
	<-done
	sandboxes := w.engine.running("gated")
	total := 0
	for _, s := range sandboxes {
		served, most := s.numbers()
		total += served
		if most > 3 {
			t.Errorf("a sandbox had %d calls at a time, and concurrency is 3", most)
		}
	}
	if len(sandboxes) != 5 || len(w.engine.there()) != 5 || total != 64*5 {
		t.Errorf("%d sandboxes served %d calls, want 5 and %d", len(sandboxes), total, 64*5)
	}
	eventually(t, "everything is at rest", func() bool { return w.atRest() == "" })
}

func TestIdleSandboxesAreRemoved(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_scale=4 min_scale=1 idle_timeout=1m")
		calls := w.beginAll(fn, 4)
		time.Sleep(2 * time.Minute) // but not while they work, with 30 s of timeout
		for _, call := range calls {
			(<-call).fails(t, faas.CodeTimeout)
		}
		calls = w.beginAll(fn, 4)
		time.Sleep(time.Second)
		close(w.engine.gate)
		for _, call := range calls {
			(<-call).wants(t, `{"result":1}`)
		}
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if n := len(w.engine.running("gated")); n != 4 {
			t.Errorf("%d sandboxes before idle_timeout, want 4", n)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := len(w.engine.there()); n != 1 {
			t.Errorf("%d sandboxes after idle_timeout, want min_scale", n)
		}
		if problem := w.atRest(); problem != "" {
			t.Error(problem)
		}
	})
}

func TestScaleToZeroAndBack(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "idle_timeout=1s")
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(w.engine.there()); n != 0 {
			t.Errorf("%d sandboxes of an idle function", n)
		}
		infos, err := w.Sandboxes(t.Context(), fn.Live())
		if err != nil || len(infos) != 0 {
			t.Errorf("Sandboxes: %v, %v", infos, err)
		}
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
	})
}

func TestMinScaleIsKept(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "min_scale=3 idle_timeout=1s")
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(w.engine.running("version")); n != 3 {
			t.Fatalf("%d sandboxes, and min_scale is 3", n)
		}
		// A restart keeps it too.
		w.Close()
		w.engine.Purge(t.Context())
		w.boot()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := len(w.engine.running("version")); n != 3 {
			t.Errorf("%d sandboxes after a restart, and min_scale is 3", n)
		}
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
	})
}

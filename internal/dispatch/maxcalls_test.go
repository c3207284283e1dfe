package dispatch

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// wantServed fails the test unless the sandboxes, in the order of their birth, have
// begun so many calls each. Blank ones do not count.
func (w *world) wantServed(want ...int) {
	w.t.Helper()
	synctest.Wait()
	var got []int
	w.engine.mu.Lock()
	born := w.engine.born
	w.engine.mu.Unlock()
	for _, s := range born {
		s.mu.Lock()
		loaded := s.loaded.Code != ""
		s.mu.Unlock()
		if served, _ := s.numbers(); loaded {
			got = append(got, served)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.t.Errorf("the sandboxes served %v calls, want %v", got, want)
	}
}

// The load is no call: the sandbox of the registration takes as many as any.
func TestSandboxesAreReplacedAfterMaxCalls(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "max_calls=3")
		for range 8 {
			w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
			w.check()
		}
		w.wantServed(3, 3, 2)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(w.engine.running("version")); n != 1 {
			t.Errorf("%d sandboxes are left, want the one that may take another call", n)
		}
	})
}

func TestASandboxForEachCall(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_calls=1 concurrency=8 max_scale=4")
		calls := w.beginAll(fn, 10)
		time.Sleep(time.Second)
		w.wantServed(1, 1, 1, 1) // those that finish count for max_scale
		close(w.engine.gate)
		for _, call := range calls {
			(<-call).wants(t, `{"result":1}`)
		}
		synctest.Wait()
		for _, s := range w.engine.born {
			if served, _ := s.numbers(); served > 1 {
				t.Errorf("a sandbox served %d calls", served)
			}
		}
		w.check()
	})
}

// A sandbox has no more calls at a time than it may take.
func TestMaxCallsBelowConcurrency(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_calls=2 concurrency=8 max_scale=9")
		calls := w.beginAll(fn, 5)
		time.Sleep(time.Second)
		w.wantServed(2, 2, 1)
		close(w.engine.gate)
		for _, call := range calls {
			(<-call).wants(t, `{"result":1}`)
		}
	})
}

func TestSuccessorsAreStartedAhead(t *testing.T) {
	for set, ready := range map[string]int{
		"max_calls=1 min_scale=1":             1,
		"max_calls=1 min_scale=2 max_scale=3": 2,
		"max_calls=1 min_scale=1 max_scale=1": 0, // there may be no other beside it
		"max_calls=1":                         1, // after a while, as demand has it
	} {
		simulated(t, nil, func(t *testing.T, w *world) {
			fn := w.create("gated", set+" timeout=1m")
			time.Sleep(2 * time.Second) // for min_scale
			call := w.begin(t.Context(), fn)
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if n := len(w.flockOf(fn).birds); n != ready {
				t.Errorf("%s: %d sandboxes are ready while the last call runs, want %d", set, n, ready)
			}
			still(t, call)
			close(w.engine.gate)
			(<-call).wants(t, `{"result":1}`)
			w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
		})
	}
}

// Sandboxes come and go all the time, but a call waits no longer for that.
func TestQueueTimeoutWithMaxCalls(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_calls=1 max_scale=1 queue_timeout=5s start_timeout=5s")
		begun := time.Now()
		calls := w.beginAll(fn, 5)
		for _, call := range calls[:2] {
			time.Sleep(2 * time.Second)
			w.engine.gate <- struct{}{}
			(<-call).wants(t, `{"result":1}`)
			synctest.Wait()
		}
		(<-calls[4]).fails(t, faas.CodeNoCapacity, "queue_timeout of 5s")
		if waited := time.Since(begun); waited != 5*time.Second {
			t.Errorf("it waited %v, want 5s", waited)
		}
		close(w.engine.gate)
		(<-calls[2]).wants(t, `{"result":1}`)
	})
}

// Where max_concurrency keeps calls waiting, they are counted as well.
func TestMaxCallsWithMaxConcurrency(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_calls=2 concurrency=2 max_concurrency=1")
		calls := w.beginAll(fn, 5)
		for _, call := range calls {
			w.engine.gate <- struct{}{}
			(<-call).wants(t, `{"result":1}`)
			w.check()
		}
		w.wantServed(2, 2, 1)
	})
}

// Nobody knows how many calls the sandboxes of an earlier dispatcher have had.
func TestSandboxesWithMaxCallsAreNotAdopted(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "max_calls=10")
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
		w.restart()
		synctest.Wait()
		if n := len(w.engine.running("version")); n != 0 {
			t.Errorf("%d sandboxes were adopted", n)
		}
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
	})
}

// One of them that runs a call finishes it.
func TestASpentSandboxOutlivesTheDispatcher(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_calls=1 timeout=10s")
		old := w.begin(t.Context(), fn)
		synctest.Wait()
		w.restart()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if n := len(w.engine.running("gated")); n != 1 {
			t.Errorf("%d sandboxes while the call runs", n)
		}
		w.engine.gate <- struct{}{}
		(<-old).wants(t, `{"result":1}`)
		time.Sleep(time.Second)
		synctest.Wait()
		if n := len(w.engine.running("gated")); n != 0 {
			t.Errorf("%d sandboxes after it", n)
		}
	})
}

package dispatch

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// frozen counts the sandboxes that are paused.
func (e *fakeEngine) frozen() (n int) {
	for _, s := range e.there() {
		if s.frozen() {
			n++
		}
	}
	return n
}

func TestPauseAndResume(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "pause_after=5s idle_timeout=1m")
		s := w.engine.there()[0]
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if s.frozen() {
			t.Fatal("it was paused before its time")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		infos, err := w.Sandboxes(t.Context(), fn.Live())
		if err != nil || len(infos) != 1 || infos[0].State != "paused" || !s.frozen() || w.Stats()["paused"] != 1 || w.Stats()["idle"] != 0 {
			t.Fatalf("%+v, %v, %v", infos, err, w.Stats())
		}
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
		if served, _ := s.numbers(); served != 1 || s.frozen() || len(w.engine.there()) != 1 {
			t.Errorf("the paused sandbox served %d calls", served)
		}
		w.shows(`fob_cold_starts_total{kind="resumed"} 1`)
		w.shows(`fob_scaler_decisions_total{decision="pause"} 1`)
		w.shows(`fob_scaler_decisions_total{decision="start"} 1`)
		time.Sleep(10 * time.Second)
		if !s.frozen() {
			t.Error("it was not paused again")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(w.engine.there()); n != 0 {
			t.Errorf("%d sandboxes are left after idle_timeout", n)
		}
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
	})
}

func TestPauseIsOffByDefault(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.create("version", "min_scale=1")
		time.Sleep(time.Hour)
		if n := w.engine.frozen(); n != 0 || len(w.engine.there()) != 1 {
			t.Errorf("%d of %d sandboxes are paused", n, len(w.engine.there()))
		}
	})
}

// Paused sandboxes count: for min_scale, and for max_scale.
func TestPausedSandboxesCount(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "pause_after=5s min_scale=2 max_scale=3 idle_timeout=1m")
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := w.engine.frozen(); n != 2 || len(w.engine.born) != 2 {
			t.Fatalf("%d of the %d ever made are paused, want min_scale", n, len(w.engine.born))
		}
		calls := w.beginAll(fn, 5)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		w.check()
		if there := len(w.engine.there()); there != 3 || w.Stats()["busy"] != 3 || w.engine.frozen() != 0 {
			t.Errorf("%d sandboxes: %v", there, w.Stats())
		}
		close(w.engine.gate)
		for _, call := range calls {
			(<-call).wants(t, `{"result":1}`)
		}
		if n := len(w.engine.born); n != 3 {
			t.Errorf("%d sandboxes were made, want 3", n)
		}
	})
}

func TestAPausedSandboxThatCannotBeResumed(t *testing.T) {
	for name, spoil := range map[string]func(e *fakeEngine, s *fakeSandbox){
		"the engine refuses":        func(e *fakeEngine, _ *fakeSandbox) { e.stiff = errors.New("no") },
		"the engine takes too long": func(e *fakeEngine, _ *fakeSandbox) { e.freezing = make(chan struct{}) },
		"it is dead":                func(_ *fakeEngine, s *fakeSandbox) { s.die(sandbox.Exit{Code: 137}) },
	} {
		t.Run(name, func(t *testing.T) {
			simulated(t, nil, func(t *testing.T, w *world) {
				fn := w.create("version", "pause_after=1s")
				time.Sleep(3 * time.Second)
				s := w.engine.there()[0]
				w.engine.set(func() { spoil(w.engine, s) })
				w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
				synctest.Wait()
				if there := w.engine.there(); len(there) != 1 || there[0] == s {
					t.Errorf("there are %d sandboxes, want a new one", len(there))
				}
				if problem := w.atRest(); problem != "" {
					t.Error(problem)
				}
				w.engine.set(func() { w.engine.stiff, w.engine.freezing = nil, nil })
			})
		})
	}
}

func TestASandboxThatCannotBePaused(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "pause_after=1s")
		w.engine.set(func() { w.engine.stiff = errors.New("no") })
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if n := len(w.engine.there()); n != 0 {
			t.Errorf("%d sandboxes are left of which nobody knows whether they run", n)
		}
		w.engine.set(func() { w.engine.stiff = nil })
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
	})
}

// A call that comes while the engine is pausing waits for the end of that.
func TestACallWhileItsSandboxIsPaused(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "pause_after=1s max_scale=1")
		frozen := make(chan struct{})
		w.engine.set(func() { w.engine.freezing = frozen })
		time.Sleep(3 * time.Second)
		call := w.begin(t.Context(), fn)
		synctest.Wait()
		still(t, call)
		w.check()
		w.engine.set(func() { w.engine.freezing = nil })
		close(frozen)
		(<-call).wants(t, `{"result":1}`)
		if n := len(w.engine.born); n != 1 {
			t.Errorf("%d sandboxes were made, want 1", n)
		}
	})
}

func TestDeleteOfPausedSandboxes(t *testing.T) {
	for _, moment := range []string{"paused", "while pausing", "while resuming"} {
		t.Run(moment, func(t *testing.T) {
			simulated(t, nil, func(t *testing.T, w *world) {
				fn := w.create("version", "pause_after=1s")
				frozen := make(chan struct{})
				if moment == "while pausing" {
					w.engine.set(func() { w.engine.freezing = frozen })
				}
				time.Sleep(3 * time.Second)
				var call <-chan outcome
				if moment == "while resuming" {
					w.engine.set(func() { w.engine.freezing = frozen })
					call = w.begin(t.Context(), fn)
					synctest.Wait()
				}
				if err := w.Delete(t.Context(), faas.Ref{ID: fn.ID}); err != nil {
					t.Fatal(err)
				}
				if call != nil {
					(<-call).fails(t, faas.CodeUnknownFunction)
				}
				close(frozen)
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if problem := w.atRest(); problem != "" || len(w.engine.there()) != 0 || len(w.awake.all()) != 0 {
					t.Errorf("%d sandboxes are left: %s", len(w.engine.there()), problem)
				}
			})
		})
	}
}

func TestAdoptionOfPausedSandboxes(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "pause_after=1s")
		time.Sleep(3 * time.Second)
		if w.engine.frozen() != 1 {
			t.Fatal("it is not paused")
		}
		s := w.engine.there()[0]
		w.restart()
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
		if served, _ := s.numbers(); served != 1 || len(w.engine.born) != 1 {
			t.Errorf("the adopted sandbox served %d calls, and %d were made", served, len(w.engine.born))
		}
		// An engine that is slow about it.
		time.Sleep(3 * time.Second)
		w.Close()
		frozen := make(chan struct{})
		w.engine.set(func() { w.engine.freezing = frozen })
		w.boot()
		time.Sleep(time.Second)
		w.engine.set(func() { w.engine.freezing = nil })
		close(frozen)
		synctest.Wait()
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
		if n := len(w.engine.born); n != 1 {
			t.Errorf("%d sandboxes were made, want 1", n)
		}
	})
}

// Calls, ticks and deaths meet pausing and resuming at every moment.
func TestPauseChurn(t *testing.T) {
	leakless(t)
	w := newWorld(t, func(c *config) { c.Tick = 100 * time.Microsecond })
	fn := w.create("version", "pause_after=1ms max_scale=3 idle_timeout=20ms min_scale=1")
	together(8, func(i int) {
		for range 100 {
			o := w.call(context.Background(), faas.Ref{ID: fn.ID})
			if o.err != nil && faas.CodeOf(o.err) != faas.CodeSandboxDied && faas.CodeOf(o.err) != faas.CodeNoCapacity {
				t.Error(o.err)
			}
			w.check()
			if there := w.engine.there(); i == 0 && rand.IntN(10) == 0 && len(there) > 0 {
				there[rand.IntN(len(there))].die(sandbox.Exit{Code: 1})
			}
			time.Sleep(rand.N(3 * time.Millisecond))
		}
	})
	eventually(t, "min_scale is at rest, paused", func() bool {
		return w.atRest() == "" && len(w.engine.there()) == 1 && w.Stats()["paused"] == 1 && w.engine.frozen() == 1
	})
	w.Close()
	w.engine.Purge(context.Background())
}

// A start that fails is no reason to send calls away that wait for a sandbox
// that is still being paused.
func TestAFailedStartWhileASandboxIsPaused(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "pause_after=5s min_scale=2")
		time.Sleep(3 * time.Second)
		frozen := make(chan struct{})
		w.engine.set(func() { w.engine.freezing = frozen })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := w.Stats()["paused"]; n != 2 {
			t.Fatalf("%d sandboxes are being paused, want both", n)
		}
		w.engine.set(func() { w.engine.refusal, w.engine.delay = errors.New("full"), time.Second })
		w.engine.there()[0].die(sandbox.Exit{Code: 1})
		synctest.Wait()
		call := w.begin(t.Context(), fn)
		time.Sleep(2 * time.Second)
		w.engine.set(func() { w.engine.freezing, w.engine.delay = nil, 0 })
		close(frozen)
		(<-call).wants(t, `{"result":1}`)
		w.engine.set(func() { w.engine.refusal = nil })
	})
}

package dispatch

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

func poolOf(n int) func(*Config) {
	return func(c *Config) { c.Pool = map[string]int{"python": n} }
}

func TestPoolIsFilledAndRefilled(t *testing.T) {
	simulated(t, poolOf(2), func(t *testing.T, w *world) {
		synctest.Wait()
		if n := w.Stats()["blank"]; n != 2 {
			t.Fatalf("%d blank sandboxes, want 2", n)
		}
		blank := w.engine.there()
		w.create("version", "memory=256MB cpus=0.5")
		used := w.engine.running("version")
		if len(used) != 1 || used[0] != blank[0] {
			t.Fatalf("the function is not in the blank sandbox that waited longest")
		}
		if limits := used[0].Spec().Limits; limits != (sandbox.Limits{Memory: 256 << 20, CPUs: 0.5}) {
			t.Errorf("the sandbox has the limits %+v", limits)
		}
		synctest.Wait()
		if n := w.Stats()["blank"]; n != 2 {
			t.Errorf("%d blank sandboxes, want 2 again", n)
		}
		if n := len(w.engine.there()); n != 3 {
			t.Errorf("the engine has %d sandboxes, want 3", n)
		}
	})
}

func TestPoolHasOneNetworkAndOneLanguage(t *testing.T) {
	simulated(t, poolOf(1), func(t *testing.T, w *world) {
		synctest.Wait()
		blank := w.engine.there()[0]
		w.create("version", "network=none")
		if _, err := w.Create(t.Context(), "", faas.Draft{Code: "version", Lang: "node"}); err != nil {
			t.Fatal(err)
		}
		for _, s := range w.engine.running("version") {
			if s == blank {
				t.Errorf("the blank python sandbox with a network was taken for %+v", s.Spec())
			}
		}
		if n := w.Stats()["blank"]; n != 1 {
			t.Errorf("%d blank sandboxes, want 1", n)
		}
	})
}

func TestPoolDropsDeadSandboxes(t *testing.T) {
	simulated(t, poolOf(2), func(t *testing.T, w *world) {
		synctest.Wait()
		dead := w.engine.there()[0]
		dead.die(sandbox.Exit{Code: 1})
		synctest.Wait()
		there := w.engine.there()
		if len(there) != 2 || there[0] == dead || there[1] == dead {
			t.Errorf("the dead sandbox was not replaced: there are %d", len(there))
		}
		if n := w.Stats()["blank"]; n != 2 {
			t.Errorf("%d blank sandboxes, want 2", n)
		}
	})
}

// The engine may notice a death later than a function needs the sandbox.
func TestADeathInThePoolIsNobodysFault(t *testing.T) {
	simulated(t, poolOf(2), func(t *testing.T, w *world) {
		synctest.Wait()
		for _, s := range w.engine.there() {
			s.hangUp()
		}
		fn := w.create("version", "")
		(<-w.begin(t.Context(), fn)).wants(t, `{"result":1}`)
		time.Sleep(time.Minute)
		synctest.Wait()
		if problem := w.atRest(); problem != "" {
			t.Error(problem)
		}
	})
}

func TestPoolBacksOff(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.engine.set(func() { w.engine.refusal = errors.New("no space left") })
		// A pool beside the dispatcher's own, which has nothing to fill.
		p := newPool(w.Dispatcher, "python", 1, 0)
		w.background(p.run)
		begun := time.Now()
		for _, c := range []struct{ seconds, attempts int }{{0, 1}, {1, 2}, {3, 3}, {7, 4}, {15, 5}, {31, 6}, {63, 7}, {123, 8}} {
			time.Sleep(time.Until(begun.Add(time.Duration(c.seconds)*time.Second + time.Millisecond)))
			synctest.Wait()
			var attempts int
			w.engine.set(func() { attempts = w.engine.attempts })
			if attempts != c.attempts {
				t.Fatalf("%d attempts within %d s, want %d", attempts, c.seconds, c.attempts)
			}
		}
		w.engine.set(func() { w.engine.refusal = nil })
		time.Sleep(time.Minute)
		synctest.Wait()
		if size, _ := p.count(); size != 1 {
			t.Error("the pool is not filled once the engine works again")
		}
		p.clear()
	})
}

func TestCloseRemovesBlankSandboxes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, poolOf(3))
		synctest.Wait()
		fn := w.create("version", "")
		synctest.Wait()
		w.Close()
		there := w.engine.there()
		if len(there) != 1 || there[0].loaded.Function != fn.ID {
			t.Errorf("%d sandboxes are left, want only the function's", len(there))
		}
		w.Close() // again changes nothing
	})
}

func TestCloseWhileThePoolIsFilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, poolOf(3))
		synctest.Wait()
		created := make(chan struct{})
		w.engine.set(func() { w.engine.creating = created })
		w.create("version", "")
		synctest.Wait() // one more is being created
		w.Close()
		if n := len(w.engine.there()); n != 1 {
			t.Errorf("%d sandboxes are left, want only the function's", n)
		}
	})
}

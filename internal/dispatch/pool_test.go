package dispatch

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

func poolOf(n int) func(*config) {
	return func(c *config) { c.Pool = map[string]int{"python": n} }
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
		for _, c := range []struct{ seconds, attempts int }{{0, 2}, {1, 3}, {3, 4}, {7, 5}, {15, 6}, {25, 7}, {35, 8}} {
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

// dries counts how often the pool was found empty.
func (w *world) dries() int { return counted(w.t, w.cfg.Metrics, "fob_pool_dry_total") }

func (w *world) attempts() (n int) {
	w.engine.set(func() { n = w.engine.attempts })
	return n
}

// 500 simultaneous first calls of one function start one sandbox, whether the
// pool is making one or there is none.
func TestFirstCallsShareAStart(t *testing.T) {
	for _, size := range []int{0, 2} {
		simulated(t, poolOf(size), func(t *testing.T, w *world) {
			synctest.Wait()
			fn := w.create("gated", "idle_timeout=1s max_scale=3")
			time.Sleep(time.Minute)
			loading, created := make(chan struct{}), make(chan struct{})
			w.engine.loads["gated"] = func(*fakeSandbox) string { <-loading; return "" }
			w.engine.set(func() { w.engine.creating = created })
			for _, s := range w.engine.there() { // empties the pool
				s.die(sandbox.Exit{Code: 1})
			}
			synctest.Wait()
			before := w.attempts() - min(size, 1) // what the pool is making
			var calls []<-chan outcome
			for range 500 {
				calls = append(calls, w.begin(t.Context(), fn))
			}
			synctest.Wait()
			if n := w.attempts() - before; n != 1 {
				t.Errorf("pool of %d: %d sandboxes are being created, want 1", size, n)
			}
			w.engine.set(func() { w.engine.creating = nil })
			close(created)
			synctest.Wait()
			if n := w.attempts() - before; n != 1 {
				t.Errorf("pool of %d: %d sandboxes were created while the first loads, want 1", size, n)
			}
			close(loading)
			synctest.Wait()
			time.Sleep(growPatience * 2)
			synctest.Wait()
			if n := len(w.engine.running("gated")); n != 3 {
				t.Errorf("then there are %d sandboxes, want max_scale", n)
			}
			close(w.engine.gate)
			for _, call := range calls {
				(<-call).wants(t, `{"result":1}`)
			}
		})
	}
}

// What becomes of a sandbox that the pool is making and that somebody waits for.
func TestWaitingForThePool(t *testing.T) {
	// hold has the pool make one that takes until release is called.
	hold := func(w *world) (release func()) {
		created := make(chan struct{})
		w.engine.set(func() { w.engine.creating = created })
		w.engine.there()[0].die(sandbox.Exit{Code: 1})
		synctest.Wait()
		return func() {
			w.engine.set(func() { w.engine.creating = nil })
			close(created)
		}
	}
	t.Run("who waits gets it", func(t *testing.T) {
		simulated(t, poolOf(1), func(t *testing.T, w *world) {
			synctest.Wait()
			release := hold(w)
			made := make(chan error, 1)
			go func() { _, err := w.Create(t.Context(), "", faas.Draft{Code: "version"}); made <- err }()
			synctest.Wait()
			release()
			if err := <-made; err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if n := w.attempts(); n != 3 || w.dries() != 1 || w.Stats()["blank"] != 1 {
				t.Errorf("%d creations, and the pool was empty %d times", n, w.dries())
			}
		})
	})
	t.Run("who goes away leaves it to the pool", func(t *testing.T) {
		simulated(t, poolOf(1), func(t *testing.T, w *world) {
			synctest.Wait()
			release := hold(w)
			ctx, cancel := context.WithCancel(t.Context())
			made := make(chan error, 1)
			go func() { _, err := w.Create(ctx, "", faas.Draft{Code: "version"}); made <- err }()
			synctest.Wait()
			cancel()
			if err := <-made; !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			release()
			synctest.Wait()
			if n := w.attempts(); n != 2 || w.Stats()["blank"] != 1 {
				t.Errorf("%d creations, %v", n, w.Stats())
			}
			if problem := w.atRest(); problem != "" {
				t.Error(problem)
			}
		})
	})
	t.Run("who comes second has one made", func(t *testing.T) {
		simulated(t, poolOf(1), func(t *testing.T, w *world) {
			synctest.Wait()
			release := hold(w)
			made := make(chan error, 2)
			for range 2 {
				go func() { _, err := w.Create(t.Context(), "", faas.Draft{Code: "version"}); made <- err }()
			}
			synctest.Wait()
			if n := w.attempts(); n != 3 {
				t.Errorf("%d creations, want the first, the pool's and one more", n)
			}
			release()
			if err := errors.Join(<-made, <-made); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("who waits for one that fails has one made", func(t *testing.T) {
		simulated(t, poolOf(1), func(t *testing.T, w *world) {
			synctest.Wait()
			created := make(chan struct{})
			w.engine.set(func() { w.engine.creating, w.engine.failing = created, errors.New("bad luck") })
			w.engine.there()[0].die(sandbox.Exit{Code: 1})
			synctest.Wait()
			made := make(chan error, 1)
			go func() { _, err := w.Create(t.Context(), "", faas.Draft{Code: "version"}); made <- err }()
			synctest.Wait()
			w.engine.set(func() { w.engine.creating, w.engine.failing = nil, nil })
			close(created)
			if err := <-made; err != nil {
				t.Fatal(err)
			}
		})
	})
}

// Nothing is started for the pool while somebody waits for a load, unless that
// takes long.
func TestThePoolKeepsBack(t *testing.T) {
	simulated(t, poolOf(1), func(t *testing.T, w *world) {
		synctest.Wait()
		loading := make(chan struct{})
		w.engine.loads["version"] = func(*fakeSandbox) string { <-loading; return "" }
		made := make(chan error, 1)
		go func() { _, err := w.Create(t.Context(), "", faas.Draft{Code: "version"}); made <- err }()
		time.Sleep(poolPatience - time.Millisecond)
		if n := w.attempts(); n != 1 {
			t.Errorf("%d creations while somebody waits, want the first", n)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if n := w.attempts(); n != 2 {
			t.Errorf("%d creations after %v, want one more", n, poolPatience)
		}
		close(loading)
		if err := <-made; err != nil {
			t.Fatal(err)
		}
	})
}

func TestThePoolGrowsAndShrinks(t *testing.T) {
	simulated(t, func(c *config) { poolOf(1)(c); c.PoolMax = 3 }, func(t *testing.T, w *world) {
		sizes := func(size, target int) {
			t.Helper()
			synctest.Wait()
			if s, n := w.pools.of("python").count(); s != size || n != target {
				t.Fatalf("there are %d of %d blank sandboxes, want %d of %d", s, n, size, target)
			}
		}
		// All of a burst have looked into the pool before one has loaded.
		w.engine.loads["version"] = func(*fakeSandbox) string { time.Sleep(time.Millisecond); return "" }
		sizes(1, 1)
		burst := func(n int) {
			together(n, func(int) { w.create("version", "idle_timeout=1s") })
		}
		burst(4)
		sizes(2, 2)
		time.Sleep(time.Minute)
		burst(4)
		sizes(3, 3)
		time.Sleep(time.Minute)
		burst(4) // as far as it may
		sizes(3, 3)
		time.Sleep(poolRest - time.Second)
		sizes(3, 3)
		time.Sleep(2 * time.Second)
		sizes(2, 2)
		time.Sleep(poolRest)
		sizes(1, 1)
		time.Sleep(poolRest)
		sizes(1, 1)
		if problem := w.atRest(); problem != "" {
			t.Error(problem)
		}
	})
}

func TestPoolsHaveAQuarterOfTheRoom(t *testing.T) {
	for n, want := range map[int]string{3: "0 0", 4: "0 1", 5: "1 1", 8: "1 1", 9: "2 1", 100: "2 1"} {
		simulated(t, func(c *config) {
			roomFor(n)(c)
			c.Pool, c.PoolMax = map[string]int{"python": 2, "node": 1}, 8
		}, func(t *testing.T, w *world) {
			synctest.Wait()
			python, _ := w.pools.of("python").count()
			node, _ := w.pools.of("node").count()
			if got := fmt.Sprint(python, node); got != want {
				t.Errorf("with room for %d the pools have %s, want %s", n, got, want)
			}
		})
	}
}

// A blank sandbox goes before one that has a function.
func TestABlankOneMakesRoomFirst(t *testing.T) {
	simulated(t, func(c *config) {
		roomFor(4)(c)
		c.Pool = map[string]int{"node": 1}
	}, func(t *testing.T, w *world) {
		synctest.Wait()
		for range 4 {
			w.create("version", "")
			synctest.Wait()
		}
		if n := len(w.engine.running("version")); n != 4 || w.Stats()["blank"] != 0 {
			t.Errorf("%d functions have a sandbox, and there is %v", n, w.Stats())
		}
		// The pool comes back once something has been idle for a while.
		time.Sleep(blankIdle - time.Second)
		if w.Stats()["blank"] != 0 {
			t.Error("the pool took the place of a sandbox that was used just now")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := len(w.engine.running("version")); n != 3 || w.Stats()["blank"] != 1 {
			t.Errorf("%d functions have a sandbox, and there is %v", n, w.Stats())
		}
		w.wantEvictions(2)
	})
}

func TestAPooledSandboxNeedsMoreRoom(t *testing.T) {
	simulated(t, func(c *config) {
		roomFor(4)(c)
		c.Pool = map[string]int{"python": 1}
	}, func(t *testing.T, w *world) {
		synctest.Wait()
		busy := w.create("gated", "memory=384MB")
		running := w.begin(t.Context(), busy)
		synctest.Wait()
		_, err := w.Create(t.Context(), "", faas.Draft{Code: "version", Settings: settings("memory=256MB")})
		outcome{err: err}.fails(t, faas.CodeNoCapacity)
		synctest.Wait()
		if w.Stats()["blank"] != 1 {
			t.Error("the blank sandbox did not go back to the pool")
		}
		w.engine.gate <- struct{}{}
		(<-running).wants(t, `{"result":1}`)
		w.create("version", "memory=256MB")
		w.create("version", "memory=32MB")
		time.Sleep(time.Minute)
		synctest.Wait()
		w.wantEvictions(1)
	})
}

package dispatch

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// upgrade restarts the dispatcher with an engine that makes sandboxes in another way.
func (w *world) upgrade() {
	w.engine.set(func() { w.engine.recipe += "+" })
	w.restart()
}

// old counts the living sandboxes of a code that are made as they no longer are.
func (w *world) old(code string) (old, all int) {
	for _, s := range w.engine.running(code) {
		all++
		if outdated, _ := s.Outdated(w.t.Context()); outdated {
			old++
		}
	}
	return old, all
}

// After an upgrade the sandboxes that were adopted serve, and are replaced one by one:
// no call fails or waits, and min_scale is kept.
func TestUpgradeReachesWhatRuns(t *testing.T) {
	simulated(t, func(c *config) { c.Pool = map[string]int{"python": 1} }, func(t *testing.T, w *world) {
		fn := w.create("version", "min_scale=3 max_scale=3")
		time.Sleep(5 * time.Second)
		w.engine.set(func() { w.engine.delay = 100 * time.Millisecond })
		w.upgrade()
		if old, all := w.old("version"); all < 3 || old == 0 {
			t.Fatalf("%d of %d sandboxes are old right after the start", old, all)
		}
		for range 400 {
			o := w.call(t.Context(), faas.Ref{ID: fn.ID})
			o.wants(t, `{"result":1}`)
			if o.timing.Queue+o.timing.Start > 0 {
				t.Fatalf("a call waited: %+v", o.timing)
			}
			f := w.flockOf(fn)
			f.mu.Lock()
			if n := len(f.birds) + len(f.paused); n < 3 {
				t.Errorf("%d sandboxes, and min_scale is 3", n)
			}
			f.mu.Unlock()
			w.check()
			time.Sleep(10 * time.Millisecond)
		}
		if old, all := w.old("version"); old != 0 || all != 3 {
			t.Errorf("%d of %d sandboxes are old", old, all)
		}
		// A further start finds nothing to replace.
		before := w.engine.running("version")
		w.restart()
		time.Sleep(time.Minute)
		for i, s := range w.engine.running("version") {
			if s != before[i] {
				t.Error("a sandbox was replaced that is made as it would be today")
			}
		}
	})
}

// What a sandbox has begun it finishes, while its successor takes the next call.
func TestUpgradeLetsCallsFinish(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "min_scale=1 max_scale=1 timeout=10m")
		w.engine.set(func() { w.engine.delay = time.Second })
		w.upgrade()
		first := w.begin(t.Context(), fn)
		time.Sleep(5 * time.Second)
		if old, all := w.old("gated"); old != 1 || all != 2 {
			t.Errorf("%d of %d sandboxes are old while one has a call", old, all)
		}
		second := w.begin(t.Context(), fn)
		synctest.Wait()
		still(t, first, second)
		if n := w.Stats()["busy"]; n != 1 {
			t.Errorf("%d sandboxes that take calls are busy: the second call waits", n)
		}
		close(w.engine.gate)
		(<-first).wants(t, `{"result":1}`)
		(<-second).wants(t, `{"result":1}`)
		synctest.Wait()
		if old, all := w.old("gated"); old != 0 || all != 1 {
			t.Errorf("%d of %d sandboxes are old", old, all)
		}
		if problem := w.atRest(); problem != "" {
			t.Error(problem)
		}
	})
}

// As long as no successor can be had the old sandbox serves.
func TestUpgradeWaitsForASuccessor(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "min_scale=1")
		w.engine.set(func() {
			w.engine.loads["version"] = func(*fakeSandbox) string { return driverError(422, "load_failed", "OSError", "no service") }
		})
		w.upgrade()
		for range 100 {
			w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
			time.Sleep(time.Second)
		}
		w.engine.set(func() { delete(w.engine.loads, "version") })
		time.Sleep(5 * time.Minute) // each pause is twice as long
		synctest.Wait()
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
		if old, all := w.old("version"); old != 0 || all != 1 {
			t.Errorf("%d of %d sandboxes are old", old, all)
		}
	})
}

// TestUpgradeInVain: code that does not load any more costs few containers, however many
// sandboxes there are that run it.
func TestUpgradeInVain(t *testing.T) {
	var log *lines
	simulated(t, func(c *config) { log = warnings(c) }, func(t *testing.T, w *world) {
		fn := w.create("version", "min_scale=10 max_scale=10")
		time.Sleep(5 * time.Second)
		w.engine.set(func() {
			w.engine.loads["version"] = func(*fakeSandbox) string { return driverError(422, "load_failed", "OSError", "no service") }
		})
		w.upgrade()
		var before, after int
		w.engine.set(func() { before = len(w.engine.born) })
		time.Sleep(2 * time.Hour)
		w.engine.set(func() { after = len(w.engine.born) })
		if n := after - before; n > 15 {
			t.Errorf("%d sandboxes were started in two hours", n)
		}
		if n := strings.Count(log.String(), "cannot be replaced yet"); n != 1 {
			t.Errorf("the log says so %d times", n)
		}
		if old, all := w.old("version"); old != 10 || all != 10 {
			t.Errorf("%d of %d sandboxes are old", old, all)
		}
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
	})
}

// TestUpgradeEvictsNobody: where there is no room an idle sandbox makes way for its
// successor, not another function's.
func TestUpgradeEvictsNobody(t *testing.T) {
	simulated(t, func(c *config) { c.MaxSandboxes = 2 }, func(t *testing.T, w *world) {
		fn := w.create("gated", "timeout=10s min_scale=1 max_scale=1")
		old := w.begin(t.Context(), fn)
		synctest.Wait()
		w.upgrade() // its sandbox is adopted once that call is over
		w.create("version", "idle_timeout=1h")
		there := w.engine.running("version")
		w.engine.gate <- struct{}{}
		<-old
		time.Sleep(time.Minute)
		if old, all := w.old("gated"); old != 0 || all != 1 {
			t.Errorf("%d of %d sandboxes are old", old, all)
		}
		if now := w.engine.running("version"); !slices.Equal(now, there) {
			t.Errorf("the other function has %v, and had %v", now, there)
		}
	})
}

// Where there is no room for both, an idle one makes way, and no call fails.
func TestUpgradeWithoutRoom(t *testing.T) {
	simulated(t, func(c *config) { c.MaxSandboxes = 1 }, func(t *testing.T, w *world) {
		fn := w.create("version", "min_scale=1")
		w.engine.set(func() { w.engine.delay = 500 * time.Millisecond })
		w.upgrade()
		for range 100 {
			w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
			time.Sleep(100 * time.Millisecond)
		}
		if old, all := w.old("version"); old != 0 || all != 1 {
			t.Errorf("%d of %d sandboxes are old", old, all)
		}
	})
}

// Paused sandboxes are replaced as well, and those of old versions that nobody calls go.
func TestUpgradeOfWhatIsPausedOrRetired(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "min_scale=1 pause_after=1s")
		w.put(fn, "gated", "")
		time.Sleep(5 * time.Second)
		w.upgrade()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if old, all := w.old("gated"); old != 0 || all != 1 {
			t.Errorf("%d of %d sandboxes of the live version are old", old, all)
		}
		if _, all := w.old("version"); all != 0 {
			t.Errorf("the replaced version has %d sandboxes", all)
		}
	})
}

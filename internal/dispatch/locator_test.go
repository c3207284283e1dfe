package dispatch

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// A sandbox's token opens what it was loaded with, from then on until its end.
func TestHolder(t *testing.T) {
	simulated(t, func(c *config) { c.Pool = map[string]int{"node": 1} }, func(t *testing.T, w *world) {
		holds := func(s *fakeSandbox, want faas.VersionKey) {
			t.Helper()
			id, got, ok := w.Holder(t.Context(), s.Token())
			if ok != (want != faas.VersionKey{}) || got != want || ok && id != s.id {
				t.Errorf("sandbox %s: %s, %v, %v; want %v", s.id, id, got, ok, want)
			}
		}
		synctest.Wait()
		blank := w.engine.there()[0]
		holds(blank, faas.VersionKey{})
		fn := w.create("version", "pause_after=1m idle_timeout=10m")
		sandboxes := w.engine.running("version")
		first := sandboxes[0]
		holds(first, fn.Live().Key())
		for _, bad := range []string{"", "x", first.Token()[1:], first.Token() + "0"} {
			if id, _, ok := w.Holder(t.Context(), bad); ok {
				t.Errorf("%q is said to be that of %s", bad, id)
			}
		}
		fn2 := w.put(fn, "version", "")
		holds(first, fn.Live().Key()) // and not the newer one
		second := w.engine.running("version")[1]
		holds(second, fn2.Live().Key())
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if w.Stats()["paused"] != 1 {
			t.Fatalf("none is paused: %v", w.Stats())
		}
		holds(second, fn2.Live().Key())
		holds(first, faas.VersionKey{}) // its version is retired, and nobody called it
		w.restart()
		holds(second, fn2.Live().Key())
		second.die(sandbox.Exit{Code: 1})
		holds(second, faas.VersionKey{})
		synctest.Wait()
		holds(second, faas.VersionKey{})
	})
}

package dispatch

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// What the engine makes late for a dispatcher that was killed is found and
// removed, and what this one has stays.
func TestStraysAreRemoved(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "")
		before := w.engine.there()
		for _, late := range []time.Duration{0, 700 * time.Millisecond, time.Minute} {
			time.Sleep(late)
			if _, err := w.engine.Create(t.Context(), sandbox.Spec{Lang: "python"}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2*longestStep + time.Second)
			synctest.Wait()
			there := w.engine.there()
			if len(there) != len(before) {
				t.Fatalf("%v later there are %d sandboxes, want %d", late, len(there), len(before))
			}
		}
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
	})
}

// One that the engine has made and the dispatcher has not yet noted is no stray.
func TestTheNewestIsNoStray(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		inst, err := w.engine.Create(t.Context(), sandbox.Spec{Lang: "python"})
		if err != nil {
			t.Fatal(err)
		}
		suspects := w.aviary.removeStrays(nil)
		if !suspects[inst.ID()] || len(w.engine.there()) != 1 {
			t.Errorf("suspects are %v", suspects)
		}
		w.capacity.admit(inst.ID(), 0) // noted now
		if suspects = w.aviary.removeStrays(suspects); len(suspects) != 0 {
			t.Errorf("suspects are %v still", suspects)
		}
		synctest.Wait()
		if len(w.engine.there()) != 1 {
			t.Error("it was removed")
		}
		w.aviary.dispose(inst)
	})
}

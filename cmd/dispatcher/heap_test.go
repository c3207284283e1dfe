package main

import (
	"math"
	"runtime/debug"
	"testing"
)

// TestHeapLimit: the heap is limited before anything is taken from the budget, to
// what mapped memory leaves of it, and something.
func TestHeapLimit(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "")
	before := debug.SetMemoryLimit(math.MaxInt64)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	const budget, most = 1 << 30, 1 << 28 // that the tests' heap may have
	limit := func() int64 { return debug.SetMemoryLimit(-1) }
	h := newHeapLimit(budget)
	base := limit() - budget
	if base < besides || base > most {
		t.Errorf("at first it is the budget and %d bytes", base)
	}
	for mapped, want := range map[int64]int64{0: budget, 1 << 29: 1 << 29, budget: 0, 2 * budget: 0} {
		if h.setMapped(mapped); limit() != want+base {
			t.Errorf("with %d mapped it is %d, want %d", mapped, limit(), want+base)
		}
	}
	h.setMapped(budget)
	if h.measure(); limit() < besides || limit() > most {
		t.Errorf("measured again it is %d", limit())
	}
	t.Setenv("GOMEMLIMIT", "1GiB")
	debug.SetMemoryLimit(1 << 30)
	if newHeapLimit(budget).setMapped(1); limit() != 1<<30 {
		t.Errorf("beside GOMEMLIMIT it is %d", limit())
	}
}

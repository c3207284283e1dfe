package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"sync"
)

// besides is how many bytes the heap may have on top of the budget for requests and
// answers, and on top of five quarters of the heap at rest. With about 15 MB for the
// program's own pages, memory stays below the budget plus 30 MB, the bound that
// docs/inside/reliability.md states.
const besides = 4 << 20

// heapLimit sets the collector's memory limit to the part of the budget that is not
// mapped memory, plus what the program needs without requests. Without a limit the
// collector would let as much garbage build up as there is live memory, and would keep
// what a crowd of connections had used after they were gone. When GOMEMLIMIT is set,
// heapLimit does nothing.
type heapLimit struct {
	budget int64
	off    bool

	mu     sync.Mutex
	mapped int64
	base   int64
}

// newHeapLimit returns a limit that is in force at once.
func newHeapLimit(budget int64) *heapLimit {
	h := &heapLimit{budget: budget, off: os.Getenv("GOMEMLIMIT") != ""}
	h.measure()
	return h
}

// measure takes the present heap as the heap without requests.
func (h *heapLimit) measure() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.base = besides + int64(m.HeapAlloc)/4*5
	h.set()
}

// setMapped tells how many bytes of the budget are mapped memory.
func (h *heapLimit) setMapped(mapped int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mapped = mapped
	h.set()
}

// set applies the limit. The caller holds mu.
func (h *heapLimit) set() {
	if !h.off {
		debug.SetMemoryLimit(max(0, h.budget-h.mapped) + h.base)
	}
}

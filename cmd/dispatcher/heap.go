package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"sync"
)

// besides is how much memory the collector may have besides what the budget for
// requests and answers says, in bytes, and what there is without any and a quarter
// more. With the program's own pages, some 15 MB, that stays below the 30 MB over
// the budget that docs/inside/reliability.md allows.
const besides = 4 << 20

// heapLimit limits the collector's heap to the part of the budget that mapped
// memory does not have, and besides: else it would keep as much garbage as there
// is of everything else, and what a crowd of connections had for a while when they
// are gone. Who sets GOMEMLIMIT knows better.
type heapLimit struct {
	budget int64
	off    bool

	mu     sync.Mutex
	mapped int64
	base   int64
}

// newHeapLimit returns a limit that holds at once.
func newHeapLimit(budget int64) *heapLimit {
	h := &heapLimit{budget: budget, off: os.Getenv("GOMEMLIMIT") != ""}
	h.measure()
	return h
}

// measure takes what the heap has now for what it has without requests.
func (h *heapLimit) measure() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.base = besides + int64(m.HeapAlloc)/4*5
	h.set()
}

// setMapped sets how many bytes of the budget are mapped memory.
func (h *heapLimit) setMapped(mapped int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mapped = mapped
	h.set()
}

// set sets the limit. The caller holds mu.
func (h *heapLimit) set() {
	if !h.off {
		debug.SetMemoryLimit(max(0, h.budget-h.mapped) + h.base)
	}
}

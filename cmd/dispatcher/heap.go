package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"sync"
)

// besides is how much memory the collector may have besides what the budget for
// requests and answers says, in bytes, and what there is at first and a quarter more.
const besides = 10 << 20

// limitHeap returns what limits the collector's heap to the part of the budget
// that mapped memory does not have, and besides: else it would keep as much
// garbage as there is of everything else, and what a crowd of connections had for
// a while when they are gone. Who sets GOMEMLIMIT knows better.
func limitHeap(budget int64) func(mapped int64) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	base := sync.OnceValue(func() int64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return besides + int64(m.HeapAlloc)/4*5
	})
	return func(mapped int64) { debug.SetMemoryLimit(max(0, budget-mapped) + base()) }
}

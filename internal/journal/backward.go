package journal

import (
	"bytes"
	"iter"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// Backward reads the records in a folder whose numbers are lower than before and which
// match, the newest first. A before of 0 stands for no bound. Several segments are read at
// a time, so match is called concurrently, with records in any order, whose payloads are
// valid for the call alone. The payload of a record that Backward yields may be kept.
//
// Concurrent writing and Damage are as for Records, except that records missing at the end
// of a segment are not reported. Any other error stands for the rest of a segment, and
// whoever goes on gets the segments before it. When Backward returns, match is not called
// any more.
func Backward(folder string, before uint64, match func(Record) bool) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		all, err := list(folder)
		if err != nil {
			yield(Record{}, err)
			return
		}
		if before == 0 {
			before = noBound
		}
		for len(all) > 0 && all[len(all)-1].first >= before {
			all = all[:len(all)-1]
		}
		// As many segments are read at a time as there are processors, and what was found
		// in them is yielded in their order.
		var stopped atomic.Bool
		var readers sync.WaitGroup
		defer readers.Wait()
		defer stopped.Store(true)
		read := func(i int) <-chan []hit {
			out := make(chan []hit, 1)
			readers.Go(func() { out <- matching(folder, all, i, before, &stopped, match) })
			return out
		}
		var ahead []<-chan []hit
		for i := len(all) - 1; i >= 0 || len(ahead) > 0; {
			for ; i >= 0 && len(ahead) < runtime.GOMAXPROCS(0); i-- {
				ahead = append(ahead, read(i))
			}
			records := <-ahead[0]
			ahead = ahead[1:]
			for _, f := range slices.Backward(records) {
				if !yield(f.record, f.err) {
					return
				}
			}
		}
	}
}

// hit is a record, or an error in its place.
type hit struct {
	record Record
	err    error
}

// matching returns the records in the ith segment that match, the oldest first.
func matching(folder string, all []segment, i int, before uint64, stopped *atomic.Bool, match func(Record) bool) (some []hit) {
	r := reader{folder: folder, yield: func(record Record, err error) bool {
		if stopped.Load() || err == nil && record.Number >= before {
			return false
		}
		if err == nil {
			if !match(record) {
				return true
			}
			record.Payload = bytes.Clone(record.Payload)
		}
		some = append(some, hit{record, err})
		return true
	}}
	r.read(all[i], boundOf(all, i))
	return some
}

package journal

import (
	"errors"
	"iter"
	"sort"
	"sync/atomic"
	"time"
)

// Search yields what Backward finds, until done is closed. It passes over what cannot be
// read and tells failed of it. Only if nothing could be read, and not because of Damage
// alone, does it yield an error, as the last.
func Search(folder string, before uint64, done <-chan struct{}, failed func(error), match func(Record) bool) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		over := func() bool {
			select {
			case <-done:
				return true
			default:
				return false
			}
		}
		var broken error
		var readable atomic.Bool
		for r, err := range Backward(folder, before, func(r Record) bool {
			readable.Store(true)
			return !over() && match(r)
		}) {
			switch {
			case over():
				return
			case err != nil:
				failed(err)
				var damage *Damage
				if !errors.As(err, &damage) {
					broken = err
				}
			case !yield(r, nil):
				return
			}
		}
		if broken != nil && !readable.Load() {
			yield(Record{}, broken)
		}
	}
}

// Bound returns a number for Search to begin before, above which all records in a folder
// were written after a time: where a segment begins, so that Search opens none of the
// later ones. Without such records it is 0.
func Bound(folder string, after time.Time) (before uint64, err error) {
	all, err := list(folder)
	if err != nil {
		return 0, err
	}
	i := sort.Search(len(all), func(i int) bool {
		return all[i].stat(folder) == nil && all[i].begun.After(after)
	})
	if i == len(all) {
		return 0, nil
	}
	return all[i].first, nil
}

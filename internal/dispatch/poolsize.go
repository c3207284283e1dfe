package dispatch

import (
	"slices"
	"time"
)

const (
	// poolStep is how long after it has grown a pool may grow again. A burst of calls
	// finds it empty many times, but is one reason to grow.
	poolStep = time.Second

	// poolRest is how long a pool must not run low before it becomes smaller.
	poolRest = 5 * time.Minute
)

// poolSize is how many blank sandboxes a pool is to have, and what decides that. It is
// a value: each event makes a new one.
type poolSize struct {
	least, most int // the bounds; most is 0 if there is no pool at all
	target      int
	grown       time.Time
	low         time.Time // when it last ran low or became smaller
}

func newPoolSize(least, most int, now time.Time) poolSize {
	if least == 0 {
		most = 0
	}
	return poolSize{least: least, most: max(least, most), target: least, low: now}
}

// taken returns the size after a sandbox was taken, with left ones remaining, or after
// there was none to take. An empty pool grows by half.
func (s poolSize) taken(found bool, left int, now time.Time) poolSize {
	if !found && now.Sub(s.grown) >= poolStep && s.target < s.most {
		s.target = min(s.most, s.target+max(1, s.target/2))
		s.grown = now
	}
	if !found || left <= s.target/4 {
		s.low = now
	}
	return s
}

// rested returns the size as time passes: one less whenever the pool has not run low
// for a while.
func (s poolSize) rested(now time.Time) poolSize {
	if s.target > s.least && now.Sub(s.low) >= poolRest {
		s.target--
		s.low = now
	}
	return s
}

// shares reduces targets until they add up to no more than total. The largest is
// reduced first; among equal ones, the first.
func shares(targets []int, total int) []int {
	targets = slices.Clone(targets)
	sum := 0
	for _, n := range targets {
		sum += n
	}
	for ; sum > total; sum-- {
		largest := 0
		for i, n := range targets {
			if n > targets[largest] {
				largest = i
			}
		}
		targets[largest]--
	}
	return targets
}

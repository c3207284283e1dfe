package dispatch

import (
	"math"
	"sync"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// quota is what the flocks of one function share: max_concurrency, and the lock that
// guards all of them. With one lock, counting costs an addition, and giving a slot to
// another version's call needs no second lock. A function rarely has more than one busy
// version.
type quota struct {
	mu      sync.Mutex
	limit   int      // max_concurrency of the live version
	running int      // calls in sandboxes of all versions, including draining ones
	flocks  []*flock // those that are awake
}

func newQuota(limit int) *quota { return &quota{limit: bound(limit)} }

// bound returns the limit that a max_concurrency stands for.
func bound(maxConcurrency int) int {
	if maxConcurrency == faas.Unlimited {
		return math.MaxInt
	}
	return maxConcurrency
}

// admits reports whether one more call may run. The caller holds mu.
func (q *quota) admits() bool { return q.running < q.limit }

// limited reports whether calls may have to wait although their flock has a free slot.
// The caller holds mu.
func (q *quota) limited() bool { return q.limit < math.MaxInt }

// set changes the limit. Calls that it now admits go on. With 0 all waiting calls are
// refused.
func (q *quota) set(maxConcurrency int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limit = bound(maxConcurrency)
	q.serve(time.Now())
	if q.limit > 0 {
		return
	}
	for _, f := range q.flocks {
		f.refuse(switchedOff())
	}
}

// serve gives slots to calls that only the limit kept waiting, first come first served
// across all versions. The caller holds mu.
func (q *quota) serve(now time.Time) {
	for q.admits() {
		var next *flock
		var free *bird
		var since time.Time
		for _, f := range q.flocks {
			joined, waiting := f.line.since()
			if !waiting || next != nil && !joined.Before(since) {
				continue
			}
			if b := f.free(f.version.Settings.Concurrency); b != nil {
				next, free, since = f, b, joined
			}
		}
		if next == nil {
			return
		}
		next.line.give(free)
		free.startCall(now)
	}
}

// switchedOff returns the error for calls while max_concurrency is 0.
func switchedOff() error {
	return faas.Errorf(faas.CodeOverLimit, "the function is switched off: its setting max_concurrency is 0").After(10 * time.Second)
}

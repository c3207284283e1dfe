package dispatch

import (
	"math"
	"sync"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// quota is what the flocks of one function share: the lock that guards them
// all, and max_concurrency. One lock for both makes counting cost an addition,
// and giving a slot to a call of another version no dance of locks; hardly
// ever has a function more than one version that is busy.
type quota struct {
	mu      sync.Mutex
	limit   int      // max_concurrency of the live version
	running int      // calls in sandboxes of any version, draining ones included
	flocks  []*flock // that are awake
}

func newQuota(limit int) *quota { return &quota{limit: bound(limit)} }

// bound is the limit that a max_concurrency means.
func bound(maxConcurrency int) int {
	if maxConcurrency == faas.Unlimited {
		return math.MaxInt
	}
	return maxConcurrency
}

// admits reports whether one more call may run. The caller holds mu.
func (q *quota) admits() bool { return q.running < q.limit }

// limited reports whether calls may have to wait although their flock has a
// free slot. The caller holds mu.
func (q *quota) limited() bool { return q.limit < math.MaxInt }

// set changes the limit: calls that it lets in go on, and with 0 nobody has
// anything to wait for.
func (q *quota) set(maxConcurrency int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limit = bound(maxConcurrency)
	q.serve(time.Now())
	if q.limit > 0 {
		return
	}
	for _, f := range q.flocks {
		f.throttled(f.line.len())
		f.refuse(switchedOff())
	}
}

// serve gives slots to calls that only the limit kept waiting, first come first
// served over all versions. The caller holds mu.
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

// switchedOff is what calls are told while max_concurrency is 0.
func switchedOff() error {
	return faas.Errorf(faas.CodeOverLimit, "the function is switched off: its setting max_concurrency is 0").After(10 * time.Second)
}

package history

import (
	"iter"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/journal"
)

// maxBehind is how many calls a follower may be behind. Others are only counted for it.
const maxBehind = 1000

// follower gets the calls that it asked for as they are written.
type follower struct {
	filter *filter
	calls  chan faas.StoredCall
	missed int // since it had no room for one; guarded by the history's mu
}

// Follow implements faas.History.
func (h *History) Follow(query faas.CallQuery, done <-chan struct{}) iter.Seq2[faas.StoredCall, error] {
	f := &follower{filter: newFilter(query), calls: make(chan faas.StoredCall, maxBehind)}
	h.mu.Lock()
	h.followers[f] = struct{}{}
	h.mu.Unlock()
	return func(yield func(faas.StoredCall, error) bool) {
		defer func() {
			h.mu.Lock()
			delete(h.followers, f)
			h.mu.Unlock()
		}()
		for {
			select {
			case c := <-f.calls:
				if !yield(c, nil) {
					return
				}
			case <-done:
				return
			case <-h.closing:
				return
			}
		}
	}
}

// publish gives a call to whoever follows it. It waits for nobody.
func (h *History) publish(c faas.StoredCall, r journal.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for f := range h.followers {
		if !f.filter.mayMatch(r) || !f.filter.matches(&c.Call) {
			continue
		}
		c.Omitted = f.missed
		select {
		case f.calls <- c:
			f.missed = 0
		default:
			f.missed++
		}
	}
}

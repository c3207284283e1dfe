package history

import (
	"iter"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/journal"
)

// maxBehind is how many calls a follower may be behind. Others are only counted for it.
const maxBehind = 1000

// maxFollowers is how many there may be at a time: each call is shown to all of them, and
// each has room for maxBehind.
const maxFollowers = 100

// follower gets the calls that it asked for as they are written.
type follower struct {
	filter *filter
	calls  chan faas.StoredCall
	missed int // since it had no room for one; guarded by the history's following
}

// Follow implements faas.History.
func (h *History) Follow(query faas.CallQuery, done <-chan struct{}) (iter.Seq[faas.StoredCall], error) {
	if h.journal == nil {
		return nil, errUnreadable(nil)
	}
	f := &follower{filter: newFilter(query), calls: make(chan faas.StoredCall, maxBehind)}
	h.following.Lock()
	full := len(h.followers) >= maxFollowers
	if !full {
		h.followers[f] = struct{}{}
	}
	h.following.Unlock()
	if full {
		return nil, faas.Errorf(faas.CodeNoCapacity, "%d clients follow calls already", maxFollowers).After(time.Second)
	}
	return func(yield func(faas.StoredCall) bool) {
		defer func() {
			h.following.Lock()
			delete(h.followers, f)
			h.following.Unlock()
		}()
		for {
			select {
			case c := <-f.calls:
				if !yield(c) {
					return
				}
			case <-done:
				return
			case <-h.closing:
				return
			}
		}
	}, nil
}

// publish gives a call to whoever follows it. It waits for nobody.
func (h *History) publish(c faas.StoredCall, r journal.Record) {
	h.following.Lock()
	defer h.following.Unlock()
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

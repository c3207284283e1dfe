package history

import (
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/journal"
)

// maxBehind is how many calls a follower may be behind. Others are only counted for it.
const maxBehind = 1000

// maxBehindBytes is how many bytes the calls may have with which a follower begins.
const maxBehindBytes = 1 << 20

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
	leave := func() {
		h.following.Lock()
		delete(h.followers, f)
		h.following.Unlock()
	}
	var b backlog
	if query.After > 0 { // f is told already of what comes while this is read
		var err error
		if b, err = h.since(f.filter, done); err != nil {
			leave()
			return nil, err
		}
	}
	return func(yield func(faas.StoredCall) bool) {
		defer leave()
		for _, c := range b.calls {
			c.Omitted, b.missed = b.missed, 0
			if !yield(c) {
				return
			}
		}
		b.calls = nil
		for {
			select {
			case c := <-f.calls:
				if c.Number <= b.last {
					continue
				}
				c.Omitted += b.missed
				b.missed = 0
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

// backlog is what a follower begins with: the newest calls that match, the oldest of them
// first, how many came before them, and the number up to which the history was read.
type backlog struct {
	calls  []faas.StoredCall
	missed int
	last   uint64
}

// since returns what came after the number that a filter has. If some of that may be gone,
// or the number is not of this history, it counts one call as missed.
func (h *History) since(f *filter, done <-chan struct{}) (b backlog, err error) {
	select {
	case h.searches <- struct{}{}:
		defer func() { <-h.searches }()
	case <-done:
		return b, nil
	}
	first, last, err := journal.Numbers(h.folder)
	if err != nil {
		return b, errUnreadable(err)
	}
	if f.After+1 < first || f.After > last {
		b.missed = 1
	}
	size := 0
	for r, err := range journal.Records(h.folder, f.After) {
		select {
		case <-done:
			return b, nil
		default:
		}
		if err != nil {
			h.failed(fmt.Errorf("the history: %w", err))
			if _, damaged := errors.AsType[*journal.Damage](err); damaged {
				continue
			}
			return b, errUnreadable(err)
		}
		b.last = r.Number
		if !f.mayMatch(r) {
			continue
		}
		c, match, err := f.read(r)
		if err != nil || !match || c.Omitted > 0 { // a follower is not told of those that were left out
			continue
		}
		b.calls = append(b.calls, c)
		for size += sizeOf(&c.Call); len(b.calls) > maxBehind || size > maxBehindBytes; b.missed++ {
			size -= sizeOf(&b.calls[0].Call)
			b.calls = b.calls[1:]
		}
	}
	return b, nil
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

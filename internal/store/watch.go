package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Change reports that a commit put or deleted a key.
type Change struct {
	Key      string
	Revision int64 // of the commit
	Deleted  bool  // otherwise it was put
}

// ErrCompacted is returned by Watch if changes since its revision have been forgotten.
// The caller should list everything anew and watch from there.
var ErrCompacted = errors.New("the changes since then are forgotten")

// minRecent is how many changes are kept at least. A watcher that falls further behind
// may have to list anew.
const minRecent = 1000

// feed hands changes from commits to watchers. It keeps only keys, to stay small.
type feed struct {
	mu     sync.Mutex
	last   int64    // the last revision
	first  int64    // recent has all changes after it
	recent []Change // in order of revision
	more   chan struct{}
	closed bool
}

// newFeed returns a feed of the changes after a revision.
func newFeed(last int64) *feed {
	return &feed{last: last, first: last, more: make(chan struct{})}
}

// publish adds the changes of a commit, whose revision follows directly on the last
// one.
func (f *feed) publish(revision int64, changes []Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = revision
	f.recent = append(f.recent, changes...)
	if over := len(f.recent) - minRecent; over > minRecent {
		// Forget whole commits only. A commit may have more changes than minRecent.
		f.first = f.recent[over].Revision - 1
		for over > 0 && f.recent[over-1].Revision > f.first {
			over--
		}
		f.recent = slices.Clone(f.recent[over:])
	}
	f.wake()
}

// wake makes all waiting watchers look again. The caller holds mu.
func (f *feed) wake() {
	close(f.more)
	f.more = make(chan struct{})
}

// close ends the feed.
func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.closed = true
		f.wake()
	}
}

// watch implements KV's Watch.
func (f *feed) watch(ctx context.Context, prefix string, after int64) ([]Change, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, after, err
	}
	for {
		changes, last, more, err := f.since(prefix, after)
		if err != nil || after == 0 || len(changes) > 0 {
			return changes, last, err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, after, ctx.Err()
		}
	}
}

// since returns the changes after a revision. If there are none, it returns a channel
// that is closed when there may be some.
func (f *feed) since(prefix string, after int64) (changes []Change, last int64, more <-chan struct{}, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, after, nil, ErrClosed
	}
	if after == 0 {
		return nil, f.last, nil, nil
	}
	if after < f.first {
		return nil, after, nil, fmt.Errorf("%w: they begin after revision %d, and those after %d are asked for", ErrCompacted, f.first, after)
	}
	for _, c := range f.recent {
		if c.Revision > after && strings.HasPrefix(c.Key, prefix) {
			changes = append(changes, c)
		}
	}
	return changes, f.last, f.more, nil
}

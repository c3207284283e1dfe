package dispatch

import (
	"container/list"
	"context"
	"fmt"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// line is where calls wait for a slot, first come first served. Its flock's
// mu guards it.
type line struct {
	waiters list.List // of *waiter
}

// waiter is one call in the line.
type waiter struct {
	flock *flock
	since time.Time
	given chan grant // gets exactly one grant, unless the waiter leaves
	place *list.Element
}

// grant is what a wait comes to: a slot in a bird, or an error.
type grant struct {
	bird *bird
	err  error
}

func (l *line) len() int { return l.waiters.Len() }

// since is when the first in line joined it.
func (l *line) since() (since time.Time, waiting bool) {
	first := l.waiters.Front()
	if first == nil {
		return time.Time{}, false
	}
	return first.Value.(*waiter).since, true
}

func (l *line) join(now time.Time) *waiter {
	w := &waiter{since: now, given: make(chan grant, 1)}
	w.place = l.waiters.PushBack(w)
	return w
}

// leave takes a waiter out, and reports false when it was given something
// already.
func (l *line) leave(w *waiter) bool {
	if w.place == nil {
		return false
	}
	l.waiters.Remove(w.place)
	w.place = nil
	return true
}

// give gives the first waiter a slot, and reports false when nobody waits.
func (l *line) give(b *bird) bool {
	first := l.waiters.Front()
	if first == nil {
		return false
	}
	w := first.Value.(*waiter)
	l.leave(w)
	w.given <- grant{bird: b}
	return true
}

// fail sends everybody away.
func (l *line) fail(err error) {
	for first := l.waiters.Front(); first != nil; first = l.waiters.Front() {
		w := first.Value.(*waiter)
		l.leave(w)
		w.given <- grant{err: err}
	}
}

// wait returns what a waiter was given, or why it does not wait any longer.
func (w *waiter) wait(ctx context.Context) (grant, error) {
	s := w.flock.version.Settings
	timer := time.NewTimer(time.Duration(min(s.QueueTimeout, s.StartTimeout)))
	defer timer.Stop()
	for {
		select {
		case g := <-w.given:
			return g, nil
		case <-ctx.Done():
			return grant{}, ctx.Err()
		case <-timer.C:
			left, err := w.patience()
			if left <= 0 {
				return grant{}, err
			}
			timer.Reset(left)
		}
	}
}

// patience is how much longer a call may wait, and the error for when that is
// over. With no sandbox to wait for a slot in, it is one's start that may take
// so long; queue_timeout counts from when there is one.
func (w *waiter) patience() (left time.Duration, err error) {
	f := w.flock
	f.mu.Lock()
	defer f.mu.Unlock()
	since := w.since
	if since.Before(f.turned) {
		since = f.turned
	}
	s := f.version.Settings
	if f.unserved() {
		limit := time.Duration(s.StartTimeout)
		err = faas.Errorf(faas.CodeNoCapacity, "no sandbox was started within the function's start_timeout of %v", limit).After(time.Second)
		return limit - time.Since(since), err
	}
	limit, why := time.Duration(s.QueueTimeout), "no sandbox came free"
	if !f.quota.admits() {
		why = fmt.Sprintf("no slot came free (the function's max_concurrency is %d)", f.quota.limit)
	}
	err = faas.Errorf(faas.CodeNoCapacity, "%s within the function's queue_timeout of %v", why, limit).After(time.Second)
	return limit - time.Since(since), err
}

// accept takes what a waiter was given, and says how long it took: time since
// the start of the sandbox that it got counts as start, time before as queue.
func (w *waiter) accept(g grant, t *faas.Timing) (slot, error) {
	waited := time.Since(w.since)
	if g.err != nil {
		t.Queue = waited
		return slot{}, g.err
	}
	if g.bird.ready.After(w.since) {
		t.Start = min(waited, time.Since(g.bird.begun))
	}
	t.Queue = waited - t.Start
	return slot{w.flock, g.bird}, nil
}

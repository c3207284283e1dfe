package dispatch

import (
	"container/list"
	"context"
	"fmt"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// line is where calls wait for a slot, first come first served. Its flock's mu guards
// it.
type line struct {
	waiters list.List // of *waiter
}

// waiter is a call in the line.
type waiter struct {
	flock *flock
	since time.Time
	given chan grant // gets one grant, unless the waiter leaves
	place *list.Element
}

// grant is the outcome of a wait: a slot in a bird, or an error.
type grant struct {
	bird *bird
	err  error
}

func (l *line) len() int { return l.waiters.Len() }

// since returns when the first in line joined it.
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

// leave takes a waiter out. It reports false if the waiter has been given something
// already.
func (l *line) leave(w *waiter) bool {
	if w.place == nil {
		return false
	}
	l.waiters.Remove(w.place)
	w.place = nil
	return true
}

// give gives the first waiter a slot. It reports false if nobody waits.
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

// fail takes all waiters out with an error.
func (l *line) fail(err error) {
	for first := l.waiters.Front(); first != nil; first = l.waiters.Front() {
		w := first.Value.(*waiter)
		l.leave(w)
		w.given <- grant{err: err}
	}
}

// wait returns what the waiter was given, or why it waits no longer.
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

// patience returns how much longer a call may wait, and the error for when that is
// over. While there is no sandbox, start_timeout counts; from when there is one,
// queue_timeout.
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

// accept takes what a waiter was given, and records in t how long it waited. The time
// since its sandbox's start began counts as start, the time before that as queue. The
// time since the load began is the load, a part of start.
func (w *waiter) accept(g grant, t *faas.Timing) (slot, error) {
	waited := time.Since(w.since)
	if g.err != nil {
		t.Queue = waited
		return slot{}, g.err
	}
	if g.bird.ready.After(w.since) {
		t.Start = min(waited, time.Since(g.bird.begun))
		if !g.bird.loading.IsZero() {
			t.Load = min(t.Start, time.Since(g.bird.loading))
		}
	}
	t.Queue = waited - t.Start
	return slot{flock: w.flock, bird: g.bird}, nil
}

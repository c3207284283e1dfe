package dispatch

import (
	"container/list"
	"time"
)

// line is where calls wait for a slot, first come first served. Its flock's
// mu guards it.
type line struct {
	waiters list.List // of *waiter
}

// waiter is one call in the line.
type waiter struct {
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

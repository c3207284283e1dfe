// Package buffer bounds the memory that strangers can have the dispatcher hold:
// one budget of bytes for all bodies, answers and connections. What is taken
// from it is taken as bytes come, and given back when they are sent or dropped.
package buffer

import (
	"errors"
	"sync"
	"sync/atomic"
)

// ErrFull says that the budget has no room.
var ErrFull = errors.New("the budget for bodies and answers has no room")

// Free is how many bytes of a body or an answer cost nothing more: they are part
// of what Connection takes.
const Free = 8 << 10

// Connection is what a client's connection takes for as long as it is open, in
// bytes: its buffer, its goroutine, and bodies and answers up to Free.
const Connection = 20 << 10

// Use is what bytes are for. The uses have shares of one budget, so that none of
// them keeps out those that come after it.
type Use int

const (
	// Small is for the first bytes of anything, and may take all there is: a
	// call with little in it goes through while large ones wait.
	Small Use = iota

	// Request is for large bodies, which are refused when there is no room.
	Request

	// Answer is for large answers, which are sent on as they come when there
	// is no room, so that no call that has its body ever waits for it.
	Answer
)

// Budget is how many bytes there may be. A nil *Budget has no bound. It may be
// used concurrently.
type Budget struct {
	total  int64
	used   atomic.Int64
	mapped atomic.Int64 // of what is used, not the collector's

	telling sync.Mutex // while told is called
	told    func(mapped int64)
}

// tellStep is how much mapped memory must come or go for Tell's function to hear
// of it, in bytes.
const tellStep = 4 << 20

// Tell has a function called with how many bytes are mapped memory and not the
// collector's, about every few megabytes that these change by. It must be called
// before anything is taken.
func (b *Budget) Tell(told func(mapped int64)) { b.told = told }

// remap counts mapped memory that comes or goes.
func (b *Budget) remap(n int64) {
	if b == nil {
		return
	}
	if now := b.mapped.Add(n); b.told != nil && now/tellStep != (now-n)/tellStep {
		b.telling.Lock()
		defer b.telling.Unlock()
		b.told(b.mapped.Load()) // what is told last is what there is
	}
}

// New returns a budget of so many bytes.
func New(total int64) *Budget { return &Budget{total: total} }

// Total is how many bytes there may be, or 0 for no bound.
func (b *Budget) Total() int64 {
	if b == nil {
		return 0
	}
	return b.total
}

// Used is how many bytes there are.
func (b *Budget) Used() int64 {
	if b == nil {
		return 0
	}
	return b.used.Load()
}

// share is up to where all uses together may fill the budget for this one to get
// more.
func (b *Budget) share(use Use) int64 {
	switch use {
	case Request:
		return b.total / 4 * 3
	case Answer:
		return b.total / 2
	}
	return b.total
}

// Take takes bytes, or none and reports false when there is no room.
func (b *Budget) Take(n int64, use Use) bool {
	if b == nil {
		return true
	}
	for most := b.share(use); ; {
		used := b.used.Load()
		if used+n > most {
			return false
		}
		if b.used.CompareAndSwap(used, used+n) { // so that what fails is in nobody's way meanwhile
			return true
		}
	}
}

// Force takes bytes of which there is no question, and may leave the budget more
// than full.
func (b *Budget) Force(n int64) {
	if b != nil {
		b.used.Add(n)
	}
}

// Give gives back what was taken.
func (b *Budget) Give(n int64) {
	if b != nil {
		b.used.Add(-n)
	}
}

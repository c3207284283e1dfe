// Package buffer bounds the memory that strangers can make the dispatcher hold. One
// budget of bytes covers all bodies, answers and connections. Bytes are taken from it
// as they come, and given back when they have been sent or dropped.
package buffer

import (
	"errors"
	"sync"
	"sync/atomic"
)

// ErrFull says that the budget has no room.
var ErrFull = errors.New("the budget for bodies and answers has no room")

// Free is how many bytes of a body or an answer take nothing from the budget, because
// Connection pays for them.
const Free = 8 << 10

// Connection is how many bytes an open client connection takes: for its buffer, its
// goroutine, and bodies and answers up to Free.
const Connection = 20 << 10

// Use says what bytes are for. Each use may fill the budget only to its share, so that
// none of them keeps the others out.
type Use int

const (
	// Small is for the first bytes of anything. It may fill the whole budget, so small
	// calls go through while large ones wait.
	Small Use = iota

	// Request is for large bodies. They are refused if there is no room.
	Request

	// Answer is for large answers. If there is no room, they are sent on as they come,
	// so that a call whose body was read never waits for room.
	Answer
)

// Budget is a number of bytes that may be in use. A nil *Budget has no bound. Its
// methods may be called concurrently.
type Budget struct {
	total  int64
	used   atomic.Int64
	mapped atomic.Int64 // of the used bytes, those in mapped memory

	telling sync.Mutex // held while told is called
	told    func(mapped int64)
}

// tellStep is by how many bytes mapped memory must change before the function given to
// Tell is called.
const tellStep = 4 << 20

// Tell sets a function that is called with the number of bytes in mapped memory,
// whenever that has changed by a few megabytes. Tell must be called before anything is
// taken.
func (b *Budget) Tell(told func(mapped int64)) { b.told = told }

// remap counts mapped memory that comes or goes.
func (b *Budget) remap(n int64) {
	if b == nil {
		return
	}
	if now := b.mapped.Add(n); b.told != nil && now/tellStep != (now-n)/tellStep {
		b.telling.Lock()
		defer b.telling.Unlock()
		b.told(b.mapped.Load()) // load it under the lock, so that the last call has the latest value
	}
}

// New returns a budget of that many bytes.
func New(total int64) *Budget { return &Budget{total: total} }

// Total returns how many bytes there are, or 0 if there is no bound.
func (b *Budget) Total() int64 {
	if b == nil {
		return 0
	}
	return b.total
}

// Used returns how many bytes are in use.
func (b *Budget) Used() int64 {
	if b == nil {
		return 0
	}
	return b.used.Load()
}

// share returns how full the budget may be for this use to get more.
func (b *Budget) share(use Use) int64 {
	switch use {
	case Request:
		return b.total / 4 * 3
	case Answer:
		return b.total / 2
	}
	return b.total
}

// Take takes bytes and reports true. If there is no room, it takes none and reports
// false.
func (b *Budget) Take(n int64, use Use) bool {
	if b == nil {
		return true
	}
	for most := b.share(use); ; {
		used := b.used.Load()
		if used+n > most {
			return false
		}
		if b.used.CompareAndSwap(used, used+n) { // not Add: a failed attempt must not get in others' way
			return true
		}
	}
}

// Force takes bytes without asking, and may overfill the budget.
func (b *Budget) Force(n int64) {
	if b != nil {
		b.used.Add(n)
	}
}

// Give gives bytes back.
func (b *Budget) Give(n int64) {
	if b != nil {
		b.used.Add(-n)
	}
}

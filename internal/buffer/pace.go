package buffer

import "time"

// Pace keeps a stream of single bytes from costing as much as one of large pieces. When
// a small piece follows another within coalesce, Pace waits that long for more to come,
// so that they are passed on together. A piece that comes alone is never delayed, and
// no piece by more than that.
type Pace struct{ last time.Time }

const (
	coalesce   = time.Millisecond
	smallPiece = 1 << 10
)

// Passed is called when a piece of n bytes has been passed on. It returns when the next
// piece should be read.
func (p *Pace) Passed(n int) {
	now := time.Now()
	if n < smallPiece && now.Sub(p.last) < coalesce {
		time.Sleep(coalesce)
		now = now.Add(coalesce)
	}
	p.last = now
}

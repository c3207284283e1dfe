package buffer

import "time"

// Pace keeps what comes in single bytes from costing as much as what comes in
// large pieces: after a small one that followed the last within coalesce, it
// waits that long for others to come behind it, to be passed on together. So a
// piece that comes alone is never delayed, and no other by more than that.
type Pace struct{ last time.Time }

const (
	coalesce   = time.Millisecond
	smallPiece = 1 << 10
)

// Passed is called when a piece of n bytes has been passed on, and returns when
// the next one is to be read.
func (p *Pace) Passed(n int) {
	now := time.Now()
	if n < smallPiece && now.Sub(p.last) < coalesce {
		time.Sleep(coalesce)
		now = now.Add(coalesce)
	}
	p.last = now
}

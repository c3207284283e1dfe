package dispatch

import (
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// spend counts a call that the bird was given. After max_calls of them the bird is spent:
// it drains. If the scaler wants a successor, it starts one at once, before the last call
// ends. The caller holds the flock's mu.
func (b *bird) spend(now time.Time) {
	b.calls++
	if most := b.flock.version.Settings.MaxCalls; most == 0 || b.calls < most {
		return
	}
	b.spent, b.flock.succeeding = true, true
	b.drain()
	b.flock.rescale(now)
}

// slots returns how many calls a sandbox takes at a time: never more than it takes in
// all.
func slots(s faas.Settings) int {
	if s.MaxCalls == 0 {
		return s.Concurrency
	}
	return min(s.Concurrency, s.MaxCalls)
}

package dispatch

import (
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// retiredIdle is how long an idle sandbox of a version is kept that live no
// longer points to.
const retiredIdle = 10 * time.Second

// load is what the scaler knows of a flock.
type load struct {
	InFlight int // calls in sandboxes that are not draining
	Waiting  int // calls in the line
	Birds    int // sandboxes that are not draining
	Starting int

	// Idle says since when each idle sandbox is idle, the longest first.
	Idle []time.Time

	// Retired: live points to another version.
	Retired bool
}

// decision is what the scaler wants done.
type decision struct {
	Start int // so many more sandboxes
	Stop  int // so many of those that are idle, the longest idle first
}

// decide is the scaler: a pure function. It wants a slot for every call that
// is there, within min_scale and max_scale, and keeps idle sandboxes for
// idle_timeout.
func decide(s faas.Settings, l load, now time.Time) decision {
	low, idleTimeout := s.MinScale, time.Duration(s.IdleTimeout)
	if l.Retired {
		low, idleTimeout = 0, min(idleTimeout, retiredIdle)
	}
	want := (l.InFlight + l.Waiting + s.Concurrency - 1) / s.Concurrency
	want = min(max(want, low), s.MaxScale)
	if have := l.Birds + l.Starting; have < want {
		return decision{Start: want - have}
	}
	stop := 0
	for _, since := range l.Idle {
		if now.Sub(since) >= idleTimeout && l.Birds-stop > want {
			stop++
		}
	}
	return decision{Stop: stop}
}

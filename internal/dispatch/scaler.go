package dispatch

import (
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// retiredIdle is how long an idle sandbox of a version is kept that live no
// longer points to.
const retiredIdle = 10 * time.Second

// growPatience is how long calls may stand in line before that is worth a
// further sandbox. A start costs several times as much, so a line that clears
// sooner by itself is better left alone.
const growPatience = 100 * time.Millisecond

// load is what the scaler knows of a flock.
type load struct {
	InFlight int // calls in sandboxes that are not draining
	Waiting  int // calls in the line
	Birds    int // sandboxes that are not draining
	Starting int

	// Waited is how long the first call in line has been waiting with the
	// sandboxes that there are.
	Waited time.Duration

	// Full: more wait than the function's queue holds, and will be refused
	// unless a sandbox is started for them.
	Full bool

	// Run is how long a call takes, averaged over the last ones; 0 when none
	// has finished yet.
	Run time.Duration

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

// decide is the scaler: a pure function. It wants as many sandboxes, within
// min_scale and max_scale, as clear the line within growPatience, and keeps idle
// ones for idle_timeout.
func decide(s faas.Settings, l load, now time.Time) decision {
	low, idleTimeout := s.MinScale, time.Duration(s.IdleTimeout)
	if l.Retired {
		low, idleTimeout = 0, min(idleTimeout, retiredIdle)
	}
	want := min(max(wanted(s, l), low), s.MaxScale)
	if have := l.Birds + l.Starting; have < want {
		return decision{Start: want - have}
	}
	low = max(low, ceilDiv(l.InFlight+l.Waiting, s.Concurrency))
	stop := 0
	for _, since := range l.Idle {
		if now.Sub(since) >= idleTimeout && l.Birds-stop > low {
			stop++
		}
	}
	return decision{Stop: stop}
}

// wanted is how many sandboxes the calls that are there want.
func wanted(s faas.Settings, l load) int {
	switch clears := time.Duration(l.Waiting) * l.Run / time.Duration(max(1, l.Birds*s.Concurrency)); {
	case l.Waiting == 0:
		return 0
	case l.Full:
		return ceilDiv(l.InFlight+l.Waiting, s.Concurrency)
	case l.Birds == 0:
		return 1 // which will show how long a call takes
	case clears <= growPatience && l.Waited < growPatience:
		return l.Birds
	}
	// A slot for each call is the most that can help. Less does when a slot
	// gets through several calls in growPatience.
	each := ceilDiv(l.InFlight+l.Waiting, s.Concurrency)
	if l.Run == 0 {
		return each
	}
	enough := ceilDiv(int(time.Duration(l.InFlight+l.Waiting)*l.Run/growPatience), s.Concurrency)
	return min(each, max(l.Birds+1, enough))
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

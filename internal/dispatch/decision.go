package dispatch

import (
	"math"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/telemetry"
)

// retiredIdle is how long an idle sandbox is kept that nobody is expected to
// call: of a version that live no longer points to, or a function that is
// switched off.
const retiredIdle = 10 * time.Second

// growPatience is how long calls may stand in line before that is worth a
// further sandbox. A start costs several times as much, so a line that clears
// sooner by itself is better left alone.
const growPatience = 100 * time.Millisecond

// shortWindow is what part of stable_window demand is averaged over, to ask
// for sandboxes before calls have to wait.
const shortWindow = 10

// load is what the scaler knows of a flock.
type load struct {
	InFlight int // calls in sandboxes that are not draining
	Waiting  int // calls in the line
	Birds    int // sandboxes that take calls
	Paused   int // sandboxes that would once resumed
	Starting int // or being resumed
	Spent    int // sandboxes that finish their last calls

	// Demand is InFlight and Waiting averaged over the short window, and Peak
	// the most sandboxes that it wanted in the stable one (or idle_timeout, if
	// that is shorter).
	Demand float64
	Peak   int

	// Waited is how long the first call in line has been waiting with the
	// sandboxes that there are.
	Waited time.Duration

	// Full: more wait than the function's queue holds, and will be refused
	// unless a sandbox is started for them.
	Full bool

	// Run is how long a call takes, averaged over the last ones; 0 when none
	// has finished yet.
	Run time.Duration

	// Idle says since when each idle sandbox is idle: first those that are
	// paused, then the others, and of either the longest first.
	Idle []time.Time

	// Retired: live points to another version.
	Retired bool
}

// decision is what the scaler wants done.
type decision struct {
	Start  int // so many more sandboxes
	Resume int // so many of those that are paused
	Stop   int // so many of load's Idle, from the first on
	Pause  int // so many of those after them that are not paused
}

// count has metrics know the decision.
func (d decision) count(metrics *telemetry.Metrics) {
	for _, done := range [...]struct {
		what      string
		sandboxes int
	}{{"start", d.Start + d.Resume}, {"stop", d.Stop}, {"pause", d.Pause}} {
		if done.sandboxes > 0 {
			metrics.Decisions.WithLabelValues(done.what).Add(float64(done.sandboxes))
		}
	}
}

// decide is the scaler: a pure function. It wants, within min_scale and
// max_scale, as many sandboxes as clear the line within growPatience and as
// leave demand at target_utilization: at once when that is more than there are.
// One goes when it was idle, and demand wanted less, for the stable window; the
// last one, or any, after idle_timeout.
func decide(s faas.Settings, l load, now time.Time) decision {
	low, high := s.MinScale, min(s.MaxScale-l.Spent, ceilDiv(s.MaxConcurrency, s.Concurrency))
	idleTimeout, peak := time.Duration(s.IdleTimeout), l.Peak
	if l.Retired || s.MaxConcurrency == 0 {
		low, idleTimeout, peak = 0, min(idleTimeout, retiredIdle), 0
	}
	low = min(low, high)
	want := min(wanted(s, l), high)
	missing := max(0, want-l.Birds-l.Starting)
	resume := min(missing, l.Paused)
	start := max(missing-resume, low-l.Birds-l.Starting-l.Paused)
	if resume > 0 || start > 0 {
		return decision{Start: start, Resume: resume}
	}

	var d decision
	needed := max(low, want, ceilDiv(l.InFlight+l.Waiting, s.Concurrency))
	// Calls go where others are already, so that one may be idle for long and
	// yet be the reserve that demand wants: until all have been idle.
	if n := len(l.Idle); l.InFlight+l.Waiting > 0 || n > 0 && now.Sub(l.Idle[n-1]) < idleTimeout {
		needed = max(needed, peak)
	}
	for _, since := range l.Idle {
		idle, left := now.Sub(since), l.Birds+l.Paused-d.Stop
		outlived := idle >= idleTimeout && left > needed
		surplus := idle >= time.Duration(s.StableWindow) && left > max(needed, 1)
		if !outlived && !surplus {
			break
		}
		d.Stop++
	}
	if s.PauseAfter == 0 {
		return d
	}
	from := max(d.Stop, l.Paused)
	for _, since := range l.Idle[from:] {
		if now.Sub(since) < time.Duration(s.PauseAfter) || l.Birds-(from-l.Paused)-d.Pause <= want {
			break
		}
		d.Pause++
	}
	return d
}

// wanted is how many sandboxes the calls that are there want.
func wanted(s faas.Settings, l load) int {
	if l.InFlight+l.Waiting+l.Spent == 0 {
		return 0 // demand that has just ended is none
	}
	want := max(forLine(s, l), forDemand(s, l.Demand))
	if s.MaxCalls > 0 { // so many it takes, however fast they are
		want = max(want, ceilDiv(l.Waiting, s.MaxCalls))
	}
	return want
}

// forDemand is how many sandboxes it takes to have so many calls at a time and
// use no more than target_utilization of them.
func forDemand(s faas.Settings, calls float64) int {
	each := max(1, float64(s.Concurrency)*s.TargetUtilization)
	return int(math.Ceil(calls/each - 0.01)) // an average hardly ever is a whole number
}

// forLine is how many sandboxes the line wants.
func forLine(s faas.Settings, l load) int {
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

package dispatch

import (
	"math"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/telemetry"
)

// decision is what the scaler wants done about the number of a flock's sandboxes.
// decide makes it of a load; scaling.go carries it out.
type decision struct {
	Start  int // how many sandboxes to start
	Resume int // how many paused ones to resume
	Stop   int // how many of load.Idle to remove, from the first on
	Pause  int // how many of the following ones that are not paused to pause

	Aim aim // what all this is for
}

// aim is how many sandboxes the scaler wants a flock to have, and why. The flock may
// have more, because sandboxes that nobody wants go only after a while.
type aim struct {
	Sandboxes int
	Why       reason
}

// reason says what an aim comes from. Metrics show it.
type reason string

// The reasons.
const (
	whyIdle           reason = "idle"            // there is no call
	whyCalls          reason = "calls"           // calls that run, and their average
	whyQueue          reason = "queue"           // calls that wait
	whyMaxCalls       reason = "max_calls"       // calls that wait, each sandbox taking only so many
	whyRecent         reason = "recent_calls"    // calls that were there within stable_window
	whyMinScale       reason = "min_scale"       // the setting
	whyMaxScale       reason = "max_scale"       // calls want more than the setting allows
	whyMaxConcurrency reason = "max_concurrency" // calls want more than the setting allows
	whyOff            reason = "off"             // max_concurrency is 0, or the function is gone

	// Reasons why there are fewer than the scaler wants.
	whyFailing reason = "failing" // starts have failed, and it waits before the next one
	whyNoRoom  reason = "no_room" // the machine is full
)

// atLeast raises an aim.
func (a *aim) atLeast(sandboxes int, why reason) {
	if sandboxes > a.Sandboxes {
		*a = aim{sandboxes, why}
	}
}

// load is what the scaler knows about a flock.
type load struct {
	InFlight int // calls in sandboxes that are not draining
	Waiting  int // calls in the line
	Birds    int // sandboxes that take calls
	Paused   int // sandboxes that can be resumed
	Starting int // sandboxes that are being started or resumed
	Spent    int // sandboxes that finish their last calls

	// Demand is InFlight plus Waiting, averaged over the short window. Peak is the
	// largest number of sandboxes that Demand wanted in the stable window, or in
	// idle_timeout if that is shorter.
	Demand float64
	Peak   int

	// Waited is how long the first call in line has waited with the sandboxes that
	// there are.
	Waited time.Duration

	// Full says that more calls wait than the queue holds. They are refused unless a
	// sandbox is started for them.
	Full bool

	// Run is the average time that recent calls took, or 0 if none has finished.
	Run time.Duration

	// Idle has for each idle sandbox since when it is idle: first the paused ones, then
	// the others, each group in order, the longest idle first.
	Idle []time.Time

	// Retired says that live points to another version.
	Retired bool
}

// retiredIdle is how long an idle sandbox is kept when no calls are expected: because
// live points to another version, or the function is switched off.
const retiredIdle = 10 * time.Second

// growPatience is how long calls may wait before another sandbox is worth it. A start
// takes several times as long, so a line that clears sooner is better left alone.
const growPatience = 100 * time.Millisecond

// shortWindow is the fraction of stable_window over which demand is averaged, so that
// sandboxes are started before calls have to wait.
const shortWindow = 10

// count adds the decision to the metrics.
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

// decide is the scaler, a pure function. Within min_scale and max_scale it wants enough
// sandboxes to clear the line within growPatience, and to keep demand at
// target_utilization. If there are fewer, it starts or resumes the missing ones at
// once. It removes a sandbox that was idle for the stable window while demand wanted
// fewer. The last one, or any, goes after idle_timeout.
func decide(s faas.Settings, l load, now time.Time) decision {
	low, high := s.MinScale, min(s.MaxScale-l.Spent, ceilDiv(s.MaxConcurrency, s.Concurrency))
	idleTimeout, peak := time.Duration(s.IdleTimeout), l.Peak
	if l.Retired || s.MaxConcurrency == 0 {
		low, idleTimeout, peak = 0, min(idleTimeout, retiredIdle), 0
	}
	low = min(low, high)
	calls := wanted(s, l)
	to, want := calls.within(s, l, low, high), min(calls.Sandboxes, high)
	missing := max(0, want-l.Birds-l.Starting)
	resume := min(missing, l.Paused)
	start := max(missing-resume, low-l.Birds-l.Starting-l.Paused)
	if resume > 0 || start > 0 {
		return decision{Start: start, Resume: resume, Aim: to}
	}

	d := decision{Aim: to}
	needed := max(low, want, ceilDiv(l.InFlight+l.Waiting, s.Concurrency))
	// Calls go to busy sandboxes first, so one may be idle for long and yet be the
	// reserve that demand wants. Keep the peak until all have been idle.
	if n := len(l.Idle); l.InFlight+l.Waiting > 0 || n > 0 && now.Sub(l.Idle[n-1]) < idleTimeout {
		needed = max(needed, peak)
		d.Aim.atLeast(peak, whyRecent)
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

// within returns what the limits make of what the calls want. Sandboxes that have calls
// are wanted in any case.
func (a aim) within(s faas.Settings, l load, low, high int) aim {
	to := a
	if to.Sandboxes > high {
		to = aim{max(0, high), whyMaxScale}
		if ceilDiv(s.MaxConcurrency, s.Concurrency) < s.MaxScale-l.Spent {
			to.Why = whyMaxConcurrency
		}
	}
	to.atLeast(ceilDiv(l.InFlight, s.Concurrency), whyCalls)
	to.atLeast(low, whyMinScale)
	if s.MaxConcurrency == 0 {
		to.Why = whyOff
	}
	return to
}

// wanted returns how many sandboxes the present calls want.
func wanted(s faas.Settings, l load) aim {
	want := aim{0, whyIdle}
	if l.InFlight+l.Waiting+l.Spent == 0 {
		return want // demand has just ended
	}
	want.atLeast(forDemand(s, l.Demand), whyCalls)
	want.atLeast(forLine(s, l), whyQueue)
	if s.MaxCalls > 0 { // a sandbox takes only so many, however fast they are
		want.atLeast(ceilDiv(l.Waiting, s.MaxCalls), whyMaxCalls)
	}
	return want
}

// forDemand returns how many sandboxes it takes for so many calls at a time to use no
// more than target_utilization of them.
func forDemand(s faas.Settings, calls float64) int {
	each := max(1, float64(s.Concurrency)*s.TargetUtilization)
	return int(math.Ceil(calls/each - 0.01)) // averages are rarely whole numbers
}

// forLine returns how many sandboxes the line wants.
func forLine(s faas.Settings, l load) int {
	switch clears := time.Duration(l.Waiting) * l.Run / time.Duration(max(1, l.Birds*s.Concurrency)); {
	case l.Waiting == 0:
		return 0
	case l.Full:
		return ceilDiv(l.InFlight+l.Waiting, s.Concurrency)
	case l.Birds == 0:
		return 1 // it will show how long a call takes
	case clears <= growPatience && l.Waited < growPatience:
		return l.Birds
	}
	// More than a slot for each call cannot help. Fewer will do if a slot gets through
	// several calls in growPatience.
	each := ceilDiv(l.InFlight+l.Waiting, s.Concurrency)
	if l.Run == 0 {
		return each
	}
	enough := ceilDiv(int(time.Duration(l.InFlight+l.Waiting)*l.Run/growPatience), s.Concurrency)
	return min(each, max(l.Birds+1, enough))
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

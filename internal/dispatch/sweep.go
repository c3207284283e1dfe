package dispatch

import (
	"context"
	"time"
)

// A stray is a sandbox of the aviary that the dispatcher does not know. There may be
// some, because engines finish what they were asked for. A sandbox that a killed
// dispatcher wanted may come up after the next dispatcher has looked. One that could
// not be removed while the engine was away is still there when it is back. The sweep
// looks for strays soon after the start, and then less and less often.
const (
	firstSweep  = 500 * time.Millisecond
	longestStep = 10 * time.Second
	sweepTime   = 10 * time.Second // how long the engine may take to list
)

// sweep removes strays until the dispatcher closes.
func (a *aviary) sweep() {
	suspects := map[string]bool{}
	for pause := firstSweep; a.sleep(pause); pause = min(2*pause, longestStep) {
		if suspects = a.removeStrays(suspects); len(suspects) > 0 {
			pause = firstSweep / 2 // look at them a second time
		}
	}
}

// removeStrays lists the aviary and removes strays that it has seen before. A sandbox
// that it sees for the first time may have just been made, and become known a moment
// later. It returns these.
func (a *aviary) removeStrays(suspects map[string]bool) map[string]bool {
	ctx, cancel := context.WithTimeout(a.ctx, sweepTime)
	defer cancel()
	instances, err := a.engine.List(ctx)
	if err != nil {
		if a.ctx.Err() == nil {
			a.outage.complain(err).Msg("could not look for sandboxes that nobody knows; looking again")
		}
		return suspects
	}
	seen := map[string]bool{}
	for _, inst := range instances {
		id := inst.ID()
		switch {
		case a.capacity.knows(id):
		case suspects[id]:
			a.log.Warn().Str("sandbox", id).Msg("removing a sandbox that came up for an earlier start")
			a.capacity.admit(id, inst.Spec().Limits.Memory)
			a.background(func() { a.discard(inst) })
		default:
			seen[id] = true
		}
	}
	return seen
}

package dispatch

import (
	"context"
	"time"
)

// A stray is a sandbox of the aviary that the dispatcher does not know. Engines
// finish what they were asked for: one that a killed dispatcher wanted may come
// up after the next one has looked, and one that could not be removed while the
// engine was away is still there when it is back. They are looked for soon after
// the start, and then less and less often.
const (
	firstSweep  = 500 * time.Millisecond
	longestStep = 10 * time.Second
	sweepTime   = 10 * time.Second // that the engine may take to list
)

// sweep removes strays until the dispatcher closes.
func (a *aviary) sweep() {
	suspects := map[string]bool{}
	for pause := firstSweep; a.sleep(pause); pause = min(2*pause, longestStep) {
		if suspects = a.removeStrays(suspects); len(suspects) > 0 {
			pause = firstSweep / 2 // the second look at them
		}
	}
}

// removeStrays lists the aviary and removes those that the dispatcher does not
// know, if it did not at the last look either: one that the engine has just made
// is known only a moment later. It returns those that it saw for the first time.
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

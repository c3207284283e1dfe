package dispatch

import "slices"

// roost holds the birds of a flock. The flock's mu guards it.
type roost struct {
	birds   []*bird // that take calls
	paused  []*bird // that could take calls once resumed
	leaving []*bird // that only finish their calls

	// succeeding says that the last bird to take calls is spent, and that its calls, or
	// others in line, are still there.
	succeeding bool
}

// free returns the bird to which the next call goes, or nil. Of the birds with fewer
// than concurrency calls it is the busiest, so that others become idle and can be
// removed.
func (r *roost) free(concurrency int) *bird {
	var best *bird
	for _, b := range r.birds {
		if b.inFlight < concurrency && (best == nil || b.inFlight > best.inFlight) {
			best = b
		}
	}
	return best
}

// idle returns the birds that have no call: first the paused ones, then those that take
// calls, and in each group the one that is idle longest first.
func (r *roost) idle() []*bird {
	longest := func(a, b *bird) int { return a.idleSince.Compare(b.idleSince) }
	idle := slices.Clone(r.paused)
	slices.SortFunc(idle, longest)
	for _, b := range r.birds {
		if b.inFlight == 0 {
			idle = append(idle, b)
		}
	}
	slices.SortFunc(idle[len(r.paused):], longest)
	return idle
}

// remove takes out a bird that takes calls or is paused.
func (r *roost) remove(b *bird) {
	is := func(other *bird) bool { return other == b }
	r.paused = slices.DeleteFunc(r.paused, is)
	r.birds = slices.DeleteFunc(r.birds, is)
}

// spent returns how many birds finish their last calls. They count towards max_scale,
// or it would bound nothing.
func (r *roost) spent() int {
	n := 0
	for _, b := range r.leaving {
		if b.spent && b.inFlight > 0 {
			n++
		}
	}
	return n
}

// unserved reports whether calls would have to wait for a first bird. Calls that wait
// for the successor of a spent bird do not: they wait for a slot, as they would with a
// busy bird.
func (r *roost) unserved() bool { return len(r.birds) == 0 && !r.succeeding }

// empty reports whether there is no bird at all.
func (r *roost) empty() bool { return len(r.birds)+len(r.paused)+len(r.leaving) == 0 }

package dispatch

import "slices"

// roost is the birds of a flock. The flock's mu guards it.
type roost struct {
	birds   []*bird // that take calls
	paused  []*bird // that would first have to be resumed
	leaving []*bird // that only finish theirs

	// succeeding: the last bird to take calls was spent, and its calls, or others in
	// line, are still there.
	succeeding bool
}

// free returns the bird to send the next call to, or nil: of those with fewer than
// concurrency calls the busiest, so that the others go idle and can be let go.
func (r *roost) free(concurrency int) *bird {
	var best *bird
	for _, b := range r.birds {
		if b.inFlight < concurrency && (best == nil || b.inFlight > best.inFlight) {
			best = b
		}
	}
	return best
}

// idle lists the birds that have no call: first those that are paused, then those that
// take calls, and of either the one first that is idle longest.
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

// remove takes a bird from those that take calls, or would once resumed.
func (r *roost) remove(b *bird) {
	is := func(other *bird) bool { return other == b }
	r.paused = slices.DeleteFunc(r.paused, is)
	r.birds = slices.DeleteFunc(r.birds, is)
}

// spent is how many birds finish their last calls. They count for max_scale, or
// that would bound nothing.
func (r *roost) spent() int {
	n := 0
	for _, b := range r.leaving {
		if b.spent && b.inFlight > 0 {
			n++
		}
	}
	return n
}

// unserved reports whether calls would wait for a first bird. Those that wait for
// the successor of a spent one wait for a slot, as they would for a bird that is busy.
func (r *roost) unserved() bool { return len(r.birds) == 0 && !r.succeeding }

// empty reports whether there is no bird at all.
func (r *roost) empty() bool { return len(r.birds)+len(r.paused)+len(r.leaving) == 0 }

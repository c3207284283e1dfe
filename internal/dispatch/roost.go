package dispatch

import "slices"

// roost is the birds of a flock. The flock's mu guards it.
type roost struct {
	birds   []*bird // that take calls
	paused  []*bird // that would first have to be resumed
	leaving []*bird // that only finish theirs
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

// empty reports whether there is no bird at all.
func (r *roost) empty() bool { return len(r.birds)+len(r.paused)+len(r.leaving) == 0 }

package dispatch

import "time"

// setbacks are the starts of a flock that failed in a row. They delay the next start:
// not at all after the first one if no sandbox serves, otherwise by firstPause, doubled
// each time. So code that raises at import does not cost a container for every call.
// The flock's mu guards them.
type setbacks struct {
	n    int // starts that fail at the same time count as one
	last time.Time
	err  error // of the last one
}

const (
	firstPause   = time.Second
	longestPause = time.Minute
)

// hold reports whether no start should be tried now. serving says whether a sandbox
// takes calls.
func (s *setbacks) hold(now time.Time, serving bool) bool {
	if s.n == 0 || s.n == 1 && !serving {
		return false
	}
	return now.Sub(s.last) < min(firstPause<<min(s.n-1, 10), longestPause)
}

// note adds a failed start. more says that others are still going on.
func (s *setbacks) note(err error, more bool) {
	if !more {
		s.n++
	}
	s.last, s.err = time.Now(), err
}

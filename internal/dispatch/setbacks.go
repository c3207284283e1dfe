package dispatch

import "time"

// setbacks are the starts of a flock that failed, one after the other. After one the
// next start waits: not at all after the first when there is nothing else that could
// serve, then firstPause and twice as long each time. Code that raises at import is to
// cost no container a call. The flock's mu guards them.
type setbacks struct {
	n    int // those at once count as one
	last time.Time
	err  error // of the last one
}

const (
	firstPause   = time.Second
	longestPause = time.Minute
)

// hold reports whether no start is to be tried as of now. serving says whether there
// is a sandbox that takes calls.
func (s *setbacks) hold(now time.Time, serving bool) bool {
	if s.n == 0 || s.n == 1 && !serving {
		return false
	}
	return now.Sub(s.last) < min(firstPause<<min(s.n-1, 10), longestPause)
}

// note adds a start that failed. more says that others go on beside it.
func (s *setbacks) note(err error, more bool) {
	if !more {
		s.n++
	}
	s.last, s.err = time.Now(), err
}

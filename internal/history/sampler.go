package history

import (
	"cmp"
	"slices"
	"time"
)

// sampler decides which calls leave a record when too many come: of those that went well
// and fast it keeps a share, and counts the others.
type sampler struct {
	rate int // calls a second up to which all are kept; 0 for no bound

	second time.Time // when the present second began
	calls  int       // in it
	every  int       // of so many calls in it one is kept
	left   map[omission]int
}

// omission says which calls are counted together when they are left out: those of one
// function that began in one minute.
type omission struct {
	function string
	minute   int64 // since 1970
}

// slow is how many milliseconds a call takes at least that is never left out.
const slow = 1000

// admits reports whether a call that went well is kept. When the last second had more
// calls than the rate, an even share of this second's calls is kept; what still exceeds
// the rate is not.
func (s *sampler) admits(now time.Time) bool {
	if s.rate == 0 {
		return true
	}
	if since := now.Sub(s.second); since >= time.Second || since < 0 {
		if since >= 2*time.Second {
			s.calls = 0
		}
		s.second, s.every, s.calls = now, 1+(s.calls-1)/s.rate, 0
		s.every = max(s.every, 1)
	}
	s.calls++
	return s.calls%s.every == 0 && s.calls/s.every <= s.rate
}

// omit counts a call that is left out.
func (s *sampler) omit(function string, started time.Time) {
	if s.left == nil {
		s.left = map[omission]int{}
	}
	s.left[omission{function, started.Unix() / 60}]++
}

// omitted returns what was counted in the minutes before that of now, the oldest first,
// and forgets it. With a zero now it does so for all minutes.
func (s *sampler) omitted(now time.Time) (all []omittedCalls) {
	for o, n := range s.left {
		if now.IsZero() || o.minute < now.Unix()/60 {
			all = append(all, omittedCalls{n, o.function, time.Unix(o.minute*60, 0).UTC()})
			delete(s.left, o)
		}
	}
	slices.SortFunc(all, func(a, b omittedCalls) int {
		return cmp.Or(a.Minute.Compare(b.Minute), cmp.Compare(a.Function, b.Function))
	})
	return all
}

package dispatch

import (
	"math"
	"slices"
	"time"
)

// demand is how many calls run or wait in a flock, now and on average over a short
// window. Its flock's mu guards it.
type demand struct {
	calls   int     // that run
	waiting int     // according to noteLine
	average float64 // of both, weighted exponentially
	window  time.Duration
	at      time.Time // the time of average
}

// add changes the number of calls that run. The average does not depend on how often it
// is computed, because the number is constant in between.
func (d *demand) add(calls int, now time.Time) {
	if since := now.Sub(d.at); since > 0 {
		d.average += (float64(d.calls+d.waiting) - d.average) * (1 - math.Exp(-float64(since)/float64(d.window)))
		d.at = now
	}
	d.calls += calls
}

// wait sets how many calls wait.
func (d *demand) wait(waiting int, now time.Time) {
	d.add(0, now)
	d.waiting = waiting
}

// peak is the largest number noted within a window.
type peak struct {
	marks []mark // times rise and numbers fall: a mark that a later one exceeds is dropped
}

// mark is a number that was noted at some time.
type mark struct {
	at time.Time
	n  int
}

// note adds a number and returns the largest.
func (p *peak) note(n int, now time.Time, window time.Duration) int {
	for len(p.marks) > 0 && p.marks[len(p.marks)-1].n <= n {
		p.marks = p.marks[:len(p.marks)-1]
	}
	p.marks = append(p.marks, mark{now, n})
	old := slices.IndexFunc(p.marks, func(m mark) bool { return now.Sub(m.at) < window })
	p.marks = slices.Delete(p.marks, 0, max(0, old))
	return p.marks[0].n
}

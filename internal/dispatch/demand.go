package dispatch

import (
	"math"
	"slices"
	"time"
)

// demand is how many calls run or wait in a flock, now and on the average of a
// short window. Its flock's mu guards it.
type demand struct {
	calls   int     // that run
	waiting int     // as noteLine has it
	average float64 // of both, exponentially weighted
	window  time.Duration
	at      time.Time // when average was right
}

// add changes the number of calls that run. The average is exact however often
// it is asked for, for the number stands still in between.
func (d *demand) add(calls int, now time.Time) {
	if since := now.Sub(d.at); since > 0 {
		d.average += (float64(d.calls+d.waiting) - d.average) * (1 - math.Exp(-float64(since)/float64(d.window)))
		d.at = now
	}
	d.calls += calls
}

// wait notes how many calls wait.
func (d *demand) wait(waiting int, now time.Time) {
	d.add(0, now)
	d.waiting = waiting
}

// peak is the highest of the numbers that were noted within a window.
type peak struct {
	marks []mark // of rising times and falling numbers: what later ones outdo is forgotten
}

type mark struct {
	at time.Time
	n  int
}

// note adds a number and returns the highest.
func (p *peak) note(n int, now time.Time, window time.Duration) int {
	for len(p.marks) > 0 && p.marks[len(p.marks)-1].n <= n {
		p.marks = p.marks[:len(p.marks)-1]
	}
	p.marks = append(p.marks, mark{now, n})
	old := slices.IndexFunc(p.marks, func(m mark) bool { return now.Sub(m.at) < window })
	p.marks = slices.Delete(p.marks, 0, max(0, old))
	return p.marks[0].n
}

package dispatch

import (
	"slices"
	"testing"
	"time"
)

func TestPoolSize(t *testing.T) {
	begun := time.Now()
	dry, low, ample := -1, 0, 100 // what is left after a take; -1: none was there
	for _, c := range []struct {
		name        string
		least, most int
		takes       map[time.Duration]int
		at          []time.Duration
		want        []int
	}{
		{"nothing happens", 2, 8, nil, []time.Duration{0, time.Hour}, []int{2, 2}},
		{"dry once", 2, 8, map[time.Duration]int{0: dry}, []time.Duration{0, 299 * time.Second, 300 * time.Second, time.Hour}, []int{3, 3, 2, 2}},
		{"of one", 1, 8, map[time.Duration]int{0: dry}, []time.Duration{0}, []int{2}},
		{"a burst is one reason", 2, 8, map[time.Duration]int{0: dry, 1: dry, 999 * time.Millisecond: dry}, []time.Duration{999 * time.Millisecond}, []int{3}},
		{"dry again and again", 2, 8, map[time.Duration]int{0: dry, 1 * time.Second: dry, 2 * time.Second: dry, 3 * time.Second: dry, 4 * time.Second: dry},
			[]time.Duration{0, 1 * time.Second, 2 * time.Second, 3 * time.Second, 4 * time.Second}, []int{3, 4, 6, 8, 8}},
		{"no pool", 0, 8, map[time.Duration]int{0: dry}, []time.Duration{0}, []int{0}},
		{"a pool above the bound", 10, 8, map[time.Duration]int{0: dry}, []time.Duration{0, time.Hour}, []int{10, 10}},
		{"running low keeps it", 2, 8, map[time.Duration]int{0: dry, 200 * time.Second: low}, []time.Duration{300 * time.Second, 499 * time.Second, 500 * time.Second}, []int{3, 3, 2}},
		{"plenty left does not", 2, 8, map[time.Duration]int{0: dry, 200 * time.Second: ample}, []time.Duration{300 * time.Second}, []int{2}},
		{"one less at a time", 1, 8, map[time.Duration]int{0: dry, time.Second: dry, 2 * time.Second: dry, 3 * time.Second: dry},
			[]time.Duration{3 * time.Second, 303 * time.Second, 603 * time.Second, 903 * time.Second, time.Hour}, []int{6, 5, 4, 3, 1}},
	} {
		s, next := newPoolSize(c.least, c.most, begun), 0
		instants := slices.Clone(c.at)
		for at := range c.takes {
			instants = append(instants, at)
		}
		for second := range 3601 {
			instants = append(instants, time.Duration(second)*time.Second)
		}
		slices.Sort(instants)
		for _, at := range slices.Compact(instants) {
			now := begun.Add(at)
			if left, happens := c.takes[at]; happens {
				s = s.taken(left >= 0, max(0, left), now)
			}
			s = s.rested(now)
			if next < len(c.at) && at == c.at[next] {
				if s.target != c.want[next] {
					t.Errorf("%s: after %v the target is %d, want %d", c.name, at, s.target, c.want[next])
				}
				next++
			}
		}
	}
}

func TestShares(t *testing.T) {
	for _, c := range []struct {
		targets []int
		total   int
		want    []int
	}{
		{[]int{2, 1}, 5, []int{2, 1}},
		{[]int{2, 1}, 3, []int{2, 1}},
		{[]int{2, 1}, 2, []int{1, 1}},
		{[]int{8, 1}, 4, []int{3, 1}},
		{[]int{1, 1}, 1, []int{0, 1}},
		{[]int{2, 1}, 0, []int{0, 0}},
		{nil, 3, nil},
	} {
		if got := shares(c.targets, c.total); !slices.Equal(got, c.want) {
			t.Errorf("of %d, %v are %v, want %v", c.total, c.targets, got, c.want)
		}
	}
}

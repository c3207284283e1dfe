package buffer

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestPace: what comes alone, or in large pieces, is not delayed; what comes in
// single bytes is passed on a thousand times a second at most.
func TestPace(t *testing.T) {
	for what, c := range map[string]struct {
		every time.Duration
		bytes int
		most  time.Duration // of delay for a piece
		least time.Duration // for a thousand of them
	}{
		"events, now and then":   {2 * time.Millisecond, 100, 0, 2 * time.Second},
		"large pieces":           {0, 32 << 10, 0, 0},
		"single bytes":           {0, 1, time.Millisecond, 999 * time.Millisecond},
		"events, close together": {100 * time.Microsecond, 100, time.Millisecond, 999 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			var pace Pace
			begun := time.Now()
			for n := range 1000 {
				sent := time.Now()
				pace.Passed(c.bytes)
				if took := time.Since(sent); took > c.most || n == 0 && took > 0 {
					t.Errorf("%s: piece %d delays the next by %v", what, n, took)
				}
				time.Sleep(c.every)
			}
			if took := time.Since(begun); took < c.least {
				t.Errorf("%s: a thousand were passed on within %v", what, took)
			}
		})
	}
	pace := Pace{}
	if n := testing.AllocsPerRun(10, func() { pace.Passed(1) }); n > 0 {
		t.Errorf("it allocates %v times", n)
	}
}

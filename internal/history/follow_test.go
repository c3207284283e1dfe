package history

import (
	"fmt"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
)

// TestFollowAfterTrim: a follower that begins where calls are gone is told that some are
// missing, and one that begins behind them is not.
func TestFollowAfterTrim(t *testing.T) {
	o := open(t, t.TempDir(), func(c *Config) { c.MaxBytes = 1 << 20 })
	const n = 8000
	for i := range n {
		o.Record(call(i, func(c *faas.CallRecord) { c.Timing.Total = slow }))
		if i%500 == 0 {
			o.written()
		}
	}
	o.eventually(faas.CallQuery{Text: fmt.Sprint("call-", n-1)}, fmt.Sprint(n-1))
	kept, first, last := 0, uint64(0), uint64(0)
	for c, err := range o.Calls(faas.CallQuery{}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		kept, first, last = kept+1, c.Number, max(last, c.Number)
	}
	for _, tt := range []struct {
		after         uint64
		shows, misses int
	}{{1, maxBehind, kept - maxBehind + 1}, {first - 1, maxBehind, kept - maxBehind}, {last - 10, 10, 0}, {last + 1, 1, 1}} {
		done := make(chan struct{})
		calls := o.follow(faas.CallQuery{After: tt.after}, done)
		if tt.after > last { // the number is of another history
			o.Record(call(n, nil))
		}
		shown, missed, number := 0, 0, uint64(0)
		for c := range calls {
			if c.Number <= number {
				t.Fatalf("the call %d comes after %d", c.Number, number)
			}
			number = c.Number
			missed += c.Omitted
			if shown++; shown == tt.shows {
				break
			}
		}
		close(done)
		if shown != tt.shows || missed != tt.misses {
			t.Errorf("of %d to %d are shown %d and missed %d, not %+v", first, last, shown, missed, tt)
		}
	}
}

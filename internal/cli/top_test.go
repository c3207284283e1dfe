package cli

import (
	"math"
	"testing"
)

// TestQuantile: what happened before does not count, and a place within a bucket is
// found by its share.
func TestQuantile(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		share       float64
		now, before map[float64]float64
		want        float64
	}{
		{0.5, nil, nil, 0},
		{0.5, map[float64]float64{1: 5, inf: 5}, map[float64]float64{1: 5, inf: 5}, 0},
		{0.5, map[float64]float64{1: 10, 2: 10, inf: 10}, nil, 0.5},
		{0.5, map[float64]float64{1: 100, 2: 110, inf: 110}, map[float64]float64{1: 100, 2: 100, inf: 100}, 1.5},
		{0.95, map[float64]float64{1: 90, 2: 100, inf: 100}, nil, 1.5},
		{0.95, map[float64]float64{1: 0, 2: 0, inf: 10}, nil, 2},
	} {
		if got := quantile(c.share, c.now, c.before); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%v of %v since %v is %v, want %v", c.share, c.now, c.before, got, c.want)
		}
	}
}

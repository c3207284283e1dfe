package dispatch

import (
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

func TestDecide(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	idle := func(seconds ...int) (since []time.Time) {
		for _, s := range seconds {
			since = append(since, now.Add(-time.Duration(s)*time.Second))
		}
		return since
	}
	for _, c := range []struct {
		name string
		set  string
		load load
		want decision
	}{
		{"nothing to do", "", load{}, decision{}},
		{"the first call", "", load{Waiting: 1}, decision{Start: 1}},
		{"one is being started for it", "", load{Waiting: 1, Starting: 1}, decision{}},
		{"many first calls: one will show how long they take", "", load{Waiting: 5, Waited: time.Minute}, decision{Start: 1}},
		{"all busy and one waits, but not for long", "", load{InFlight: 2, Waiting: 1, Birds: 2}, decision{}},
		{"all busy and one waits", "", load{InFlight: 2, Waiting: 1, Birds: 2, Waited: growPatience}, decision{Start: 1}},
		{"a slot for each call of unknown length", "", load{InFlight: 2, Waiting: 4, Birds: 2, Waited: growPatience}, decision{Start: 4}},
		{"long calls at once", "", load{InFlight: 2, Waiting: 4, Birds: 2, Run: time.Second}, decision{Start: 4}},
		{"short calls clear the line by themselves", "", load{InFlight: 2, Waiting: 90, Birds: 2, Run: time.Millisecond}, decision{}},
		{"a long line of short calls", "", load{InFlight: 2, Waiting: 398, Birds: 2, Run: time.Millisecond}, decision{Start: 2}},
		{"short calls that wait all the same", "", load{InFlight: 2, Waiting: 9, Birds: 2, Run: time.Millisecond, Waited: growPatience}, decision{Start: 1}},
		{"what is refused otherwise does not wait", "", load{InFlight: 2, Waiting: 3, Birds: 2, Full: true, Run: time.Millisecond}, decision{Start: 3}},
		{"full before there is a sandbox", "", load{Waiting: 3, Full: true}, decision{Start: 3}},
		{"full and max_scale", "max_scale=3", load{InFlight: 2, Waiting: 3, Birds: 2, Full: true}, decision{Start: 1}},
		{"max_scale", "max_scale=3", load{InFlight: 2, Waiting: 100, Birds: 2, Waited: time.Second}, decision{Start: 1}},
		{"max_scale reached", "max_scale=3", load{InFlight: 3, Waiting: 100, Birds: 3}, decision{}},
		{"max_scale reached with starts", "max_scale=3", load{InFlight: 1, Waiting: 100, Birds: 1, Starting: 2}, decision{}},
		{"concurrency rounds up", "concurrency=4", load{InFlight: 4, Waiting: 1, Birds: 1, Waited: time.Second}, decision{Start: 1}},
		{"concurrency fits", "concurrency=4", load{InFlight: 3, Waiting: 1, Birds: 1}, decision{}},
		{"short calls and concurrency", "concurrency=4", load{InFlight: 4, Waiting: 796, Birds: 1, Run: time.Millisecond}, decision{Start: 1}},
		{"a great concurrency", "concurrency=1000", load{Waiting: 999}, decision{Start: 1}},
		{"min_scale", "min_scale=2", load{}, decision{Start: 2}},
		{"min_scale, one there", "min_scale=2", load{Birds: 1, Idle: idle(0)}, decision{Start: 1}},
		{"min_scale keeps what has long been idle", "min_scale=2 idle_timeout=1s", load{Birds: 2, Idle: idle(100, 99)}, decision{}},
		{"above min_scale", "min_scale=2 idle_timeout=1s", load{Birds: 4, Idle: idle(100, 99, 98, 97)}, decision{Stop: 2}},
		{"just not idle for long enough", "idle_timeout=10s", load{Birds: 1, Idle: idle(9)}, decision{}},
		{"idle for exactly as long", "idle_timeout=10s", load{Birds: 1, Idle: idle(10)}, decision{Stop: 1}},
		{"some of the idle", "idle_timeout=10s", load{Birds: 3, Idle: idle(30, 20, 5)}, decision{Stop: 2}},
		{"busy ones stay", "idle_timeout=10s", load{InFlight: 2, Birds: 3, Idle: idle(30)}, decision{Stop: 1}},
		{"as many as there are calls", "idle_timeout=10s concurrency=2", load{InFlight: 4, Birds: 3, Idle: idle(30)}, decision{Stop: 1}},
		{"retired ones go after 10 s", "", load{Birds: 2, Idle: idle(10, 9), Retired: true}, decision{Stop: 1}},
		{"retired, with an idle_timeout that is shorter", "idle_timeout=1s", load{Birds: 1, Idle: idle(1), Retired: true}, decision{Stop: 1}},
		{"retired ones have no min_scale", "min_scale=3", load{Birds: 1, Idle: idle(60), Retired: true}, decision{Stop: 1}},
		{"retired, and called by its number", "min_scale=3", load{Waiting: 1, Retired: true}, decision{Start: 1}},
		{"a clock that went backwards", "idle_timeout=1s", load{Birds: 1, Idle: idle(-60)}, decision{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := settings(c.set).Apply(faas.DefaultSettings())
			if err != nil {
				t.Fatal(err)
			}
			if got := decide(s, c.load, now); got != c.want {
				t.Errorf("decide(%s, %+v) = %+v, want %+v", c.set, c.load, got, c.want)
			}
		})
	}
}

package dispatch

import (
	"math"
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
		{"a sandbox for each call", "max_calls=1", load{Waiting: 5}, decision{Start: 5}},
		{"a sandbox for every so many", "max_calls=3", load{InFlight: 1, Waiting: 7, Birds: 1, Run: time.Millisecond}, decision{Start: 2}},
		{"spent ones count for max_scale", "max_calls=1 max_scale=3", load{Waiting: 5, Spent: 2}, decision{Start: 1}},
		{"a successor for demand", "max_calls=1", load{Spent: 2, Demand: 2}, decision{Start: 2}},
		{"a successor for min_scale", "max_calls=1 min_scale=1", load{Spent: 1}, decision{Start: 1}},
		{"no successor beyond max_scale", "max_calls=1 min_scale=1 max_scale=1", load{Spent: 1, Demand: 1}, decision{}},
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
		{"surplus goes after the stable window", "", load{Birds: 3, Idle: idle(60, 60, 59)}, decision{Stop: 2}},
		{"not before it", "", load{Birds: 3, Idle: idle(59, 59, 59)}, decision{}},
		{"a longer window", "stable_window=2m", load{Birds: 3, Idle: idle(119, 119, 119)}, decision{}},
		{"the last one stays until idle_timeout", "", load{Birds: 1, Idle: idle(299)}, decision{}},
		{"and goes then", "", load{Birds: 1, Idle: idle(300)}, decision{Stop: 1}},
		{"what demand wanted in the window stays", "concurrency=10", load{Birds: 4, Idle: idle(90, 80, 70), Peak: 3}, decision{Stop: 1}},
		{"and beyond idle_timeout, while others are used", "concurrency=10", load{Birds: 3, Idle: idle(400, 400, 299), Peak: 3}, decision{}},
		{"but not beyond idle_timeout", "concurrency=10", load{Birds: 3, Idle: idle(400, 400, 300), Peak: 3}, decision{Stop: 3}},
		{"unless calls want it now", "concurrency=10", load{InFlight: 9, Demand: 9, Peak: 2, Birds: 3, Idle: idle(400, 400)}, decision{Stop: 1}},
		{"demand below the target", "concurrency=10", load{InFlight: 8, Demand: 8, Birds: 1}, decision{}},
		{"demand above the target", "concurrency=10", load{InFlight: 9, Demand: 8.5, Birds: 1}, decision{Start: 1}},
		{"a target of all", "concurrency=10 target_utilization=1", load{InFlight: 10, Demand: 10, Birds: 1}, decision{}},
		{"a low target", "concurrency=10 target_utilization=0.2", load{InFlight: 10, Demand: 10, Birds: 1}, decision{Start: 4}},
		{"a target has no effect on one call a sandbox", "target_utilization=0.1", load{InFlight: 2, Demand: 2, Birds: 2}, decision{}},
		{"demand and max_scale", "concurrency=10 max_scale=2", load{InFlight: 10, Demand: 90, Birds: 1}, decision{Start: 1}},
		{"demand that has ended", "concurrency=10", load{Demand: 30, Birds: 1, Idle: idle(0)}, decision{}},
		{"demand that has ended, and idle_timeout", "idle_timeout=1s", load{Demand: 3, Peak: 3, Birds: 3, Idle: idle(1, 1, 1)}, decision{Stop: 3}},
		{"max_concurrency", "max_concurrency=5 concurrency=2", load{InFlight: 2, Waiting: 50, Birds: 1, Waited: time.Second}, decision{Start: 2}},
		{"max_concurrency and min_scale", "max_concurrency=1 min_scale=3", load{}, decision{Start: 1}},
		{"switched off", "max_concurrency=0 min_scale=3", load{}, decision{}},
		{"switched off: sandboxes go like retired ones", "max_concurrency=0 min_scale=3", load{Birds: 2, Idle: idle(10, 9)}, decision{Stop: 1}},
		{"switched off: calls finish", "max_concurrency=0", load{InFlight: 2, Birds: 3, Idle: idle(5)}, decision{}},
		{"a paused one is resumed first", "", load{Waiting: 1, Paused: 2, Idle: idle(9, 9)}, decision{Resume: 1}},
		{"resumed, and then started", "", load{InFlight: 1, Waiting: 3, Birds: 1, Paused: 2, Waited: time.Second, Idle: idle(9, 9)}, decision{Resume: 2, Start: 1}},
		{"one is being resumed", "", load{Waiting: 1, Starting: 1, Paused: 1, Idle: idle(9)}, decision{}},
		{"paused ones count for min_scale", "min_scale=3", load{Paused: 2, Idle: idle(9, 9)}, decision{Start: 1}},
		{"paused ones count for max_scale", "max_scale=3", load{InFlight: 1, Waiting: 9, Birds: 1, Paused: 1, Waited: time.Second, Idle: idle(9)}, decision{Resume: 1, Start: 1}},
		{"pause", "pause_after=5s", load{Birds: 3, Idle: idle(6, 5, 4)}, decision{Pause: 2}},
		{"pause beside paused ones", "pause_after=5s", load{Birds: 2, Paused: 1, Idle: idle(9, 6, 4)}, decision{Pause: 1}},
		{"stop before pause", "pause_after=5s", load{Birds: 2, Paused: 1, Idle: idle(90, 80, 6)}, decision{Stop: 2, Pause: 1}},
		{"paused ones go too", "idle_timeout=10s pause_after=5s", load{Paused: 2, Idle: idle(10, 9)}, decision{Stop: 1}},
		{"no pause of what demand wants", "concurrency=10 pause_after=5s", load{InFlight: 9, Demand: 9, Birds: 3, Idle: idle(7, 7)}, decision{Pause: 1}},
		{"a clock that went backwards", "idle_timeout=1s", load{Birds: 1, Idle: idle(-60)}, decision{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := settings(c.set).Apply(faas.DefaultSettings())
			if err != nil {
				t.Fatal(err)
			}
			got := decide(s, c.load, now)
			got.Aim = aim{} // TestAim has it
			if got != c.want {
				t.Errorf("decide(%s, %+v) = %+v, want %+v", c.set, c.load, got, c.want)
			}
		})
	}
}

// TestAim: a decision says how many sandboxes it is for, and why.
func TestAim(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	ago := func(seconds int) time.Time { return now.Add(-time.Duration(seconds) * time.Second) }
	for _, c := range []struct {
		set  string
		load load
		want aim
	}{
		{"", load{}, aim{0, whyIdle}},
		{"", load{Birds: 1, Idle: []time.Time{ago(9)}}, aim{0, whyIdle}},
		{"", load{Waiting: 1}, aim{1, whyQueue}},
		{"", load{Waiting: 1, Starting: 1}, aim{1, whyQueue}},
		{"", load{InFlight: 1, Birds: 1, Demand: 1}, aim{1, whyCalls}},
		{"", load{InFlight: 3, Birds: 3, Demand: .2}, aim{3, whyCalls}}, // the average lags behind
		{"concurrency=10", load{InFlight: 9, Demand: 8.5, Birds: 1}, aim{2, whyCalls}},
		{"", load{InFlight: 2, Waiting: 4, Birds: 2, Demand: 3, Run: time.Second}, aim{6, whyQueue}},
		{"max_calls=3", load{InFlight: 1, Waiting: 7, Birds: 1, Run: time.Millisecond}, aim{3, whyMaxCalls}},
		{"concurrency=10", load{Birds: 4, Idle: []time.Time{ago(90), ago(80), ago(70)}, Peak: 3}, aim{3, whyRecent}},
		{"min_scale=2", load{Birds: 2, Idle: []time.Time{ago(9), ago(9)}}, aim{2, whyMinScale}},
		{"min_scale=2", load{Birds: 1, InFlight: 1, Demand: 1}, aim{2, whyMinScale}},
		{"max_scale=3", load{InFlight: 3, Waiting: 100, Birds: 3, Waited: time.Second}, aim{3, whyMaxScale}},
		{"max_calls=1 max_scale=2", load{Waiting: 5, Spent: 3}, aim{0, whyMaxScale}},
		{"max_concurrency=5 concurrency=2", load{InFlight: 2, Waiting: 50, Birds: 1, Waited: time.Second}, aim{3, whyMaxConcurrency}},
		{"max_concurrency=1 min_scale=3", load{}, aim{1, whyMinScale}},
		{"max_concurrency=0 min_scale=3", load{Birds: 2, Idle: []time.Time{ago(9), ago(9)}}, aim{0, whyOff}},
		{"max_concurrency=0", load{InFlight: 2, Birds: 3, Idle: []time.Time{ago(5)}}, aim{2, whyOff}},
		{"min_scale=3", load{Birds: 1, Idle: []time.Time{ago(5)}, Retired: true}, aim{0, whyIdle}},
	} {
		s, err := settings(c.set).Apply(faas.DefaultSettings())
		if err != nil {
			t.Fatal(err)
		}
		if got := decide(s, c.load, now).Aim; got != c.want {
			t.Errorf("decide(%s, %+v) aims at %+v, want %+v", c.set, c.load, got, c.want)
		}
	}
}

func TestDemandIsAveraged(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	near := func(got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 0.001 {
			t.Errorf("the average is %v, want %v", got, want)
		}
	}
	d := demand{window: 6 * time.Second, at: now}
	d.add(16, now)
	near(d.average, 0)
	d.add(0, now.Add(6*time.Second))
	near(d.average, 16*(1-1/math.E))
	// It is the same however often somebody looks.
	often := demand{window: 6 * time.Second, at: now}
	often.add(16, now)
	for i := range 6000 {
		often.add(0, now.Add(time.Duration(i)*time.Millisecond))
	}
	often.add(-16, now.Add(6*time.Second))
	near(often.average, d.average)
	often.add(0, now) // a look at the past
	near(often.average, d.average)
	often.add(0, now.Add(time.Minute))
	near(often.average, 16*(1-1/math.E)*math.Exp(-9))
	if d.add(0, now.Add(time.Hour)); forDemand(faas.DefaultSettings(), d.average) != 16 {
		t.Errorf("16 calls all the time want %d sandboxes, on the average of %v", forDemand(faas.DefaultSettings(), d.average), d.average)
	}
}

func TestPeak(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	var p peak
	for second, c := range [][2]int{{3, 3}, {5, 5}, {2, 5}, {4, 5}, {1, 5}, {1, 5}, {1, 4}, {1, 4}, {1, 1}, {6, 6}} {
		if got := p.note(c[0], now.Add(time.Duration(second)*time.Second), 5*time.Second); got != c[1] {
			t.Errorf("second %d: the peak is %d, want %d", second, got, c[1])
		}
	}
	if len(p.marks) != 1 {
		t.Errorf("%d marks are kept, want 1", len(p.marks))
	}
}

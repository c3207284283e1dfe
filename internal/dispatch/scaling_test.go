package dispatch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
	"github.com/flockofbirds/fob/internal/telemetry"
)

// simulation is a function of calls of 100 ms, in sandboxes that take 500 ms to
// start, under clients that call it one call after the other.
type simulation struct {
	w       *world
	fn      *faas.Function
	clients []context.CancelFunc
	running sync.WaitGroup

	second []int // sandboxes after each second
}

func simulate(t *testing.T, set string, test func(s *simulation)) {
	t.Helper()
	simulated(t, nil, func(t *testing.T, w *world) {
		w.engine.calls["100ms"] = func(s *fakeSandbox, _ *http.Request) string {
			time.Sleep(100 * time.Millisecond)
			return s.version()
		}
		w.engine.set(func() { w.engine.delay = 500 * time.Millisecond })
		s := &simulation{w: w, fn: w.create("100ms", set)}
		test(s)
		s.clientsAre(0)
		s.running.Wait()
		t.Logf("%s: %d sandboxes made; after each second %s", set, s.made(), s.timeline())
	})
}

// clientsAre has so many clients call from now on.
func (s *simulation) clientsAre(n int) {
	for len(s.clients) > n {
		s.clients[len(s.clients)-1]()
		s.clients = s.clients[:len(s.clients)-1]
	}
	for len(s.clients) < n {
		ctx, leave := context.WithCancel(context.Background())
		s.clients = append(s.clients, leave)
		s.running.Go(func() {
			for ctx.Err() == nil {
				// They finish their last call.
				if o := s.w.call(context.Background(), faas.Ref{ID: s.fn.ID}); o.err != nil {
					s.w.t.Error(o.err)
					return
				}
			}
		})
	}
}

// pass lets seconds go by.
func (s *simulation) pass(seconds int) {
	for range seconds {
		time.Sleep(time.Second)
		synctest.Wait()
		s.w.check()
		s.second = append(s.second, s.there())
	}
}

// there is how many sandboxes there are.
func (s *simulation) there() int { return len(s.w.engine.running("100ms")) }

// made is how many there ever were.
func (s *simulation) made() int {
	s.w.engine.mu.Lock()
	defer s.w.engine.mu.Unlock()
	return len(s.w.engine.born)
}

// between fails the test unless there were so many sandboxes in the last
// seconds.
func (s *simulation) between(low, high, seconds int) {
	s.w.t.Helper()
	last := s.second[len(s.second)-seconds:]
	if least, most := slices.Min(last), slices.Max(last); least < low || most > high {
		s.w.t.Errorf("%d to %d sandboxes in the last %d s, want %d to %d; it was %s", least, most, seconds, low, high, s.timeline())
	}
}

// timeline shows the sandboxes of each second, as "3 4×10 2".
func (s *simulation) timeline() string {
	var parts []string
	for i, j := 0, 0; i < len(s.second); i = j {
		for j = i; j < len(s.second) && s.second[j] == s.second[i]; j++ {
		}
		parts = append(parts, fmt.Sprintf("%d×%d", s.second[i], j-i))
	}
	return strings.Join(parts, " ")
}

func TestBurst(t *testing.T) {
	simulate(t, "max_scale=16 stable_window=10s idle_timeout=30s", func(s *simulation) {
		s.pass(5)
		s.clientsAre(64)
		s.pass(4) // the engine makes four at a time
		s.pass(16)
		s.between(16, 16, 16)
		s.clientsAre(0)
		s.pass(9)
		s.between(16, 16, 9)
		s.pass(6)
		s.between(1, 1, 2)
		s.pass(20)
		s.between(0, 0, 2)
		if s.made() != 16 {
			t.Errorf("%d sandboxes were made, want 16", s.made())
		}
	})
}

func TestSteadyLoad(t *testing.T) {
	for set, want := range map[string]int{"": 8, "concurrency=5": 2, "concurrency=5 target_utilization=0.5": 4, "concurrency=20": 1} {
		simulate(t, set, func(s *simulation) {
			s.clientsAre(8)
			s.pass(30)
			s.pass(80)
			s.between(want, want, 80)
			if s.made() != want {
				t.Errorf("%s: %d sandboxes were made for a steady load, want %d", set, s.made(), want)
			}
		})
	}
}

func TestRamp(t *testing.T) {
	simulate(t, "max_scale=16 stable_window=10s", func(s *simulation) {
		for n := range 12 {
			s.clientsAre(n + 1)
			s.pass(5)
			s.between(max(1, n), n+1, 2) // one behind is a line that clears by itself, just about
		}
		up := s.made()
		for n := range 12 {
			s.clientsAre(11 - n)
			s.pass(5)
			s.between(max(1, 11-n), min(12, 12-n+3), 1) // 10 s and a look behind
		}
		s.pass(15)
		s.between(1, 1, 1)
		if s.made() != up || up > 12 {
			t.Errorf("%d sandboxes were made, and %d on the way up", s.made(), up)
		}
	})
}

// A load that comes and goes within the stable window has its sandboxes kept.
func TestSquareWave(t *testing.T) {
	for _, seconds := range []int{2, 20} {
		for _, set := range []string{"max_scale=16", "max_scale=16 concurrency=4"} {
			simulate(t, set, func(s *simulation) {
				wave := func() {
					s.clientsAre(12)
					s.pass(seconds)
					s.clientsAre(0)
					s.pass(seconds)
				}
				for range 1 + 20/seconds {
					wave()
				}
				made := s.made()
				for range 160 / (2 * seconds) {
					wave()
				}
				if s.made() != made || made > 12 {
					t.Errorf("%s, %d s: %d sandboxes were made, of them %d at first", set, seconds, s.made(), made)
				}
				s.between(made, made, 160)
			})
		}
	}
}

// Demand that hovers about the target starts what it wants once.
func TestHoveringLoad(t *testing.T) {
	simulate(t, "concurrency=10", func(s *simulation) {
		for i := range 45 {
			s.clientsAre(7 + i%4) // and the target is 8 a sandbox
			s.pass(4)
		}
		s.between(2, 2, 150)
		if s.made() != 2 {
			t.Errorf("%d sandboxes were made, want 2", s.made())
		}
	})
}

func TestTrickle(t *testing.T) {
	for set, want := range map[string]int{"max_scale=16": 1, "max_scale=16 idle_timeout=30s": 11} {
		simulate(t, set, func(s *simulation) {
			s.pass(60)
			for range 10 {
				s.w.call(s.w.t.Context(), faas.Ref{ID: s.fn.ID}).wants(t, `{"result":1}`)
				s.pass(60)
			}
			if want == 1 {
				s.between(1, 1, 660)
			} else {
				s.between(0, 0, 25)
			}
			if s.made() != want {
				t.Errorf("%s: %d sandboxes were made, want %d", set, s.made(), want)
			}
		})
	}
}

// What has nothing costs a tick nothing.
func TestFlocksThatHaveNothingSleep(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		var fns []*faas.Function
		for range 50 {
			fns = append(fns, w.create("version", "idle_timeout=1s"))
		}
		kept := w.create("version", "idle_timeout=1s min_scale=1")
		if n := len(w.awake.all()); n != 51 {
			t.Errorf("the tick looks at %d flocks, want 51", n)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := len(w.awake.all()); n != 1 {
			t.Errorf("the tick looks at %d flocks, want 1", n)
		}
		want := telemetry.Flock{Function: kept.ID, Sandboxes: 1, Wanted: 1, Reason: "min_scale"}
		if s := w.Snapshot(); len(s.Flocks) != 1 || s.Flocks[0] != want || len(s.Functions) != 51 {
			t.Errorf("the metrics show %d functions and the flocks %+v", len(s.Functions), s.Flocks)
		}
		w.call(t.Context(), faas.Ref{ID: fns[7].ID}).wants(t, `{"result":1}`)
		if n := len(w.awake.all()); n != 2 {
			t.Errorf("the tick looks at %d flocks after a call, want 2", n)
		}
		w.restart()
		if n := len(w.awake.all()); n != 2 {
			t.Errorf("the tick looks at %d flocks after a restart, want 2", n)
		}
	})
}

// TestWhatTheMetricsShowOfAFunction: one count for all its versions, with what the scaler
// wants and why there is less.
func TestWhatTheMetricsShowOfAFunction(t *testing.T) {
	shows := func(t *testing.T, w *world, fn *faas.Function, running, waiting, sandboxes, wanted int, why reason) {
		t.Helper()
		synctest.Wait()
		want := telemetry.Flock{Function: fn.ID, Running: running, Waiting: waiting, Sandboxes: sandboxes, Wanted: wanted, Reason: string(why)}
		flocks := w.Snapshot().Flocks
		if !slices.Contains(flocks, want) || len(flocks) != 1 {
			t.Errorf("the metrics show %+v, want %+v", flocks, want)
		}
	}
	simulated(t, func(c *config) { c.MaxSandboxes = 3 }, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_scale=4 queue_timeout=1m start_timeout=1m")
		shows(t, w, fn, 0, 0, 1, 0, whyIdle)
		old := w.beginAll(fn, 1)
		fn = w.patch(fn, "queue=5") // version 2, with a sandbox of its own
		calls := w.beginAll(fn, 1)
		time.Sleep(w.cfg.Tick)
		shows(t, w, fn, 2, 0, 2, 2, whyCalls)
		calls = append(calls, w.beginAll(fn, 4)...) // there is room for one sandbox more
		time.Sleep(time.Second)
		shows(t, w, fn, 3, 3, 3, 5, whyMaxScale)
		time.Sleep(roomPatience + 2*w.cfg.Tick)
		shows(t, w, fn, 3, 3, 3, 5, whyNoRoom)
		close(w.engine.gate)
		(<-old[0]).wants(t, `{"result":1}`)
		for _, call := range calls {
			(<-call).wants(t, `{"result":2}`)
		}
	})
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "min_scale=1")
		time.Sleep(w.cfg.Tick)
		shows(t, w, fn, 0, 0, 1, 1, whyMinScale)
		w.engine.set(func() { w.engine.refusal = errors.New("bad luck") })
		w.engine.running("version")[0].die(sandbox.Exit{Code: 3})
		time.Sleep(5 * time.Second)
		shows(t, w, fn, 0, 0, 0, 1, whyFailing)
	})
}

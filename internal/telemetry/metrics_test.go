package telemetry

import (
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// scrape returns the metrics as Prometheus would read them.
func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		t.Errorf("answered %d %v %s", w.Code, w.Header(), w.Body)
	}
	return w.Body.String()
}

func wantLines(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains("\n"+text, "\n"+line+"\n") {
			t.Errorf("there is no line %s", line)
		}
	}
}

func TestMetrics(t *testing.T) {
	m := NewMetrics()
	m.Calls.WithLabelValues("f", "1", "ok").Add(2)
	m.Calls.WithLabelValues("f", "1", "timeout").Inc()
	m.Throttled.WithLabelValues("f", "1").Inc()
	m.ColdStarts.WithLabelValues("pooled").Inc()
	m.InFlight.Set(3)
	m.Queue.Observe(.0001)
	m.Start.Observe(61)
	m.Run.WithLabelValues("f", "2").Observe(.003)
	text := scrape(t, m)
	wantLines(t, text,
		`fob_calls_total{function="f",outcome="ok",version="1"} 2`,
		`fob_calls_total{function="f",outcome="timeout",version="1"} 1`,
		`fob_calls_throttled_total{function="f",version="1"} 1`,
		`fob_cold_starts_total{kind="pooled"} 1`,
		`fob_calls_in_flight 3`,
		`fob_call_queue_seconds_bucket{le="0.0001"} 1`,
		`fob_call_start_seconds_bucket{le="60"} 0`,
		`fob_call_start_seconds_bucket{le="+Inf"} 1`,
		`fob_call_run_seconds_bucket{function="f",version="2",le="0.0025"} 0`,
		`fob_call_run_seconds_bucket{function="f",version="2",le="0.005"} 1`,
	)
	for _, name := range []string{"go_goroutines", "process_open_fds"} {
		if !strings.Contains(text, "\n"+name+" ") {
			t.Errorf("there is no %s", name)
		}
	}
	if strings.Contains(scrape(t, NewMetrics()), `function="f"`) {
		t.Error("two dispatchers share their metrics")
	}
}

func TestWatchAsksAtEachScrape(t *testing.T) {
	m := NewMetrics()
	if strings.Contains(scrape(t, m), "fob_sandboxes") {
		t.Error("sandboxes are counted before there is anybody to ask")
	}
	var mu sync.Mutex
	asked := 0
	m.Watch(7, 1<<20, func() Snapshot {
		mu.Lock()
		defer mu.Unlock()
		asked++
		return Snapshot{Sandboxes: map[string]int{"idle": asked, "busy": 0}}
	})
	for n := 1; n <= 2; n++ {
		wantLines(t, scrape(t, m), `fob_sandboxes{state="idle"} `+strconv.Itoa(n), `fob_sandboxes{state="busy"} 0`)
	}
	var scrapes sync.WaitGroup
	for range 8 {
		scrapes.Go(func() { scrape(t, m) })
	}
	scrapes.Wait()
	if asked != 10 {
		t.Errorf("asked %d times, want 10", asked)
	}
}

package telemetry

import (
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
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

// exercised returns metrics of which every one has a value.
func exercised() *Metrics {
	m := NewMetrics()
	m.Calls.WithLabelValues("f", "1", "ok").Add(2)
	m.Calls.WithLabelValues("f", "1", "timeout").Inc()
	m.Throttled.WithLabelValues("f", "1").Inc()
	m.InFlight.Set(3)
	m.Queue.Observe(.0001)
	m.Start.Observe(61)
	m.Run.WithLabelValues("f", "2").Observe(.003)
	m.ColdStarts.WithLabelValues("pooled").Inc()
	m.Decisions.WithLabelValues("start").Add(4)
	m.Evictions.Inc()
	m.PoolDry.WithLabelValues("python").Inc()
	m.EngineCalls.WithLabelValues("create").Observe(.3)
	m.EngineErrors.WithLabelValues("remove").Inc()
	m.Watch(7, 1<<20, func() Snapshot {
		return Snapshot{
			Sandboxes: map[string]int{"idle": 1, "busy": 0},
			Memory:    1 << 19,
			Queues:    []Queue{{"f", "1", 5}},
			Pools:     map[string]Pool{"node": {Size: 1, Target: 2}},
		}
	})
	return m
}

func TestMetrics(t *testing.T) {
	text := scrape(t, exercised())
	wantLines(t, text,
		`fob_calls_total{function="f",outcome="ok",version="1"} 2`,
		`fob_calls_total{function="f",outcome="timeout",version="1"} 1`,
		`fob_calls_throttled_total{function="f",version="1"} 1`,
		`fob_calls_in_flight 3`,
		`fob_call_queue_seconds_bucket{le="0.0001"} 1`,
		`fob_call_start_seconds_bucket{le="60"} 0`,
		`fob_call_start_seconds_bucket{le="+Inf"} 1`,
		`fob_call_run_seconds_bucket{function="f",version="2",le="0.0025"} 0`,
		`fob_call_run_seconds_bucket{function="f",version="2",le="0.005"} 1`,
		`fob_cold_starts_total{kind="pooled"} 1`,
		`fob_scaler_decisions_total{decision="start"} 4`,
		`fob_evictions_total 1`,
		`fob_pool_dry_total{lang="python"} 1`,
		`fob_engine_call_seconds_bucket{call="create",le="0.25"} 0`,
		`fob_engine_call_seconds_bucket{call="create",le="0.5"} 1`,
		`fob_engine_errors_total{call="remove"} 1`,
		`fob_sandboxes{state="idle"} 1`,
		`fob_sandboxes{state="busy"} 0`,
		`fob_sandboxes_limit 7`,
		`fob_sandbox_memory_bytes 524288`,
		`fob_sandbox_memory_limit_bytes 1.048576e+06`,
		`fob_queue_depth{function="f",version="1"} 5`,
		`fob_pool_size{lang="node"} 1`,
		`fob_pool_target{lang="node"} 2`,
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

// TestConventions has Prometheus's own linter read what is served.
func TestConventions(t *testing.T) {
	text := scrape(t, exercised())
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if bad, err := promlint.New(strings.NewReader("# TYPE fob_ms counter\nfob_ms 1\n")).Lint(); err != nil || len(bad) == 0 {
		t.Errorf("the linter finds nothing wrong with anything: %v", err)
	}
}

func TestForget(t *testing.T) {
	m := exercised()
	for _, gone := range []string{"f", "another"} {
		m.Forget(gone)
	}
	for line := range strings.Lines(scrape(t, m)) {
		if strings.Contains(line, `function="f"`) && !strings.HasPrefix(line, "fob_queue_depth") {
			t.Errorf("after it was forgotten there is still %s", line)
		}
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

// Whoever still holds a version's instruments counts nothing that stays.
func TestCountingWhatIsForgotten(t *testing.T) {
	m := NewMetrics()
	count := func(v *VersionMetrics) {
		v.Call("ok")
		v.Call("timeout")
		v.Run.Observe(1)
	}
	count(m.Version("f", 1)) // not known yet
	m.Know("f")
	held := m.Version("f", 1)
	count(held)
	m.Know("f") // changes nothing
	count(m.Version("f", 1))
	wantLines(t, scrape(t, m), `fob_calls_total{function="f",outcome="ok",version="1"} 2`,
		`fob_calls_total{function="f",outcome="timeout",version="1"} 2`, `fob_call_run_seconds_count{function="f",version="1"} 2`)
	count(m.Version("f", 2))
	m.ForgetVersion("f", 1)
	m.ForgetVersion("f", 3) // which nobody called
	count(held)
	if text := scrape(t, m); strings.Contains(text, `version="1"`) || !strings.Contains(text, `function="f",outcome="ok",version="2"`) {
		t.Errorf("of two versions one was forgotten:\n%s", text)
	}
	m.Forget("f")
	count(held)
	count(m.Version("f", 1))
	count(m.Version("f", 2))
	if text := scrape(t, m); strings.Contains(text, `function="f"`) {
		t.Errorf("it is counted again:\n%s", text)
	}
}

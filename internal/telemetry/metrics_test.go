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
	m.Know("f")
	f := m.Function("f")
	for o := range Outcome(len(outcomes)) {
		f.Call(o)
	}
	f.Call(OK)
	f.Run.Observe(.003)
	for _, outcome := range []string{"allowed", "refused_host", "refused_address", "failed"} { // as egress has them
		f.Egress(outcome)
	}
	m.Errors.WithLabelValues("timeout").Inc()
	m.InFlight.Set(3)
	m.Queue.Observe(.0001)
	m.Start.Observe(61)
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
			Functions: []Function{{"f", "hello", "node", 8}},
			Flocks:    []Flock{{"f", 2, 5, 3, 4, "queue"}},
			Pools:     map[string]Pool{"node": {Size: 1, Target: 2}},
		}
	})
	m.Stores(func() bool { return true }, func() (free, size uint64) { return 100, 1000 })
	return m
}

func TestMetrics(t *testing.T) {
	text := scrape(t, exercised())
	wantLines(t, text,
		`fob_calls_total{function="f",outcome="ok"} 2`,
		`fob_calls_total{function="f",outcome="function_error"} 1`,
		`fob_calls_total{function="f",outcome="cancelled"} 1`,
		`fob_call_errors_total{code="timeout"} 1`,
		`fob_calls_in_flight 3`,
		`fob_call_queue_seconds_bucket{le="0.0001"} 1`,
		`fob_call_start_seconds_bucket{le="60"} 0`,
		`fob_call_start_seconds_bucket{le="+Inf"} 1`,
		`fob_call_run_seconds_bucket{function="f",le="0.001"} 0`,
		`fob_call_run_seconds_bucket{function="f",le="0.003"} 1`,
		`fob_egress_requests_total{function="f",outcome="refused_host"} 1`,
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
		`fob_function_info{function="f",lang="node",name="hello"} 1`,
		`fob_function_version{function="f"} 8`,
		`fob_calls_running{function="f"} 2`,
		`fob_queue_depth{function="f"} 5`,
		`fob_scaler_sandboxes{function="f"} 3`,
		`fob_scaler_wanted_sandboxes{function="f"} 4`,
		`fob_scaler_reason{function="f",reason="queue"} 1`,
		`fob_standby 0`,
		`fob_storage_failed 1`,
		`fob_data_free_bytes 100`,
		`fob_data_size_bytes 1000`,
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

// TestSeriesOfAFunction: a function that has everything makes few series, none of them
// for a version.
func TestSeriesOfAFunction(t *testing.T) {
	text, series := scrape(t, exercised()), 0
	for line := range strings.Lines(text) {
		if strings.Contains(line, `function="f"`) {
			series++
		}
	}
	if series > maxSeries || series < maxSeries/2 {
		t.Errorf("it makes %d series, and may make %d:\n%s", series, maxSeries, text)
	}
	if strings.Contains(text, "version=") && !strings.Contains(text, "go_info{version=") {
		t.Errorf("there is a label for versions:\n%s", text)
	}
}

func TestForget(t *testing.T) {
	m := NewMetrics()
	m.Know("f")
	m.Function("f").Call(OK)
	m.Function("f").Egress("allowed")
	m.Forget("another")
	if !strings.Contains(scrape(t, m), `function="f"`) {
		t.Error("it is forgotten with another")
	}
	m.Forget("f")
	if text := scrape(t, m); strings.Contains(text, `function="f"`) {
		t.Errorf("it is not forgotten:\n%s", text)
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

// Whoever still holds a function's instruments counts nothing that stays.
func TestCountingWhatIsForgotten(t *testing.T) {
	m := NewMetrics()
	count := func(f *FunctionMetrics) {
		f.Call(OK)
		f.Call(FunctionError)
		f.Run.Observe(1)
		f.Egress("allowed")
	}
	count(m.Function("f")) // not known yet
	m.Know("f")
	held := m.Function("f")
	count(held)
	m.Know("f") // changes nothing
	count(m.Function("f"))
	wantLines(t, scrape(t, m), `fob_calls_total{function="f",outcome="ok"} 2`, `fob_calls_total{function="f",outcome="function_error"} 2`,
		`fob_call_run_seconds_count{function="f"} 2`, `fob_egress_requests_total{function="f",outcome="allowed"} 2`)
	m.Forget("f")
	count(held)
	count(m.Function("f"))
	if text := scrape(t, m); strings.Contains(text, `function="f"`) {
		t.Errorf("it is counted again:\n%s", text)
	}
	m.Know("f")
	count(m.Function("f"))
	count(held)
	wantLines(t, scrape(t, m), `fob_calls_total{function="f",outcome="ok"} 1`)
}

// TestCountingAllocatesNothing: what every call counts.
func TestCountingAllocatesNothing(t *testing.T) {
	m := NewMetrics()
	m.Know("f")
	if n := testing.AllocsPerRun(100, func() {
		f := m.Function("f")
		f.Call(OK)
		f.Run.Observe(.01)
	}); n > 0 {
		t.Errorf("it allocates %v times", n)
	}
}

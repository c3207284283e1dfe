package telemetry

import (
	"net/http"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are the metrics of one dispatcher, in base units.
type Metrics struct {
	Calls     *prometheus.CounterVec // by function, version, outcome
	Throttled *prometheus.CounterVec // by function, version
	InFlight  prometheus.Gauge
	Queue     prometheus.Histogram     // seconds
	Start     prometheus.Histogram     // seconds
	Run       *prometheus.HistogramVec // seconds, by function, version

	Egress *prometheus.CounterVec // by function, version, outcome

	ColdStarts *prometheus.CounterVec // by kind: pooled, created, resumed
	Decisions  *prometheus.CounterVec // of the scaler, in sandboxes, by decision: start, stop, pause
	Evictions  prometheus.Counter
	PoolDry    *prometheus.CounterVec // by lang

	StrayAnswers prometheus.Counter

	AuditFailures prometheus.Counter
	HistoryLost   prometheus.Counter

	EngineCalls  *prometheus.HistogramVec // seconds, by call
	EngineErrors *prometheus.CounterVec   // by call

	registry *prometheus.Registry

	mu       sync.RWMutex
	versions map[string]map[int]*VersionMetrics // by function; only of known functions
}

// Snapshot holds what is counted anew at each scrape.
type Snapshot struct {
	Sandboxes map[string]int // by state
	Memory    int64          // bytes that all sandboxes together may use
	Queues    []Queue        // of versions that have a sandbox or a waiting call
	Pools     map[string]Pool
}

// Queue is how many calls of a version wait.
type Queue struct {
	Function, Version string
	Waiting           int
}

// Pool is how many blank sandboxes a language has, and how many it should have.
type Pool struct{ Size, Target int }

// Buckets in seconds. callBuckets range from a warm call that does nothing to a long
// one, engineBuckets from inspecting a container to starting one on a busy machine.
var (
	callBuckets   = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	engineBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
)

// NewMetrics returns metrics in a registry of their own.
func NewMetrics() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), versions: make(map[string]map[int]*VersionMetrics)}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(vec)
		return vec
	}
	histograms := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		vec := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
		m.registry.MustRegister(vec)
		return vec
	}
	m.Calls = counters("fob_calls_total", "Calls by function, version and outcome (ok, an error code, or cancelled).", "function", "version", "outcome")
	m.Throttled = counters("fob_calls_throttled_total", "Calls refused because of a limit of the function's own: its queue was full, or max_concurrency is 0.", "function", "version")
	m.InFlight = prometheus.NewGauge(prometheus.GaugeOpts{Name: "fob_calls_in_flight", Help: "Calls that wait or run."})
	m.Queue = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "fob_call_queue_seconds", Help: "Time that calls waited for a slot.", Buckets: callBuckets})
	m.Start = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "fob_call_start_seconds", Help: "Time that calls waited for a sandbox to be started or loaded.", Buckets: callBuckets})
	m.Run = histograms("fob_call_run_seconds", "Time that functions took to the first byte of their answers.", callBuckets, "function", "version")

	m.Egress = counters("fob_egress_requests_total", "Requests of functions to their proxy (network=allow=…), by outcome: allowed, refused_host, refused_address or failed.", "function", "version", "outcome")

	m.ColdStarts = counters("fob_cold_starts_total", "Sandboxes that came to take calls, by where they came from: pooled, created or resumed.", "kind")
	m.Decisions = counters("fob_scaler_decisions_total", "Sandboxes that the scaler decided to start, stop or pause.", "decision")
	m.Evictions = prometheus.NewCounter(prometheus.CounterOpts{Name: "fob_evictions_total", Help: "Idle sandboxes removed to make room for others."})
	m.PoolDry = counters("fob_pool_dry_total", "Times that the pool had no blank sandbox for a version that needed one.", "lang")

	m.StrayAnswers = prometheus.NewCounter(prometheus.CounterOpts{Name: "fob_stray_answers_total", Help: "Connections to sandboxes that were closed because something else came on them than the answer to the call that was sent."})

	m.EngineCalls = histograms("fob_engine_call_seconds", "Time that the engine took, by what it was asked to do.", engineBuckets, "call")
	m.EngineErrors = counters("fob_engine_errors_total", "Failures of the engine, by what it was asked to do.", "call")
	m.AuditFailures = prometheus.NewCounter(prometheus.CounterOpts{Name: "fob_audit_failures_total", Help: "Entries that the audit log may lack because they could not be written or synced."})
	m.HistoryLost = prometheus.NewCounter(prometheus.CounterOpts{Name: "fob_history_lost_total", Help: "Calls that the history lacks because their records could not be written."})
	m.registry.MustRegister(m.AuditFailures, m.HistoryLost, m.StrayAnswers, m.InFlight, m.Queue, m.Start, m.Evictions,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Know starts to count calls of a function, until Forget.
func (m *Metrics) Know(function string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.versions[function] == nil {
		m.versions[function] = make(map[int]*VersionMetrics)
	}
}

// Forget drops everything that was counted for a deleted function. What its last calls
// count later is lost.
func (m *Metrics) Forget(function string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.versions[function] {
		v.forgotten = true
	}
	delete(m.versions, function)
	m.drop(prometheus.Labels{"function": function})
}

// ForgetVersion drops everything that was counted for one version of a function.
func (m *Metrics) ForgetVersion(function string, number int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v := m.versions[function][number]; v != nil {
		v.forgotten = true
		delete(m.versions[function], number)
	}
	m.drop(prometheus.Labels{"function": function, "version": strconv.Itoa(number)})
}

// drop deletes all series with these labels. The caller holds mu.
func (m *Metrics) drop(labels prometheus.Labels) {
	m.Calls.DeletePartialMatch(labels)
	m.Throttled.DeletePartialMatch(labels)
	m.Run.DeletePartialMatch(labels)
	m.Egress.DeletePartialMatch(labels)
}

// Watch sets the function that returns a snapshot for each scrape, and the caps on
// sandboxes and on their memory in bytes.
func (m *Metrics) Watch(maxSandboxes int, maxMemory int64, stats func() Snapshot) {
	m.registry.MustRegister(&collector{stats, maxSandboxes, maxMemory})
}

// Holds sets how many bytes of requests, answers and connections may be held, and the
// function that returns how many are.
func (m *Metrics) Holds(limit int64, used func() int64) {
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "fob_buffer_bytes", Help: "Memory that requests, answers and connections take."}, func() float64 { return float64(used()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "fob_buffer_limit_bytes", Help: "Memory that they may take (FOB_MAX_BUFFER)."}, func() float64 { return float64(limit) }))
}

// WatchLog counts the lines that the log lost.
func (m *Metrics) WatchLog(log *Output) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "fob_log_dropped_lines_total", Help: "Lines of the log that were dropped because nobody read it."},
		func() float64 { return float64(log.Dropped()) }))
}

// Handler serves the metrics in the Prometheus text format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Gatherer returns the registry, for tests that look at all metrics.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// collector turns a snapshot into metrics.
type collector struct {
	stats        func() Snapshot
	maxSandboxes int
	maxMemory    int64
}

var (
	sandboxesDesc    = prometheus.NewDesc("fob_sandboxes", "Sandboxes by state.", []string{"state"}, nil)
	maxSandboxesDesc = prometheus.NewDesc("fob_sandboxes_limit", "Sandboxes that there may be (FOB_MAX_SANDBOXES).", nil, nil)
	memoryDesc       = prometheus.NewDesc("fob_sandbox_memory_bytes", "Memory that the sandboxes may use together.", nil, nil)
	maxMemoryDesc    = prometheus.NewDesc("fob_sandbox_memory_limit_bytes", "Memory that the sandboxes may be given together (FOB_MAX_MEMORY).", nil, nil)
	queueDesc        = prometheus.NewDesc("fob_queue_depth", "Calls that wait for a slot.", []string{"function", "version"}, nil)
	poolDesc         = prometheus.NewDesc("fob_pool_size", "Blank sandboxes that are ready.", []string{"lang"}, nil)
	poolTargetDesc   = prometheus.NewDesc("fob_pool_target", "Blank sandboxes that the pool keeps.", []string{"lang"}, nil)
)

func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{sandboxesDesc, maxSandboxesDesc, memoryDesc, maxMemoryDesc, queueDesc, poolDesc, poolTargetDesc} {
		out <- desc
	}
}

func (c *collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	now := c.stats()
	for state, n := range now.Sandboxes {
		gauge(sandboxesDesc, float64(n), state)
	}
	gauge(maxSandboxesDesc, float64(c.maxSandboxes))
	gauge(memoryDesc, float64(now.Memory))
	gauge(maxMemoryDesc, float64(c.maxMemory))
	for _, q := range now.Queues {
		gauge(queueDesc, float64(q.Waiting), q.Function, q.Version)
	}
	for lang, pool := range now.Pools {
		gauge(poolDesc, float64(pool.Size), lang)
		gauge(poolTargetDesc, float64(pool.Target), lang)
	}
}

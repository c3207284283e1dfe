package telemetry

import (
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are the metrics of one dispatcher, in base units. One function has at most
// maxSeries series.
type Metrics struct {
	Calls    *prometheus.CounterVec // by function, outcome
	Errors   *prometheus.CounterVec // by code
	InFlight prometheus.Gauge
	Queue    prometheus.Histogram     // seconds
	Start    prometheus.Histogram     // seconds
	Run      *prometheus.HistogramVec // seconds, by function

	Egress *prometheus.CounterVec // by function, outcome

	ColdStarts *prometheus.CounterVec // by kind: pooled, created, resumed
	Decisions  *prometheus.CounterVec // of the scaler, in sandboxes, by decision: start, stop, pause
	Evictions  prometheus.Counter
	PoolDry    *prometheus.CounterVec // by lang

	StrayAnswers prometheus.Counter

	AuditFailures prometheus.Counter
	HistoryLost   prometheus.Counter
	LogsLost      prometheus.Counter

	Standby prometheus.Gauge // 1 on standby, else 0

	EngineCalls  *prometheus.HistogramVec // seconds, by call
	EngineErrors *prometheus.CounterVec   // by call

	registry *prometheus.Registry

	mu        sync.RWMutex
	functions map[string]*FunctionMetrics // by ID; only of known functions, nil for those without a call
	nobody    *FunctionMetrics            // of all functions that are not known
}

// maxSeries bounds how many series one function may make. A test holds it.
const maxSeries = 30

// Buckets in seconds. callBuckets range from a warm call that does nothing to a long
// one, engineBuckets from inspecting a container to starting one on a busy machine.
// functionBuckets are coarser, because every function has them.
var (
	functionBuckets = []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10, 30}

	callBuckets   = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	engineBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
)

// NewMetrics returns metrics in a registry of their own.
func NewMetrics() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), functions: make(map[string]*FunctionMetrics)}
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
	m.Calls = counters("fob_calls_total", "Calls, by how they ended: ok, caller_error, function_error, platform_error, throttled or cancelled.", "function", "outcome")
	m.Errors = counters("fob_call_errors_total", "Calls that failed, by the error's code.", "code")
	m.InFlight = prometheus.NewGauge(prometheus.GaugeOpts{Name: "fob_calls_in_flight", Help: "Calls that wait or run."})
	m.Queue = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "fob_call_queue_seconds", Help: "Time that calls waited for a slot.", Buckets: callBuckets})
	m.Start = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "fob_call_start_seconds", Help: "Time that calls waited for a sandbox to be started or loaded.", Buckets: callBuckets})
	m.Run = histograms("fob_call_run_seconds", "Time that functions took to the first byte of their answers.", functionBuckets, "function")

	m.Egress = counters("fob_egress_requests_total", "Requests of functions to their proxy (network=allow=…), by outcome: allowed, refused_host, refused_address or failed.", "function", "outcome")

	m.ColdStarts = counters("fob_cold_starts_total", "Sandboxes that came to take calls, by where they came from: pooled, created or resumed.", "kind")
	m.Decisions = counters("fob_scaler_decisions_total", "Sandboxes that the scaler decided to start, stop or pause.", "decision")
	m.Evictions = prometheus.NewCounter(prometheus.CounterOpts{Name: "fob_evictions_total", Help: "Idle sandboxes removed to make room for others."})
	m.PoolDry = counters("fob_pool_dry_total", "Times that the pool had no blank sandbox for a version that needed one.", "lang")

	m.StrayAnswers = prometheus.NewCounter(prometheus.CounterOpts{Name: "fob_stray_answers_total", Help: "Connections to sandboxes that were closed because something else came on them than the answer to the call that was sent."})

	m.EngineCalls = histograms("fob_engine_call_seconds", "Time that the engine took, by what it was asked to do.", engineBuckets, "call")
	m.EngineErrors = counters("fob_engine_errors_total", "Failures of the engine, by what it was asked to do.", "call")
	m.AuditFailures = prometheus.NewCounter(prometheus.CounterOpts{Name: "fob_audit_failures_total", Help: "Entries that the audit log may lack because they could not be written or synced."})
	m.HistoryLost = prometheus.NewCounter(prometheus.CounterOpts{Name: "fob_history_lost_total", Help: "Calls that the history lacks because their records could not be written."})
	m.Standby = prometheus.NewGauge(prometheus.GaugeOpts{Name: "fob_standby", Help: "1 while this dispatcher waits as a standby, else 0."})
	m.LogsLost = prometheus.NewCounter(prometheus.CounterOpts{Name: "fob_logs_lost_total", Help: "Lines that the functions' logs lack because they could not be written."})
	m.registry.MustRegister(m.AuditFailures, m.HistoryLost, m.LogsLost, m.Standby, m.StrayAnswers, m.InFlight, m.Queue, m.Start, m.Evictions,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, kind := range []string{"pooled", "created", "resumed"} {
		m.ColdStarts.WithLabelValues(kind) // from 0 on, so that the first one shows as an increase
	}
	m.nobody = &FunctionMetrics{Run: prometheus.NewHistogram(prometheus.HistogramOpts{}), m: m, forgotten: true}
	for o := range m.nobody.calls {
		m.nobody.calls[o] = prometheus.NewCounter(prometheus.CounterOpts{})
	}
	return m
}

// Holds sets how many bytes of requests, answers and connections may be held, and the
// function that returns how many are.
func (m *Metrics) Holds(limit int64, used func() int64) {
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "fob_buffer_bytes", Help: "Memory that requests, answers and connections take."}, func() float64 { return float64(used()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "fob_buffer_limit_bytes", Help: "Memory that they may take (FOB_MAX_BUFFER)."}, func() float64 { return float64(limit) }))
}

// Stores sets the functions that tell how the data folder is: whether the database has
// failed, and how many bytes its file system has, free for us and in all.
func (m *Metrics) Stores(broken func() bool, space func() (free, size uint64)) {
	m.registry.MustRegister(&storage{broken, space})
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

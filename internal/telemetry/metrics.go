package telemetry

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are the instruments of one dispatcher, in base units.
type Metrics struct {
	Calls      *prometheus.CounterVec // function, version, outcome
	Throttled  *prometheus.CounterVec // function, version
	ColdStarts *prometheus.CounterVec // kind: pooled, created
	InFlight   prometheus.Gauge
	Queue      prometheus.Histogram     // seconds
	Start      prometheus.Histogram     // seconds
	Run        *prometheus.HistogramVec // seconds; function, version

	registry *prometheus.Registry
}

// buckets reach from a warm no-op call to a long one, in seconds.
var buckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

// NewMetrics makes the instruments in a registry of their own.
func NewMetrics() *Metrics {
	m := &Metrics{
		Calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fob_calls_total", Help: "Calls by function, version and outcome (ok or an error code)."}, []string{"function", "version", "outcome"}),
		Throttled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fob_calls_throttled_total", Help: "Calls refused because a function's queue was full."}, []string{"function", "version"}),
		ColdStarts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fob_cold_starts_total", Help: "Versions loaded into a sandbox, by where it came from: pooled or created."}, []string{"kind"}),
		InFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "fob_calls_in_flight", Help: "Calls that wait or run."}),
		Queue: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fob_call_queue_seconds", Help: "Time that calls waited for a slot.", Buckets: buckets}),
		Start: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fob_call_start_seconds", Help: "Time that calls waited for a sandbox to be started or loaded.", Buckets: buckets}),
		Run: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "fob_call_run_seconds", Help: "Time that functions took.", Buckets: buckets}, []string{"function", "version"}),
		registry: prometheus.NewRegistry(),
	}
	m.registry.MustRegister(m.Calls, m.Throttled, m.ColdStarts, m.InFlight, m.Queue, m.Start, m.Run,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Forget drops what was counted under a function that is no more.
func (m *Metrics) Forget(function string) {
	labels := prometheus.Labels{"function": function}
	m.Calls.DeletePartialMatch(labels)
	m.Throttled.DeletePartialMatch(labels)
	m.Run.DeletePartialMatch(labels)
}

// CountSandboxes has stats asked for the number of sandboxes by state at each
// scrape.
func (m *Metrics) CountSandboxes(stats func() map[string]int) {
	m.registry.MustRegister(&sandboxCollector{
		desc:  prometheus.NewDesc("fob_sandboxes", "Sandboxes by state.", []string{"state"}, nil),
		stats: stats,
	})
}

// Handler serves the metrics in the Prometheus text format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

type sandboxCollector struct {
	desc  *prometheus.Desc
	stats func() map[string]int
}

func (c *sandboxCollector) Describe(out chan<- *prometheus.Desc) { out <- c.desc }

func (c *sandboxCollector) Collect(out chan<- prometheus.Metric) {
	for state, n := range c.stats() {
		out <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(n), state)
	}
}

package telemetry

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// VersionMetrics are the instruments of one version's calls. They are looked up
// once and kept, for finding them by their labels costs more than counting.
type VersionMetrics struct {
	Run prometheus.Observer // seconds

	ok    prometheus.Counter
	calls *prometheus.CounterVec // outcome

	egress *prometheus.CounterVec // outcome

	m         *Metrics // whose mu guards what follows
	forgotten bool     // together with its function
}

// Call counts a call by its outcome: ok or an error code.
func (v *VersionMetrics) Call(outcome string) {
	if outcome == "ok" {
		v.ok.Inc()
		return
	}
	v.m.mu.RLock()
	defer v.m.mu.RUnlock()
	if !v.forgotten { // or it would be counted under a new label
		v.calls.WithLabelValues(outcome).Inc()
	}
}

// Egress counts a request to the proxy of one of its sandboxes, by its outcome.
func (v *VersionMetrics) Egress(outcome string) {
	v.m.mu.RLock()
	defer v.m.mu.RUnlock()
	if !v.forgotten {
		v.egress.WithLabelValues(outcome).Inc()
	}
}

// Version returns the instruments of a function's version. Those of a function
// that is not known, or no more, count for nobody.
func (m *Metrics) Version(function string, number int) *VersionMetrics {
	m.mu.RLock()
	v := m.versions[function][number]
	m.mu.RUnlock()
	if v != nil {
		return v
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if v := m.versions[function][number]; v != nil {
		return v
	}
	if m.versions[function] == nil {
		return &VersionMetrics{Run: noObserver{}, ok: prometheus.NewCounter(prometheus.CounterOpts{}), m: m, forgotten: true}
	}
	labels := prometheus.Labels{"function": function, "version": strconv.Itoa(number)}
	v = &VersionMetrics{Run: m.Run.With(labels), calls: m.Calls.MustCurryWith(labels), egress: m.Egress.MustCurryWith(labels), m: m}
	v.ok = v.calls.WithLabelValues("ok")
	m.versions[function][number] = v
	return v
}

// noObserver observes nothing.
type noObserver struct{}

func (noObserver) Observe(float64) {}

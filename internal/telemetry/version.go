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
}

// Call counts a call by its outcome: ok or an error code.
func (v *VersionMetrics) Call(outcome string) {
	if outcome == "ok" {
		v.ok.Inc()
		return
	}
	v.calls.WithLabelValues(outcome).Inc()
}

// Version returns the instruments of a function's version.
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
		m.versions[function] = make(map[int]*VersionMetrics)
	}
	labels := prometheus.Labels{"function": function, "version": strconv.Itoa(number)}
	v = &VersionMetrics{Run: m.Run.With(labels), calls: m.Calls.MustCurryWith(labels)}
	v.ok = v.calls.WithLabelValues("ok")
	m.versions[function][number] = v
	return v
}

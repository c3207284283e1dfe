package telemetry

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// VersionMetrics are the metrics of one version's calls. They are looked up once and
// kept, because looking them up by labels costs more than counting.
type VersionMetrics struct {
	Run prometheus.Observer // seconds

	ok    prometheus.Counter
	calls *prometheus.CounterVec // by outcome

	egress *prometheus.CounterVec // by outcome

	m         *Metrics // its mu guards forgotten
	forgotten bool     // by Forget or ForgetVersion
}

// Call counts a call by its outcome: ok or an error code.
func (v *VersionMetrics) Call(outcome string) {
	if outcome == "ok" {
		v.ok.Inc()
		return
	}
	v.m.mu.RLock()
	defer v.m.mu.RUnlock()
	if !v.forgotten { // otherwise it would create a new series
		v.calls.WithLabelValues(outcome).Inc()
	}
}

// Egress counts a request to the proxy of one of the version's sandboxes, by its
// outcome.
func (v *VersionMetrics) Egress(outcome string) {
	v.m.mu.RLock()
	defer v.m.mu.RUnlock()
	if !v.forgotten {
		v.egress.WithLabelValues(outcome).Inc()
	}
}

// Version returns the metrics of a function's version. For a function that is not
// known, or no longer known, they count nothing.
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

package telemetry

import "github.com/prometheus/client_golang/prometheus"

// Outcome is how a call ended, as far as the metrics of its function tell. The metrics
// of one function must stay few, so they say whose fault a failure is and not which.
type Outcome int

// The outcomes of calls.
const (
	OK            Outcome = iota
	CallerError           // the caller asked for what cannot be: a status below 500
	FunctionError         // the fault of the function's code or settings
	PlatformError         // anything else
	Throttled             // refused because of the function's own limits
	Cancelled             // the caller went away
)

// outcomes are the outcomes' names.
var outcomes = [...]string{"ok", "caller_error", "function_error", "platform_error", "throttled", "cancelled"}

// String implements fmt.Stringer.
func (o Outcome) String() string { return outcomes[o] }

// FunctionMetrics are the metrics of one function's calls. Their series are looked up
// once and kept, because looking them up by labels costs more than counting.
type FunctionMetrics struct {
	Run prometheus.Observer // seconds

	calls  [len(outcomes)]prometheus.Counter
	egress *prometheus.CounterVec // by outcome

	m         *Metrics // its mu guards forgotten
	forgotten bool
}

// Call counts a call.
func (f *FunctionMetrics) Call(outcome Outcome) { f.calls[outcome].Inc() }

// Egress counts a request to the proxy of one of the function's sandboxes, by its
// outcome.
func (f *FunctionMetrics) Egress(outcome string) {
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	if !f.forgotten { // otherwise it would create a new series
		f.egress.WithLabelValues(outcome).Inc()
	}
}

// Know starts to count calls of a function, until Forget.
func (m *Metrics) Know(function string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.functions[function]; !known {
		m.functions[function] = nil
	}
}

// Forget drops everything that was counted for a deleted function. What its last calls
// count later is lost.
func (m *Metrics) Forget(function string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.functions[function]; f != nil {
		f.forgotten = true
	}
	delete(m.functions, function)
	labels := prometheus.Labels{"function": function}
	m.Calls.DeletePartialMatch(labels)
	m.Run.DeletePartialMatch(labels)
	m.Egress.DeletePartialMatch(labels)
}

// Function returns the metrics of a function. For one that is not known, or no longer
// known, they count nothing that is shown.
func (m *Metrics) Function(id string) *FunctionMetrics {
	m.mu.RLock()
	f := m.functions[id]
	m.mu.RUnlock()
	if f != nil {
		return f
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f, known := m.functions[id]
	if !known {
		return m.nobody
	}
	if f == nil {
		f = m.newFunction(id)
		m.functions[id] = f
	}
	return f
}

// newFunction makes the series of a function.
func (m *Metrics) newFunction(id string) *FunctionMetrics {
	labels := prometheus.Labels{"function": id}
	f := &FunctionMetrics{Run: m.Run.With(labels), egress: m.Egress.MustCurryWith(labels), m: m}
	calls := m.Calls.MustCurryWith(labels)
	for o, name := range outcomes {
		f.calls[o] = calls.WithLabelValues(name)
	}
	return f
}

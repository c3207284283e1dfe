package dispatch

import (
	"context"
	"strconv"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/telemetry"
)

// Observe wraps an Invoker: it counts and times every call, and logs a line of
// it at debug level.
func Observe(next faas.Invoker, metrics *telemetry.Metrics, log zerolog.Logger) faas.Invoker {
	return &observer{next, metrics, log}
}

type observer struct {
	next    faas.Invoker
	metrics *telemetry.Metrics
	log     zerolog.Logger
}

// Invoke implements faas.Invoker.
func (o *observer) Invoke(ctx context.Context, call *faas.Call) (*faas.Result, error) {
	o.metrics.InFlight.Inc()
	result, err := o.next.Invoke(ctx, call)
	o.metrics.InFlight.Dec()
	outcome := "ok"
	if err != nil {
		outcome = string(faas.CodeOf(err))
	}
	trace := &call.Trace
	// Calls of functions that do not exist have no label to be counted under.
	if trace.Version != nil {
		labels := versionLabels(trace.Version)
		o.metrics.Calls.WithLabelValues(labels[0], labels[1], outcome).Inc()
		o.metrics.Queue.Observe(trace.Timing.Queue.Seconds())
		o.metrics.Start.Observe(trace.Timing.Start.Seconds())
		o.metrics.Run.WithLabelValues(labels...).Observe(trace.Timing.Run.Seconds())
	}
	if event := o.log.Debug(); event.Enabled() {
		event.Str("call", call.ID).Stringer("ref", call.Ref).Str("outcome", outcome)
		if trace.Version != nil {
			event.Str("function", trace.Version.FunctionID).Int("version", trace.Version.Number)
		}
		if result != nil {
			event.Int("status", result.Status)
		}
		event.Dur("queue", trace.Timing.Queue).Dur("start", trace.Timing.Start).Dur("run", trace.Timing.Run).AnErr("error", err).Msg("call")
	}
	return result, err
}

// versionLabels are the metric labels function and version. The label is the
// ID, which stays the same however the function is called.
func versionLabels(v *faas.Version) []string {
	return []string{v.FunctionID, strconv.Itoa(v.Number)}
}

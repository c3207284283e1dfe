package observe

import (
	"context"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/telemetry"
)

// Metrics returns middleware that counts and times every call. A call counts as in
// flight until it has ended. Those that fail it also hands to failures, which may be nil:
// a layer of its own would cost each stream an allocation.
func Metrics(metrics *telemetry.Metrics, failures *Failures) faas.Middleware {
	return func(next faas.Invoker) faas.Invoker { return &counter{next, metrics, failures} }
}

// counter is an Invoker that counts the calls that it passes on.
type counter struct {
	next     faas.Invoker
	metrics  *telemetry.Metrics
	failures *Failures
}

// Invoke implements faas.Invoker.
func (c *counter) Invoke(ctx context.Context, call *faas.Invocation, body faas.LiveBody) (faas.Result, error) {
	c.metrics.InFlight.Inc()
	result, err := c.next.Invoke(ctx, call, body)
	if over(result, err) {
		c.count(call, result.Version, result.Timing, err)
		return result, err
	}
	version, timing := result.Version, result.Timing
	return whenOver(result, func(err error) { c.count(call, version, timing, err) }), nil
}

// count counts a call that has ended.
func (c *counter) count(call *faas.Invocation, v *faas.Version, timing faas.Timing, err error) {
	c.metrics.InFlight.Dec()
	outcome := telemetry.OK
	if err != nil {
		outcome = failed(err)
		if outcome != telemetry.Cancelled {
			c.metrics.Errors.WithLabelValues(string(faas.CodeOf(err))).Inc()
			c.failures.failed(call, v, err)
		}
	}
	if v == nil {
		return // it belongs to no function
	}
	function := c.metrics.Function(v.FunctionID)
	function.Call(outcome)
	function.Run.Observe(timing.Run.Seconds())
	c.metrics.Queue.Observe(timing.Queue.Seconds())
	c.metrics.Start.Observe(timing.Start.Seconds())
}

// failed returns the outcome of a call that failed: whose fault it is.
func failed(err error) telemetry.Outcome {
	if Outcome(err) == cancelled {
		return telemetry.Cancelled
	}
	switch info := faas.CodeOf(err).Info(); {
	case info.Code == faas.CodeOverLimit:
		return telemetry.Throttled
	case info.Status < 500:
		return telemetry.CallerError
	case info.Fault == faas.FaultFunction:
		return telemetry.FunctionError
	}
	return telemetry.PlatformError
}

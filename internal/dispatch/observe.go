package dispatch

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/telemetry"
)

// Observe wraps an Invoker: it counts and times every call, and logs a line of
// it at debug level. An answer that streams is counted at its end, and is in
// flight until then.
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
	if err == nil && result.Length < 0 {
		result.Body = &observed{ReadCloser: result.Body, ended: func(err error) { o.count(call, result, err) }}
	} else {
		o.count(call, result, err)
	}
	return result, err
}

// outcomeOf is how metrics and the log call the way that a call ended: ok, an error
// code, or cancelled when its caller went away before its turn or its end.
func outcomeOf(err error) string {
	if err == nil {
		return "ok"
	}
	if _, ours := errors.AsType[*faas.Error](err); !ours && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return "cancelled"
	}
	return string(faas.CodeOf(err))
}

// count counts and logs a call that has ended.
func (o *observer) count(call *faas.Call, result *faas.Result, err error) {
	o.metrics.InFlight.Dec()
	trace := &call.Trace
	// Calls of functions that do not exist have no label to be counted under.
	if trace.Version != nil {
		version := o.metrics.Version(trace.Version.FunctionID, trace.Version.Number)
		version.Call(outcomeOf(err))
		version.Run.Observe(trace.Timing.Run.Seconds())
		o.metrics.Queue.Observe(trace.Timing.Queue.Seconds())
		o.metrics.Start.Observe(trace.Timing.Start.Seconds())
	}
	if event := o.log.Debug(); event.Enabled() {
		event.Str("call", call.ID).Stringer("ref", call.Ref).Str("outcome", outcomeOf(err))
		if trace.Version != nil {
			event.Str("function", trace.Version.FunctionID).Int("version", trace.Version.Number)
		}
		if result != nil {
			event.Int("status", result.Status)
		}
		event.Dur("queue", trace.Timing.Queue).Dur("start", trace.Timing.Start).Dur("run", trace.Timing.Run).AnErr("error", err).Msg("call")
	}
}

// observed is the body of an answer that streams. It says once how it ended.
type observed struct {
	io.ReadCloser
	once  sync.Once
	ended func(err error)
}

// Read implements io.Reader.
func (b *observed) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch err {
	case nil:
	case io.EOF:
		b.once.Do(func() { b.ended(nil) })
	default:
		b.once.Do(func() { b.ended(err) })
	}
	return n, err
}

// Close implements io.Closer.
func (b *observed) Close() error {
	b.once.Do(func() { b.ended(context.Canceled) })
	return b.ReadCloser.Close()
}

// versionLabels are the metric labels function and version. The label is the
// ID, which stays the same however the function is called.
func versionLabels(v *faas.Version) []string {
	return []string{v.FunctionID, strconv.Itoa(v.Number)}
}

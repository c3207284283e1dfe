// Package trace sends what became of calls to an OpenTelemetry collector, as spans. The
// standard OTEL_ variables configure it.
package trace

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/flockofbirds/fob/internal/faas"
)

// Config is what a Traces needs besides the environment.
type Config struct {
	Version string // of this program

	// Function returns the name of a function, or "".
	Function func(id string) string

	// Failed hears how many spans were lost since it was last told, and why, at most
	// once a minute.
	Failed func(spans int, err error)
}

// maxPhases is how many spans a call has at most: its own, queue, start, load and run.
const maxPhases = 5

// Traces sends calls to a collector. It implements faas.Traces.
type Traces struct {
	function func(id string) string
	sampler  sdk.Sampler
	sender   *sender
	provider *sdk.TracerProvider
	tracer   oteltrace.Tracer
}

// Open returns nil if the environment does not ask for traces. Otherwise the caller must
// call Close. It needs no collector: what cannot be sent is lost, and told of.
func Open(ctx context.Context, cfg Config) (*Traces, error) {
	env, err := readEnvironment()
	if err != nil || env == nil {
		return nil, err
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("opening the way to the collector: %w", err)
	}
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(semconv.ServiceName("fob"), semconv.ServiceVersion(cfg.Version)), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	s := &sender{SpanExporter: exporter, room: int64(env.queue), failed: cfg.Failed}
	provider := sdk.NewTracerProvider(
		sdk.WithBatcher(s, sdk.WithMaxQueueSize(env.queue), sdk.WithMaxExportBatchSize(env.batch)),
		sdk.WithSampler(sdk.AlwaysSample()), // Sample has decided by then
		sdk.WithIDGenerator(generator{}),
		sdk.WithResource(about),
	)
	return &Traces{
		function: cfg.Function, sampler: env.sampler, sender: s, provider: provider,
		tracer: provider.Tracer("github.com/flockofbirds/fob", oteltrace.WithInstrumentationVersion(cfg.Version)),
	}, nil
}

// Close sends what waits, until ctx ends.
func (t *Traces) Close(ctx context.Context) {
	sent := make(chan struct{})
	go func() {
		t.provider.Shutdown(context.Background())
		close(sent)
	}()
	select {
	case <-sent:
	case <-ctx.Done():
		t.sender.SpanExporter.Shutdown(context.Background()) // what is being sent, and is still to be, fails at once
		<-sent
	}
	t.sender.tell(errClosed)
}

// Sample implements faas.Traces.
func (t *Traces) Sample(call *faas.Invocation) bool {
	trace, _ := call.Trace()
	id, err := oteltrace.TraceIDFromHex(trace)
	if err != nil {
		return false
	}
	var flags oteltrace.TraceFlags
	ctx := withParent(context.Background(), id, call.ParentSpan, call.TraceState, flags.WithSampled(call.Sampled()))
	return t.sampler.ShouldSample(sdk.SamplingParameters{ParentContext: ctx, TraceID: id, Name: call.Ref.Name, Kind: oteltrace.SpanKindServer}).Decision == sdk.RecordAndSample
}

// withParent returns a context with the span of another program that made a call, if
// there is one.
func withParent(ctx context.Context, trace oteltrace.TraceID, parent, state string, flags oteltrace.TraceFlags) context.Context {
	span, err := oteltrace.SpanIDFromHex(parent)
	if err != nil {
		return ctx
	}
	states, err := oteltrace.ParseTraceState(state)
	if err != nil {
		states = oteltrace.TraceState{} // it is not valid, and only passed on
	}
	return oteltrace.ContextWithRemoteSpanContext(ctx, oteltrace.NewSpanContext(oteltrace.SpanContextConfig{
		TraceID: trace, SpanID: span, TraceFlags: flags, TraceState: states, Remote: true,
	}))
}

// Record implements faas.Traces.
func (t *Traces) Record(call faas.CallRecord, state string, answered time.Time) {
	trace, err := oteltrace.TraceIDFromHex(call.Trace)
	if err != nil {
		return
	}
	span, err := oteltrace.SpanIDFromHex(call.Span)
	if err != nil || !t.sender.admits(maxPhases) {
		return
	}
	call.Bound() // it waits for a while
	call.Own()
	if call.Name == "" && call.Function != "" {
		call.Name = t.function(call.Function)
	}
	ctx := withIDs(context.Background(), trace, span)
	ctx = withParent(ctx, trace, call.Parent, state, oteltrace.FlagsSampled)
	ended := call.Started.Add(duration(call.Timing.Total))
	ctx, whole := t.tracer.Start(ctx, nameOf(&call), oteltrace.WithSpanKind(oteltrace.SpanKindServer),
		oteltrace.WithTimestamp(call.Started), oteltrace.WithAttributes(attributes(&call)...))
	describe(whole, &call, ended)
	parts := phases(&call, answered)
	for _, p := range parts {
		_, part := t.tracer.Start(ctx, p.name, oteltrace.WithTimestamp(p.from), oteltrace.WithAttributes(semconv.FaaSInvocationID(call.ID)))
		part.End(oteltrace.WithTimestamp(p.to))
	}
	whole.End(oteltrace.WithTimestamp(ended))
	t.sender.waiting.Add(int64(len(parts) + 1 - maxPhases))
}

// phase is a part of a call's time.
type phase struct {
	name     string
	from, to time.Time
}

// phases returns the parts of a call's time that took any. They lie before the moment at
// which its answer began, one after the other.
func phases(call *faas.CallRecord, answered time.Time) (all []phase) {
	to, t := answered, call.Timing
	for _, p := range [...]struct {
		name string
		ms   float64
	}{{"run", t.Run}, {"load", t.Load}, {"start", t.Start - t.Load}, {"queue", t.Queue}} {
		from := to.Add(-duration(p.ms))
		if from.Before(call.Started) {
			from = call.Started
		}
		if from.Before(to) {
			all = append(all, phase{p.name, from, to})
			to = from
		}
	}
	return all
}

func duration(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// generator is an sdk.IDGenerator that gives a call's span the IDs that the call has
// already, and the spans below it random ones.
type generator struct{}

// idsKey is where a context has the *ids of a call.
type idsKey struct{}

// ids are the IDs of a call's trace and span.
type ids struct {
	trace oteltrace.TraceID
	span  oteltrace.SpanID
	used  bool // the span has its ID
}

func withIDs(ctx context.Context, trace oteltrace.TraceID, span oteltrace.SpanID) context.Context {
	return context.WithValue(ctx, idsKey{}, &ids{trace: trace, span: span})
}

// NewIDs implements sdk.IDGenerator.
func (g generator) NewIDs(ctx context.Context) (oteltrace.TraceID, oteltrace.SpanID) {
	trace := ctx.Value(idsKey{}).(*ids).trace // only Record begins traces
	return trace, g.NewSpanID(ctx, trace)
}

// NewSpanID implements sdk.IDGenerator.
func (generator) NewSpanID(ctx context.Context, _ oteltrace.TraceID) oteltrace.SpanID {
	if given := ctx.Value(idsKey{}).(*ids); !given.used {
		given.used = true
		return given.span
	}
	return randomSpan()
}

var _ faas.Traces = (*Traces)(nil)

package observe

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// Records returns middleware that leaves a record of every call of a function in the
// history, and of every call whose trace is collected in the traces. Either may be nil.
// Calls of functions that do not exist leave none in the history, or strangers could fill
// it with them.
func Records(history faas.History, traces faas.Traces) faas.Middleware {
	return func(next faas.Invoker) faas.Invoker {
		if history == nil && traces == nil {
			return next
		}
		return &recorder{next, history, traces}
	}
}

// recorder is an Invoker that records the calls that it passes on.
type recorder struct {
	next    faas.Invoker
	history faas.History
	traces  faas.Traces
}

// Invoke implements faas.Invoker.
func (r *recorder) Invoke(ctx context.Context, call *faas.Invocation, body faas.LiveBody) (faas.Result, error) {
	begun := time.Now()
	var in *received
	if body != nil {
		in = &received{LiveBody: body}
		body = in
	}
	result, err := r.next.Invoke(ctx, call, body)
	if over(result, err) {
		r.record(call, in, begun, time.Time{}, result, max(result.Length, 0), err)
		return result, err
	}
	answer, answered, out := result, time.Now(), new(atomic.Int64)
	result.Body = &counted{result.Body, out}
	return whenOver(result, func(err error) {
		if err == context.Canceled { // it may still be read, and so tell its usage
			answer.Usage = nil
		}
		r.record(call, in, begun, answered, answer, out.Load(), err)
	}), nil
}

// record records a call that is over. answered is when its answer began, or zero if that
// was just now.
func (r *recorder) record(call *faas.Invocation, in *received, begun, answered time.Time, result faas.Result, bytesOut int64, err error) {
	v := result.Version
	kept, traced := r.history != nil && v != nil, r.traces != nil && call.Sampled()
	if !kept && !traced {
		return
	}
	if v == nil {
		v = &faas.Version{}
	}
	bytesIn := int64(len(call.Body))
	if in != nil {
		bytesIn = in.bytes.Load()
	}
	path, _, _ := strings.Cut(call.Target, "?")
	trace, span := call.Trace()
	now := time.Now()
	record := faas.CallRecord{
		ID: call.ID, Function: v.FunctionID, Name: call.Ref.Name, Version: v.Number, Alias: call.Ref.Alias,
		State: faas.CallDone, Outcome: Outcome(err), Started: begun.UTC().Truncate(time.Microsecond), Cold: result.Timing.Start > 0,
		Timing: faas.CallTiming{
			Queue: millis(result.Timing.Queue), Start: millis(result.Timing.Start), Load: millis(result.Timing.Load), Run: millis(result.Timing.Run), Total: millis(now.Sub(begun)),
		},
		Status: result.Status, Method: call.Method, Path: path, BytesIn: bytesIn, BytesOut: bytesOut,
		Caller: call.Who.String(), Address: call.From, Trace: trace, Span: span, Parent: call.ParentSpan, Sandbox: result.Sandbox,
		Usage: usage(result.Usage), Error: why(err),
	}
	if kept {
		r.history.Record(record)
	}
	if traced {
		if answered.IsZero() {
			answered = now
		}
		r.traces.Record(record, call.TraceState, answered)
	}
}

// usage returns what a record says of what the call cost.
func usage(u *faas.Usage) faas.CallUsage {
	if u == nil {
		return faas.CallUsage{}
	}
	return faas.CallUsage{CPU: millis(u.CPU), Memory: u.Memory, Shared: u.Shared}
}

// millis returns a duration in milliseconds with three decimals.
func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// why returns what a record says of an error, or nil without one.
func why(err error) *faas.CallError {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*faas.Error](err)
	if !ok {
		return &faas.CallError{Message: err.Error()}
	}
	if raised := e.Raised; raised != nil {
		return &faas.CallError{Type: raised.Type, Message: raised.Message, Line: raised.Line, Traceback: raised.Traceback}
	}
	return &faas.CallError{Message: e.Message}
}

// received is a LiveBody that counts what is read of it.
type received struct {
	faas.LiveBody
	bytes atomic.Int64
}

// Receive implements faas.LiveBody.
func (b *received) Receive() (body []byte, rest io.ReadCloser, err error) {
	body, rest, err = b.LiveBody.Receive()
	b.bytes.Add(int64(len(body)))
	if rest != nil {
		rest = &counted{rest, &b.bytes}
	}
	return body, rest, err
}

// counted counts what is read.
type counted struct {
	io.ReadCloser
	bytes *atomic.Int64
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

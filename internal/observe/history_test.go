package observe

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// kept is a history that keeps records in memory.
type kept struct {
	faas.History
	calls []faas.CallRecord
}

func (k *kept) Record(call faas.CallRecord) { k.calls = append(k.calls, call) }

// sends is a body that its caller still has: its beginning, and a rest.
type sends struct {
	begin   string
	rest    io.ReadCloser
	err     error
	dropped int
}

func (s *sends) Receive() ([]byte, io.ReadCloser, error) { return []byte(s.begin), s.rest, s.err }
func (s *sends) Drop()                                   { s.dropped++ }

// receives is an Invoker that reads the whole body before it answers.
type receives struct{ answers }

func (r receives) Invoke(ctx context.Context, call *faas.Invocation, body faas.LiveBody) (faas.Result, error) {
	if body != nil {
		_, rest, _ := body.Receive()
		if rest != nil {
			io.Copy(io.Discard, rest)
			rest.Close()
		}
		body.Drop()
	}
	return r.answers.Invoke(ctx, call, body)
}

// TestRecordOfACall: a record has what is known of the call, when the call is over.
func TestRecordOfACall(t *testing.T) {
	version := &faas.Version{FunctionID: "f", Number: 2}
	timing := faas.Timing{Queue: time.Second, Start: 2500 * time.Microsecond, Load: 2 * time.Millisecond, Run: time.Millisecond}
	call := &faas.Invocation{
		ID: "c1", Ref: faas.Ref{Name: "hello", Alias: "live"}, Who: faas.Caller{Kind: faas.CallerToken, Token: &faas.Token{ID: "0a", Name: "ann"}}, From: "192.0.2.1:5",
		Body: []byte("12345"), Method: "PUT", Target: "/api/call/hello/x?secret=1", TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", ParentSpan: "b7ad6b7169203331",
	}
	base := faas.CallRecord{
		ID: "c1", Function: "f", Name: "hello", Version: 2, Alias: "live", State: faas.CallDone, Outcome: "ok", Cold: true,
		Timing: faas.CallTiming{Queue: 1000, Start: 2.5, Load: 2, Run: 1}, Status: 201, Method: "PUT", Path: "/api/call/hello/x", BytesIn: 5, BytesOut: 3,
		Caller: "token 0a (ann)", Address: "192.0.2.1:5", Trace: "4bf92f3577b34da6a3ce929d0e0e4736", Span: "00f067aa0ba902b7", Parent: "b7ad6b7169203331", Sandbox: "5b",
	}
	text := func(s string) io.ReadCloser { return io.NopCloser(strings.NewReader(s)) }
	result := faas.Result{Version: version, Timing: timing, Sandbox: "5b", Status: 201, Body: text("abc"), Length: 3}
	streams := result
	streams.Length = -1
	none := faas.Result{Version: version, Timing: timing, Sandbox: "5b"}
	raised := &faas.Error{Code: faas.CodeRaised, Message: "the function raised KeyError: x", Raised: &faas.Raised{Type: "KeyError", Message: "x", Line: 3, Traceback: "T"}}
	for name, test := range map[string]struct {
		answers
		body   *sends
		read   int // bytes of a streaming answer, before it is closed
		change func(*faas.CallRecord)
	}{
		"whole":      {answers: answers{result, nil}},
		"a body":     {answers: answers{result, nil}, body: &sends{begin: "1234"}, change: func(c *faas.CallRecord) { c.BytesIn = 4 }},
		"a long one": {answers: answers{result, nil}, body: &sends{begin: "12", rest: text("34567")}, change: func(c *faas.CallRecord) { c.BytesIn = 7 }},
		"streams":    {answers: answers{streams, nil}, read: 99},
		"is left": {answers: answers{streams, nil}, read: 2, change: func(c *faas.CallRecord) {
			c.BytesOut, c.Outcome, c.Error = 2, "cancelled", &faas.CallError{Message: "context canceled"}
		}},
		"raised": {answers: answers{none, raised}, change: func(c *faas.CallRecord) {
			c.Status, c.BytesOut, c.Outcome, c.Error = 0, 0, "function_raised", &faas.CallError{Type: "KeyError", Message: "x", Line: 3, Traceback: "T"}
		}},
		"no room": {answers: answers{none, faas.Errorf(faas.CodeNoCapacity, "no slot").Because(errors.New("inside"))}, change: func(c *faas.CallRecord) {
			c.Status, c.BytesOut, c.Outcome, c.Error = 0, 0, "no_capacity", &faas.CallError{Message: "no slot"}
		}},
	} {
		past := &kept{}
		invoker := Records(past, nil)(receives{test.answers})
		var body faas.LiveBody
		if test.body != nil {
			body = test.body
		}
		if test.result.Body != nil {
			test.result.Body = text("abc")
			invoker = Records(past, nil)(receives{test.answers})
		}
		got, err := invoker.Invoke(t.Context(), call, body)
		if !errors.Is(err, test.err) {
			t.Errorf("%s: %v", name, err)
		}
		if got.Length < 0 {
			if len(past.calls) != 0 {
				t.Errorf("%s: there is a record before the end", name)
			}
			io.CopyN(io.Discard, got.Body, int64(test.read))
		}
		if got.Body != nil {
			got.Body.Close()
		}
		want := base
		if test.change != nil {
			test.change(&want)
		}
		if len(past.calls) != 1 {
			t.Errorf("%s: there are %d records", name, len(past.calls))
			continue
		}
		c := past.calls[0]
		if c.Timing.Total < 0 || time.Since(c.Started) > time.Minute {
			t.Errorf("%s: the times are %v, %+v", name, c.Started, c.Timing)
		}
		if (c.Error == nil) != (want.Error == nil) || c.Error != nil && *c.Error != *want.Error {
			t.Errorf("%s: failed for %+v, want %+v", name, c.Error, want.Error)
		}
		c.Started, c.Timing.Total, c.Error, want.Error = time.Time{}, 0, nil, nil
		if c != want {
			t.Errorf("%s: recorded\n%+v, want\n%+v", name, c, want)
		}
		if test.body != nil && test.body.dropped != 1 {
			t.Errorf("%s: the body was dropped %d times", name, test.body.dropped)
		}
	}
	past := &kept{}
	if _, err := Records(past, nil)(answers{faas.Result{}, faas.UnknownFunction(faas.Ref{Name: "x"})}).Invoke(t.Context(), call, nil); err == nil || len(past.calls) > 0 {
		t.Errorf("a function that does not exist left %v", past.calls)
	}
}

// collected is traces that keep what they are given.
type collected struct {
	faas.Traces
	calls    []faas.CallRecord
	state    string
	answered time.Time
}

func (c *collected) Record(call faas.CallRecord, state string, answered time.Time) {
	c.calls, c.state, c.answered = append(c.calls, call), state, answered
}

// TestTracesOfCalls: the traces get every call that is collected, even of a function that
// does not exist, and no other.
func TestTracesOfCalls(t *testing.T) {
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"
	text := func() io.ReadCloser { return io.NopCloser(strings.NewReader("abc")) }
	version := &faas.Version{FunctionID: "f", Number: 2}
	for name, test := range map[string]struct {
		answers
		flags string
		want  int
	}{
		"whole":             {answers{faas.Result{Version: version, Status: 200, Body: text(), Length: 3}, nil}, "01", 1},
		"streams":           {answers{faas.Result{Version: version, Status: 200, Body: text(), Length: -1}, nil}, "03", 1},
		"is not collected":  {answers{faas.Result{Version: version, Status: 200, Body: text(), Length: 3}, nil}, "02", 0},
		"no such function":  {answers{faas.Result{}, faas.UnknownFunction(faas.Ref{Name: "x"})}, "01", 1},
		"nor one collected": {answers{faas.Result{}, faas.UnknownFunction(faas.Ref{Name: "x"})}, "00", 0},
	} {
		for _, past := range []*kept{nil, {}} {
			traces := &collected{}
			var history faas.History
			if past != nil {
				history = past
			}
			result, _ := Records(history, traces)(test.answers).Invoke(t.Context(), &faas.Invocation{ID: "c1", TraceParent: trace + test.flags, TraceState: "a=1"}, nil)
			returned := time.Now()
			if result.Length < 0 {
				if len(traces.calls) > 0 {
					t.Errorf("%s: there is a span before the end", name)
				}
				time.Sleep(time.Millisecond) // so that the end is later than the beginning of the answer
				result.Body.Close()
			}
			if len(traces.calls) != test.want || past != nil && test.result.Version != nil && len(past.calls) != 1 {
				t.Errorf("%s: collected %v", name, traces.calls)
			}
			if test.want > 0 && (traces.calls[0].ID != "c1" || traces.state != "a=1" || traces.answered.After(returned) || traces.answered.IsZero()) {
				t.Errorf("%s: collected %+v, answered at %v", name, traces.calls, traces.answered)
			}
		}
	}
	if next := (&answers{}); Records(nil, nil)(next) != faas.Invoker(next) {
		t.Error("there is a layer that keeps nothing")
	}
}

// forgets is a history that keeps nothing.
type forgets struct{ faas.History }

func (forgets) Record(faas.CallRecord) {}

// TestNoAllocation: a call that is not collected costs no allocation, whether traces are
// off or on.
func TestNoAllocation(t *testing.T) {
	call := &faas.Invocation{ID: "c1", Who: faas.Caller{Kind: faas.CallerLocal}, Target: "/api/call/x", TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"}
	next := answers{faas.Result{Version: &faas.Version{FunctionID: "f"}, Status: 200, Body: http.NoBody}, nil}
	for name, invoker := range map[string]faas.Invoker{
		"off": Records(forgets{}, nil)(next), "on": Records(forgets{}, &collected{})(next), "alone": Records(nil, &collected{})(next),
	} {
		if n := testing.AllocsPerRun(100, func() { invoker.Invoke(t.Context(), call, nil) }); n > 0 {
			t.Errorf("%s: a call allocates %v times", name, n)
		}
	}
}

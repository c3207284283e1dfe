package trace

import (
	"context"
	"encoding/hex"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/flockofbirds/fob/internal/faas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver is an OTLP receiver over HTTP.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
	resource map[string]string
	spans    []*tracepb.Span
}

func newReceiver(t *testing.T, answer func(w http.ResponseWriter, r *http.Request)) *receiver {
	rec := &receiver{}
	rec.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var batch collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &batch); err != nil {
			t.Errorf("received no spans: %v", err)
		}
		rec.mu.Lock()
		rec.requests = append(rec.requests, r)
		for _, from := range batch.ResourceSpans {
			rec.resource = map[string]string{}
			for _, a := range from.Resource.Attributes {
				rec.resource[a.Key] = a.Value.GetStringValue()
			}
			for _, scope := range from.ScopeSpans {
				rec.spans = append(rec.spans, scope.Spans...)
			}
		}
		rec.mu.Unlock()
		if answer != nil {
			answer(w, r)
		}
	}))
	t.Cleanup(rec.Close)
	return rec
}

// told is what Failed heard.
type told struct {
	mu    sync.Mutex
	spans int
	why   []string
}

// open opens traces to a collector, without a wait before they are sent.
func open(t *testing.T, endpoint string, env ...string) (*Traces, *told) {
	t.Helper()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
	for i := 0; i < len(env); i += 2 {
		t.Setenv(env[i], env[i+1])
	}
	heard := &told{}
	traces, err := Open(t.Context(), Config{
		Version: "1.2.3", Function: func(id string) string { return "name of " + id },
		Failed: func(spans int, err error) {
			heard.mu.Lock()
			defer heard.mu.Unlock()
			heard.spans += spans
			heard.why = append(heard.why, err.Error())
		},
	})
	if err != nil || traces == nil {
		t.Fatalf("opened %v, %v", traces, err)
	}
	return traces, heard
}

// end closes them within a time that no test needs.
func end(traces *Traces, patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	traces.Close(ctx)
}

const (
	testTrace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	testSpan   = "00f067aa0ba902b7"
	testParent = "b7ad6b7169203331"
)

var begun = time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)

func call(change func(*faas.CallRecord)) faas.CallRecord {
	c := faas.CallRecord{
		ID: "c1", Function: "f", Name: "hello", Version: 3, Outcome: "ok", State: faas.CallDone, Started: begun, Timing: faas.CallTiming{Run: 1, Total: 2},
		Status: 200, Method: "POST", Path: "/api/call/hello", BytesIn: 4, BytesOut: 5, Caller: "anonymous", Address: "192.0.2.1:5", Trace: testTrace, Span: testSpan,
	}
	if change != nil {
		change(&c)
	}
	return c
}

// values returns a span's attributes as text.
func values(span *tracepb.Span) map[string]string {
	all := map[string]string{}
	for _, a := range span.Attributes {
		value := a.Value.GetStringValue()
		if value == "" {
			value = strings.Trim(a.Value.String()[strings.IndexByte(a.Value.String(), ':')+1:], " ")
		}
		all[a.Key] = value
	}
	return all
}

// TestSpans: a call becomes a span with the IDs that it has, with one below it for each
// phase that took any time.
func TestSpans(t *testing.T) {
	r := newReceiver(t, nil)
	traces, heard := open(t, r.URL, "OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b", "OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
	traces.Record(call(func(c *faas.CallRecord) {
		c.Name, c.Alias, c.Cold, c.Sandbox, c.Parent = "", "live", true, "5b", testParent
		c.Timing = faas.CallTiming{Queue: 10, Start: 50, Load: 20, Run: 5, Total: 100}
	}), "a=1,b=2", begun.Add(90*time.Millisecond))
	end(traces, time.Minute)
	if heard.spans > 0 {
		t.Errorf("%d spans are lost: %v", heard.spans, heard.why)
	}
	if got := r.requests[0]; got.URL.Path != "/v1/traces" || got.Header.Get("Api-Key") != "a b" || got.Header.Get("Content-Type") != "application/x-protobuf" {
		t.Errorf("the request is %s %v", got.URL, got.Header)
	}
	if r.resource["service.name"] != "fob" || r.resource["service.version"] != "1.2.3" || r.resource["deployment.environment.name"] != "test" || r.resource["telemetry.sdk.language"] != "go" {
		t.Errorf("the resource is %v", r.resource)
	}
	type times struct{ from, to int }
	got := map[string]times{}
	for _, span := range r.spans {
		since := func(nanos uint64) int {
			return int((time.Duration(nanos) - time.Duration(begun.UnixNano())).Milliseconds())
		}
		got[span.Name] = times{since(span.StartTimeUnixNano), since(span.EndTimeUnixNano)}
		if hex.EncodeToString(span.TraceId) != testTrace || span.TraceState != "a=1,b=2" || span.Flags&1 == 0 {
			t.Errorf("%s is of the trace %x with %q and the flags %x", span.Name, span.TraceId, span.TraceState, span.Flags)
		}
		if span.Name == "name of f" {
			if hex.EncodeToString(span.SpanId) != testSpan || hex.EncodeToString(span.ParentSpanId) != testParent || span.Kind != tracepb.Span_SPAN_KIND_SERVER || span.Status.GetCode() != 0 {
				t.Errorf("the call is %v", span)
			}
			want := map[string]string{
				"faas.name": "name of f", "faas.version": "3", "faas.invocation_id": "c1", "faas.trigger": "http", "faas.coldstart": "true", "faas.instance": "5b",
				"http.request.method": "POST", "http.response.status_code": "200", "http.route": "/api/call/{ref}", "http.request.body.size": "4", "http.response.body.size": "5",
				"url.path": "/api/call/hello", "client.address": "192.0.2.1", "fob.function": "f", "fob.alias": "live", "fob.caller": "anonymous",
			}
			if values := values(span); !maps.Equal(values, want) {
				t.Errorf("it has\n%v, want\n%v", values, want)
			}
		} else if hex.EncodeToString(span.ParentSpanId) != testSpan || hex.EncodeToString(span.SpanId) == testSpan {
			t.Errorf("%s is not below the call: %v", span.Name, span)
		}
	}
	want := map[string]times{"name of f": {0, 100}, "queue": {25, 35}, "start": {35, 65}, "load": {65, 85}, "run": {85, 90}}
	if !maps.Equal(got, want) {
		t.Errorf("the spans are %v, want %v", got, want)
	}
}

// TestOutcomes: how a call ended, as its span has it.
func TestOutcomes(t *testing.T) {
	r := newReceiver(t, nil)
	traces, _ := open(t, r.URL, "OTEL_SERVICE_NAME", "birds")
	cases := map[string]struct {
		change           func(*faas.CallRecord)
		name, kind, http string
		code             tracepb.Status_StatusCode
		message, raised  string
	}{
		"its own error": {change: func(c *faas.CallRecord) { c.Status = 503 }, name: "hello", kind: "503", http: "503", code: 2},
		"its own 404":   {change: func(c *faas.CallRecord) { c.Status = 404 }, name: "hello", http: "404"},
		"raised": {change: func(c *faas.CallRecord) {
			c.Outcome, c.Status, c.Error = "function_raised", 0, &faas.CallError{Type: "KeyError", Message: "x", Traceback: "T"}
		}, name: "hello", kind: "function_raised", http: "500", code: 2, message: "x", raised: "KeyError x T"},
		"breaks off":    {change: func(c *faas.CallRecord) { c.Outcome, c.Error = "timeout", &faas.CallError{Message: "late"} }, name: "hello", kind: "timeout", http: "200", code: 2, message: "late"},
		"bad arguments": {change: func(c *faas.CallRecord) { c.Outcome, c.Status = "bad_arguments", 0 }, name: "hello", kind: "bad_arguments", http: "404"},
		"left":          {change: func(c *faas.CallRecord) { c.Outcome, c.Status = "cancelled", 0 }, name: "hello", kind: "cancelled"},
		"nobody": {change: func(c *faas.CallRecord) {
			c.Function, c.Name, c.Outcome, c.Status = "", "strange", "unknown_function", 0
		}, name: "unknown function", kind: "unknown_function", http: "404"},
		"a strange verb":  {change: func(c *faas.CallRecord) { c.Method = "BREW" }, name: "hello", http: "200"},
		"no trace at all": {change: func(c *faas.CallRecord) { c.Trace = "" }},
	}
	for id, test := range cases {
		traces.Record(call(func(c *faas.CallRecord) {
			c.ID, c.Timing.Run = id, 0
			test.change(c)
		}), "not valid", begun)
	}
	end(traces, time.Minute)
	if r.resource["service.name"] != "birds" {
		t.Errorf("the resource is %v", r.resource)
	}
	seen := 0
	for _, span := range r.spans {
		has := values(span)
		id := has["faas.invocation_id"]
		raised := ""
		for _, e := range span.Events {
			parts := map[string]string{}
			for _, a := range e.Attributes {
				parts[a.Key] = a.Value.GetStringValue()
			}
			raised = parts["exception.type"] + " " + parts["exception.message"] + " " + parts["exception.stacktrace"]
		}
		test := cases[id]
		if span.Name != test.name || has["error.type"] != test.kind || has["http.response.status_code"] != test.http || span.Status.GetCode() != test.code || span.Status.GetMessage() != test.message || raised != test.raised {
			t.Errorf("%s became %v with %v, raised %q", id, span, has, raised)
		}
		if id == "a strange verb" && has["http.request.method"] != "_OTHER" {
			t.Errorf("the method is %s", has["http.request.method"])
		}
		seen++
	}
	if seen != len(cases)-1 {
		t.Errorf("there are %d spans", seen)
	}
}

// TestTextsAreBounded: what waits keeps no long text alive.
func TestTextsAreBounded(t *testing.T) {
	r := newReceiver(t, nil)
	traces, _ := open(t, r.URL)
	long := strings.Repeat("x", 1<<20)
	traces.Record(call(func(c *faas.CallRecord) {
		c.ID, c.Path, c.Outcome, c.Error = long, long, "function_raised", &faas.CallError{Type: long, Message: long, Traceback: long + "end"}
	}), "", begun)
	end(traces, time.Minute)
	if size := proto.Size(r.spans[0]); size > 20<<10 || !strings.Contains(r.spans[0].String(), "xend") {
		t.Errorf("the span has %d bytes", size)
	}
}

// TestOff: without a collector there are no traces, and neither with variables that are
// wrong. No error shows what may be secret.
func TestOff(t *testing.T) {
	for name, env := range map[string][]string{
		"nothing is set":   {},
		"no exporter":      {"OTEL_TRACES_EXPORTER", "none", "OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"},
		"disabled":         {"OTEL_SDK_DISABLED", "TRUE", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1"},
		"!another":         {"OTEL_TRACES_EXPORTER", "zipkin"},
		"!gRPC":            {"OTEL_TRACES_EXPORTER", "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"},
		"!no URL":          {"OTEL_EXPORTER_OTLP_ENDPOINT", "s3cret:4318"},
		"!no header":       {"OTEL_TRACES_EXPORTER", "otlp", "OTEL_EXPORTER_OTLP_HEADERS", "a=b,s3cret"},
		"!bad value":       {"OTEL_TRACES_EXPORTER", "otlp", "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=%s3cret"},
		"!no sampler":      {"OTEL_TRACES_EXPORTER", "otlp", "OTEL_TRACES_SAMPLER", "sometimes"},
		"!no ratio":        {"OTEL_TRACES_EXPORTER", "otlp", "OTEL_TRACES_SAMPLER", "traceidratio", "OTEL_TRACES_SAMPLER_ARG", "NaN"},
		"!a negative one":  {"OTEL_TRACES_EXPORTER", "otlp", "OTEL_TRACES_SAMPLER", "traceidratio", "OTEL_TRACES_SAMPLER_ARG", "-1"},
		"!a queue of none": {"OTEL_TRACES_EXPORTER", "otlp", "OTEL_BSP_MAX_QUEUE_SIZE", "-5"},
		"!no delay":        {"OTEL_TRACES_EXPORTER", "otlp", "OTEL_BSP_SCHEDULE_DELAY", "soon"},
		"!no attributes":   {"OTEL_TRACES_EXPORTER", "otlp", "OTEL_RESOURCE_ATTRIBUTES", "novalue"},
	} {
		t.Run(name, func(t *testing.T) {
			for i := 0; i < len(env); i += 2 {
				t.Setenv(env[i], env[i+1])
			}
			traces, err := Open(t.Context(), Config{})
			if traces != nil || (err != nil) != (name[0] == '!') {
				t.Errorf("opened %v, %v", traces, err)
			}
			if err != nil && (strings.Contains(err.Error(), "s3cret") || !strings.HasPrefix(err.Error(), "OTEL_")) {
				t.Errorf("it says: %v", err)
			}
		})
	}
}

// TestSamplers: each sampler with calls that begin a trace and that continue one.
func TestSamplers(t *testing.T) {
	for name, want := range map[string][3]bool{ // new, of a trace that is collected, of another
		"": {true, true, false}, "parentbased_always_on": {true, true, false}, "parentbased_always_off": {false, true, false},
		"always_on": {true, true, true}, "always_off": {}, "parentbased_traceidratio=0": {false, true, false}, "traceidratio=1": {true, true, true}, "traceidratio": {true, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			sampler, arg, _ := strings.Cut(name, "=")
			traces, _ := open(t, "http://127.0.0.1:1", "OTEL_TRACES_SAMPLER", sampler, "OTEL_TRACES_SAMPLER_ARG", arg)
			defer end(traces, time.Minute)
			for i, call := range []*faas.Invocation{
				{TraceParent: "00-" + testTrace + "-" + testSpan + "-00"},
				{TraceParent: "00-" + testTrace + "-" + testSpan + "-01", ParentSpan: testParent, TraceState: "a=1"},
				{TraceParent: "00-" + testTrace + "-" + testSpan + "-00", ParentSpan: testParent, TraceState: "\x00"},
			} {
				if got := traces.Sample(call); got != want[i] {
					t.Errorf("call %d: %v", i, got)
				}
			}
		})
	}
}

// TestCollectorTrouble: with a collector that is away, refuses or never answers, calls
// cost no wait, what was lost is counted, and the end is bounded.
func TestCollectorTrouble(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	away := "http://" + nobody.Addr().String()
	nobody.Close()
	release := make(chan struct{})
	silent := newReceiver(t, func(_ http.ResponseWriter, r *http.Request) { <-release })
	t.Cleanup(func() { close(release) }) // before the server is closed
	for name, test := range map[string]struct{ url, why string }{
		"away":    {away, "refused"},
		"refuses": {newReceiver(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no such key", http.StatusUnauthorized) }).URL, "no such key"},
		"is busy": {newReceiver(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }).URL, ""},
		"silent":  {silent.URL, ""},
	} {
		t.Run(name, func(t *testing.T) {
			traces, heard := open(t, test.url, "OTEL_BSP_MAX_QUEUE_SIZE", "100", "OTEL_EXPORTER_OTLP_TIMEOUT", "600000", "OTEL_BSP_EXPORT_TIMEOUT", "600000")
			const calls = 1000
			for range calls {
				traces.Record(call(nil), "", begun.Add(2*time.Millisecond))
			}
			began := time.Now()
			end(traces, 100*time.Millisecond)
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("the end took %v", took)
			}
			// Two spans a call; those that never got into the queue count as five.
			if heard.spans < 2*calls || heard.spans > maxPhases*calls || !strings.Contains(strings.Join(heard.why, "\n"), test.why) || len(heard.why) > 2 {
				t.Errorf("heard of %d spans: %q", heard.spans, heard.why)
			}
			if traces.sender.waiting.Load() != 0 {
				t.Errorf("%d spans wait", traces.sender.waiting.Load())
			}
		})
	}
}

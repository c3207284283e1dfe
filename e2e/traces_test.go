package e2e

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// chain are functions that call others through the dispatcher: shop calls price and
// stock, and price calls stock.
var chain = map[string][2]string{
	"shop": {"python", `
import os, json
from urllib.request import Request, urlopen

def callme(request, item):
    seen = {}
    for name in "price", "stock":
        headers = {n: v for n, v in request.headers.items() if n in ("traceparent", "tracestate")}
        with urlopen(Request(f"{os.environ['FOB']}/api/call/{name}?item={item}", headers=headers)) as answer:
            seen[name] = json.load(answer)["result"]
    return {"saw": request.headers["traceparent"], "state": request.headers.get("tracestate"), **seen}
`},
	"price": {"node", `
async function callme(request, item) {
    const headers = {}
    for (const name of ["traceparent", "tracestate"]) if (request.headers[name]) headers[name] = request.headers[name]
    const answer = await fetch(process.env.FOB + "/api/call/stock?item=" + item, {headers})
    return {saw: request.headers.traceparent, state: request.headers.tracestate ?? null, stock: (await answer.json()).result}
}
`},
	"stock": {"python", `
def callme(request, item):
    return {"saw": request.headers["traceparent"], "state": request.headers.get("tracestate")}
`},
}

// deployChain registers them.
func deployChain(r *dispatcher) {
	for name, code := range chain {
		r.gen("?name="+name+"&lang="+code[0]+"&env=FOB="+url.QueryEscape(r.URL), code[1])
	}
}

// sawTrace is what a function of the chain answers.
type sawTrace struct {
	Saw          string
	State        *string
	Price, Stock *sawTrace
}

// recorded returns the calls of a trace, once they are n.
func recorded(t *testing.T, r *dispatcher, trace string, n int) []faas.CallRecord {
	t.Helper()
	var calls []faas.CallRecord
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var page api.Calls
		a := r.do("GET", "/api/calls?trace="+trace, "")
		if err := json.Unmarshal([]byte(a.Body), &page); err != nil || a.Status != 200 {
			t.Fatalf("answered %d %s", a.Status, a.Body)
		}
		if calls = page.Calls; len(calls) == n {
			return calls
		}
	}
	t.Fatalf("the trace %s has the calls %+v, not %d", trace, calls, n)
	return nil
}

// TestTreeOfCalls: the calls of functions that pass traceparent on make a tree in the
// history, whose spans are those that the functions saw.
func TestTreeOfCalls(t *testing.T) {
	t.Parallel()
	r := boot(t)
	deployChain(r)
	const trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for name, headers := range map[string][]string{
		"a trace of the caller's": {"Traceparent", "00-" + trace + "-" + span + "-01", "Tracestate", "a=1,b=2"},
		"a new trace":             {"Tracestate", "a=1"},
	} {
		a := r.do("GET", "/api/call/shop?item=pen", "", headers...)
		var answer struct{ Result sawTrace }
		if err := json.Unmarshal([]byte(a.Body), &answer); err != nil || a.Status != 200 {
			t.Fatalf("%s: answered %d %s", name, a.Status, a.Body)
		}
		shop := answer.Result
		begun, flags, state, parent := strings.Split(a.Header.Get("Traceparent"), "-")[1], "00", "<nil>", ""
		if len(headers) > 2 {
			flags, state, parent = "01", "a=1,b=2", span
			if begun != trace {
				t.Errorf("%s: the trace is %s", name, begun)
			}
		}
		// What the functions saw, as a tree.
		var want, got []string
		var walk func(path, parent string, s *sawTrace)
		walk = func(path, parent string, s *sawTrace) {
			if s == nil {
				return
			}
			parts := strings.Split(s.Saw, "-")
			saw := "<nil>"
			if s.State != nil {
				saw = *s.State
			}
			if len(parts) != 4 || parts[1] != begun || parts[3] != flags || saw != state {
				t.Errorf("%s: %s saw %s and the state %s", name, path, s.Saw, saw)
				return
			}
			want = append(want, fmt.Sprint(path[strings.LastIndex(path, "/")+1:], " ", parts[2], " from ", parent))
			walk(path+"/price", parts[2], s.Price)
			walk(path+"/stock", parts[2], s.Stock)
		}
		walk("shop", parent, &shop)
		for _, c := range recorded(t, r, begun, 4) {
			got = append(got, fmt.Sprint(c.Name, " ", c.Span, " from ", c.Parent))
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the history has\n%s\nand the functions saw\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// collector is an OTLP receiver over HTTP that keeps the spans of calls, by their IDs.
type collector struct {
	*httptest.Server
	mu    sync.Mutex
	spans map[string]*tracepb.Span
}

func newCollector(t *testing.T) *collector {
	c := &collector{spans: map[string]*tracepb.Span{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var batch collectorpb.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &batch); err != nil {
			t.Errorf("received no spans: %v", err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, from := range batch.ResourceSpans {
			for _, scope := range from.ScopeSpans {
				for _, span := range scope.Spans {
					c.spans[hex.EncodeToString(span.SpanId)] = span
				}
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// TestTracesReachACollector: the spans that a collector gets are those that the functions
// saw and the history has, also those that waited when the dispatcher ended.
func TestTracesReachACollector(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	r := boot(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL, "OTEL_BSP_SCHEDULE_DELAY=3600000") // the end alone sends them
	deployChain(r)
	a := r.do("GET", "/api/call/shop?item=pen", "")
	a.wantsStatus(t, 200)
	parts := strings.Split(a.Header.Get("Traceparent"), "-")
	if parts[3] != "01" || strings.Count(a.Body, `-01"`) != 4 {
		t.Errorf("not all calls are sampled: %s, %s", a.Header.Get("Traceparent"), a.Body)
	}
	r.do("GET", "/api/call/shop", "", "Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00").wantsStatus(t, 404) // without an item
	calls := recorded(t, r, parts[1], 4)
	r.terminate()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, call := range calls {
		span := c.spans[call.Span]
		if span == nil || hex.EncodeToString(span.TraceId) != call.Trace || hex.EncodeToString(span.ParentSpanId) != call.Parent || span.Name != call.Name {
			t.Errorf("of the call %+v the collector got %v", call, span)
			continue
		}
		below := map[string]bool{}
		for _, other := range c.spans {
			if bytes.Equal(other.ParentSpanId, span.SpanId) {
				below[other.Name] = true
			}
		}
		if !below["run"] {
			t.Errorf("below %s are %v", call.Name, below)
		}
	}
	for _, span := range c.spans {
		if trace := hex.EncodeToString(span.TraceId); trace != parts[1] {
			t.Errorf("the collector got a span of the trace %s, which is not sampled", trace)
		}
	}
}

// TestCollectorIsAway: calls go on without a collector, and the log tells of it; so it does
// of variables that are wrong.
func TestCollectorIsAway(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ variable, says string }{
		"away":  {"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "spans of traces are lost"},
		"wrong": {"OTEL_TRACES_EXPORTER=zipkin", "OTEL_TRACES_EXPORTER=zipkin: there are otlp and none"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := boot(t, test.variable)
			r.gen("?name=hello", "def callme(): return 1")
			r.do("GET", "/api/call/hello", "").wants(t, 200, `{"result": 1}`)
			r.terminate()
			if said := r.Log.String(); !strings.Contains(said, test.says) {
				t.Errorf("the log does not say %q: %s", test.says, said)
			}
		})
	}
}

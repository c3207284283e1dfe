package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

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

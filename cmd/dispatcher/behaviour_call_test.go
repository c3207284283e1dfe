package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// exchange makes a request and reads the whole answer.
func exchange(request *http.Request) (answered, error) {
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return answered{}, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return answered{response.StatusCode, response.Header, string(content)}, err
}

func TestArguments(t *testing.T) {
	r := boot(t, nil)
	add := r.gen("", addCode)
	typed := r.gen("", "def callme(a: int, b: float = 0.5, *, c: bool = False, **more): return [a, b, c, more]")
	node := r.gen("?lang=node", "function callme(a, b = 'B') { return [a, b] }")
	for _, c := range []struct{ method, path, body, want string }{
		{"GET", add + "?param1:1,param2:1", "", `{"result": 2}`},
		{"GET", add + "?param1=1&param2=1", "", `{"result": 2}`},
		{"GET", add + "?param1:%31,param2: 1", "", `{"result": 2}`},
		{"GET", add + "?param1:,param2:1", "", `{"result": null}`},
		{"POST", add, `{"param1": 20, "param2": "22"}`, `{"result": 42}`},
		{"POST", add + "?param1=20", `{"param2": 22}`, `{"result": 42}`},
		{"GET", typed + "?a=1&b=2&c=yes&d=%C3%A9+%26", "", `{"result": [1, 2.0, true, {"d": "é &"}]}`},
		{"GET", typed + "?a:1,d:x+y%2Cz", "", `{"result": [1, 0.5, false, {"d": "x+y,z"}]}`},
		{"POST", typed, `{"a": 1, "c": null, "d": {"e": [1.5]}}`, `{"result": [1, 0.5, null, {"d": {"e": [1.5]}}]}`},
		{"GET", node + "?b:2,a:1", "", `{"result": ["1", "2"]}`},
		{"POST", node, `{"a": [1, "\u00e9\ud83d\ude00"]}`, `{"result": [[1, "é😀"], "B"]}`},
	} {
		request, err := http.NewRequest(c.method, r.URL+"/api/call/"+strings.ReplaceAll(c.path, " ", "%20"), strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		a, err := exchange(request)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := compact(t, a.Body), compact(t, c.want); a.Status != 200 || got != want {
			t.Errorf("%s %s %s: %d %s, want %s", c.method, c.path, c.body, a.Status, a.Body, c.want)
		}
	}
}

// compact makes two spellings of the same JSON the same.
func compact(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s is no JSON: %v", text, err)
	}
	out, _ := json.Marshal(v)
	return string(out)
}

func TestRequests(t *testing.T) {
	r := boot(t, func(c *Config) { c.Hosts = []string{"functions.example"} })
	for lang, code := range map[string]string{
		"python": `def callme(request, who="nobody"):
    return {"method": request.method, "path": request.path, "query": request.query, "headers": dict(request.headers),
            "body": list(request.body), "who": who}`,
		"node": `async function callme(request, who = "nobody") {
    return {method: request.method, path: request.path, query: request.query, headers: Object.fromEntries(Object.entries(request.headers)),
            body: [...request.body], who}
}`,
	} {
		t.Run(lang, func(t *testing.T) {
			id := r.gen("?lang="+lang, code)
			var binary strings.Builder
			var bytes []int
			for i := range 256 {
				binary.WriteByte(byte(i))
				bytes = append(bytes, i)
			}
			a := r.send("POST", "/api/call/"+id+"?who=m%C3%A9&x=0&x=1", binary.String(), http.Header{
				"Host":          {"functions.example:81"},
				"Content-Type":  {"application/octet-stream"},
				"Traceparent":   {"00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"},
				"X-Two":         {"a", "b"},
				"Fob-Method":    {"DELETE"},
				"Fob-Args":      {`{"who": "a thief"}`},
				"Authorization": {"Bearer mine"},
				"X-Call-Id":     {"call-7"},
			})
			var answer struct {
				Result struct {
					Method, Path, Who string
					Query, Headers    map[string]string
					Body              []int
				}
			}
			if err := json.Unmarshal([]byte(a.Body), &answer); err != nil || a.Status != 200 {
				t.Fatalf("answered %d %s", a.Status, a.Body)
			}
			got := answer.Result
			if got.Method != "POST" || got.Path != "/" || got.Who != "mé" || !maps.Equal(got.Query, map[string]string{"who": "mé", "x": "1"}) {
				t.Errorf("the function saw %+v", got)
			}
			if !slices.Equal(got.Body, bytes) {
				t.Errorf("the function saw the body %v", got.Body)
			}
			for name, want := range map[string]string{
				"host": "functions.example:81", "content-type": "application/octet-stream", "authorization": "Bearer mine", "x-call-id": "call-7",
			} {
				if got.Headers[name] != want {
					t.Errorf("the function saw %s: %q, want %q", name, got.Headers[name], want)
				}
			}
			if two := strings.ReplaceAll(got.Headers["x-two"], " ", ""); two != "a,b" {
				t.Errorf("the function saw x-two: %q", two)
			}
			if got.Headers["traceparent"] != a.Header.Get("Traceparent") || !strings.HasPrefix(got.Headers["traceparent"], "00-0123456789abcdef0123456789abcdef-") {
				t.Errorf("the function saw the trace %q, and the answer has %q", got.Headers["traceparent"], a.Header.Get("Traceparent"))
			}
			for name := range got.Headers {
				if strings.HasPrefix(name, "fob-") {
					t.Errorf("the function saw %s", name)
				}
			}
		})
	}
}

func TestOwnResponses(t *testing.T) {
	r := boot(t, nil)
	for lang, code := range map[string]string{
		"python": `from fob import Response
def callme():
    return Response(bytes(range(256)), status=203, headers={"Set-Cookie": ["a=1; Path=/", "b=2"], "X-Thing": "yes", "Content-Type": "image/x-none",
        "Fob-Error": "forged", "Fob-Version": "77", "X-Call-Id": "forged", "Connection": "close", "Content-Length": "3"})`,
		"node": `function callme() {
    const headers = new Headers({"X-Thing": "yes", "Content-Type": "image/x-none", "Fob-Error": "forged", "Fob-Version": "77", "X-Call-Id": "forged", "Connection": "close", "Content-Length": "3"})
    headers.append("Set-Cookie", "a=1; Path=/")
    headers.append("Set-Cookie", "b=2")
    return new Response(Uint8Array.from({length: 256}, (_, i) => i), {status: 203, headers})
}`,
	} {
		t.Run(lang, func(t *testing.T) {
			id := r.gen("?lang="+lang, code)
			a := r.send("GET", "/api/call/"+id, "", http.Header{"X-Call-Id": {"mine"}})
			var want []byte
			for i := range 256 {
				want = append(want, byte(i))
			}
			if a.Status != 203 || a.Body != string(want) {
				t.Errorf("answered %d with %d bytes, want 203 with the bytes 0 to 255", a.Status, len(a.Body))
			}
			for name, want := range map[string][]string{
				"Set-Cookie": {"a=1; Path=/", "b=2"}, "X-Thing": {"yes"}, "Content-Type": {"image/x-none"}, "Content-Length": {"256"},
				"Fob-Version": {"1"}, "X-Call-Id": {"mine"}, "Fob-Error": nil, "Connection": nil,
			} {
				if got := a.Header.Values(name); !slices.Equal(got, want) {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
	// A function's own 404 is not ours, and a 204 has no body.
	own := r.gen("", "from fob import Response\ndef callme(status: int, text=''): return Response(text, status=status)")
	if a := r.do("GET", "/api/call/"+own+"?status=404&text=mine", ""); a.Status != 404 || a.Body != "mine" || a.Header.Get("Fob-Error") != "" {
		t.Errorf("answered %d %s %v", a.Status, a.Body, a.Header)
	}
	if a := r.do("GET", "/api/call/"+own+"?status=204", ""); a.Status != 204 || a.Body != "" {
		t.Errorf("answered %d %s", a.Status, a.Body)
	}
}

func TestCallHeaders(t *testing.T) {
	r := boot(t, nil)
	id := r.gen("", "def callme(x=0): return 1 / int(x)")
	const from = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
	answers := map[string]answered{
		"ok":       r.send("GET", "/api/call/"+id+"?x=1", "", http.Header{"Traceparent": {from}, "X-Call-Id": {"mine-1.2:3_4"}}),
		"function": r.send("GET", "/api/call/"+id+"?x=0", "", http.Header{"Traceparent": {from}, "X-Call-Id": {"mine-1.2:3_4"}}),
		"platform": r.send("GET", "/api/call/nobody", "", http.Header{"Traceparent": {from}, "X-Call-Id": {"mine-1.2:3_4"}}),
	}
	answers["ok"].wants(t, 200, `{"result": 1.0}`)
	raised := answers["function"].wantsProblem(t, 500, "function_raised")
	if raised.Error == nil || raised.Error.Type != "ZeroDivisionError" || raised.Error.Line != 1 || !strings.Contains(raised.Error.Traceback, "return 1 / int(x)") {
		t.Errorf("the error is %+v", raised.Error)
	}
	unknown := answers["platform"].wantsProblem(t, 404, "unknown_function")
	timing := regexp.MustCompile(`^queue;dur=\d+\.\d{3}, start;dur=\d+\.\d{3}, run;dur=\d+\.\d{3}$`)
	for name, a := range answers {
		if got := a.Header.Get("X-Call-Id"); got != "mine-1.2:3_4" {
			t.Errorf("%s: X-Call-Id is %q", name, got)
		}
		trace := a.Header.Get("Traceparent")
		if len(trace) != len(from) || trace[:36] != from[:36] || trace[36:52] == from[36:52] || trace[52:] != "-01" {
			t.Errorf("%s: traceparent is %q, which does not continue %q", name, trace, from)
		}
		if got := a.Header.Get("Server-Timing"); !timing.MatchString(got) {
			t.Errorf("%s: Server-Timing is %q", name, got)
		}
		fault, version := name, "1"
		if name == "ok" {
			fault = ""
		}
		if name == "platform" {
			version = ""
		}
		if a.Header.Get("Fob-Error") != fault || a.Header.Get("Fob-Version") != version {
			t.Errorf("%s: Fob-Error is %q, Fob-Version %q", name, a.Header.Get("Fob-Error"), a.Header.Get("Fob-Version"))
		}
	}
	if raised.CallID != "mine-1.2:3_4" || unknown.CallID != "mine-1.2:3_4" {
		t.Error("the problems lack the call's ID")
	}
	// What cannot be logged or is no trace is replaced.
	minted := regexp.MustCompile(`^[0-9a-f-]{36}$`)
	begun := regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-00$`)
	for _, header := range []http.Header{
		{},
		{"X-Call-Id": {"has blanks"}, "Traceparent": {"nonsense"}},
		{"X-Call-Id": {strings.Repeat("x", 129)}, "Traceparent": {"00-" + strings.Repeat("0", 32) + "-0123456789abcdef-01"}},
	} {
		a := r.send("GET", "/api/call/"+id+"?x=1", "", header)
		if !minted.MatchString(a.Header.Get("X-Call-Id")) || !begun.MatchString(a.Header.Get("Traceparent")) {
			t.Errorf("X-Call-Id is %q, traceparent %q", a.Header.Get("X-Call-Id"), a.Header.Get("Traceparent"))
		}
	}
}

// The longest request head that is let in is one that a driver takes, and what
// is longer costs no sandbox.
func TestLongHeads(t *testing.T) {
	r := boot(t, nil)
	for lang, code := range map[string]string{
		"python": "def callme(request, **text): return len(text['a'])",
		"node":   "function callme(request, a) { return a.length }",
	} {
		id := r.gen("?lang="+lang, code)
		before := r.do("GET", "/api/meta/"+id, "").Body
		for _, c := range []struct{ query, status, body string }{
			{strings.Repeat("é", 16_000), "200 OK", `{"result": 16000}`},
			{strings.Repeat("é", 17_000), "413 Request Entity Too Large", ""},
			{"b", "200 OK", `{"result": 1}`},
		} {
			nc, err := net.Dial("tcp", strings.TrimPrefix(r.URL, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			// Not percent-encoded: that is how the argument grows most.
			fmt.Fprintf(nc, "GET /api/call/%s?a=%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Long: %s\r\n\r\n", id, c.query, strings.Repeat("x", 60<<10))
			answer, err := io.ReadAll(nc)
			if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 "+c.status) || !strings.HasSuffix(string(answer), c.body) {
				t.Errorf("%s with %d bytes of query: %v, %.300s", lang, len(c.query), err, answer)
			}
		}
		if after := r.do("GET", "/api/meta/"+id, "").Body; after != before {
			t.Errorf("%s: another sandbox, %s after %s", lang, after, before)
		}
	}
}

// What a call leaves behind in its sandbox is gone after max_calls of them.
func TestMaxCalls(t *testing.T) {
	r := boot(t, nil)
	for lang, code := range map[string]string{
		"python": "n = 0\ndef callme():\n    global n\n    n += 1\n    return n\n",
		"node":   "let n = 0\nfunction callme() { return ++n }\n",
	} {
		for calls, want := range map[int]string{1: "1 1 1 1 1", 2: "1 2 1 2 1", 0: "1 2 3 4 5"} {
			id := r.gen(fmt.Sprintf("?lang=%s&max_calls=%d&max_scale=1", lang, calls), code)
			var got []string
			for range 5 {
				var answer struct{ Result int }
				if err := json.Unmarshal([]byte(r.do("GET", "/api/call/"+id, "").Body), &answer); err != nil {
					t.Fatal(err)
				}
				got = append(got, fmt.Sprint(answer.Result))
			}
			if all := strings.Join(got, " "); all != want {
				t.Errorf("%s with max_calls=%d answered %s, want %s", lang, calls, all, want)
			}
		}
	}
}

package httpapi

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/faas"
)

func TestCall(t *testing.T) {
	var got received
	a := newAPI(t, newFakeRegistry(), func(_ context.Context, call *received) (faas.Result, error) {
		call.Version = &faas.Version{Number: 7}
		call.Timing = faas.Timing{Queue: time.Millisecond, Run: 1500 * time.Microsecond}
		got = *call
		return plainResult(`{"result": 2}`), nil
	})
	w := serve(a, "POST", "/api/call/hello@7?param1:1,param2:%201", `{"a": 1}`, "X-Mine", "yes")
	if w.Code != http.StatusOK || w.Body.String() != `{"result": 2}` {
		t.Fatalf("answered %d %s", w.Code, w.Body)
	}
	for name, want := range map[string]string{
		"Content-Type":   "application/json",
		"Content-Length": "13",
		"Fob-Version":    "7",
		"Server-Timing":  "queue;dur=1.000, start;dur=0.000, run;dur=1.500",
		"Fob-Error":      "",
	} {
		if value := w.Header().Get(name); value != want {
			t.Errorf("%s: %q, want %q", name, value, want)
		}
	}
	if got.Ref != (faas.Ref{Name: "hello", Version: 7}) || string(got.Args) != `{"param1":"1","param2":" 1"}` || string(got.Body) != `{"a": 1}` {
		t.Errorf("invoked %+v", got)
	}
	if got.Method != "POST" || got.Target != "/api/call/hello@7?param1:1,param2:%201" || got.Host != "example.com" || got.Header.Get("X-Mine") != "yes" {
		t.Errorf("a function that takes the request would get %+v", got)
	}
	if got.ID == "" || got.ID != w.Header().Get("X-Call-Id") {
		t.Errorf("call %q answered as %q", got.ID, w.Header().Get("X-Call-Id"))
	}
}

// own is a response that a function made itself.
func own(status int, kind string, header http.Header, body string, length int64) invoker {
	return func(context.Context, *received) (faas.Result, error) {
		return faas.Result{Status: status, ContentType: kind, Header: header, Body: io.NopCloser(strings.NewReader(body)), Length: length}, nil
	}
}

func TestFunctionsOwnResponse(t *testing.T) {
	header := http.Header{"Set-Cookie": {"a=1", "b=2"}, "X-Call-Id": {"forged"}, "Server-Timing": {"forged"}}
	w := serve(newAPI(t, newFakeRegistry(), own(404, "text/html", header, "<p>", -1)), "GET", "/api/call/hello", "")
	if w.Code != http.StatusNotFound || w.Body.String() != "<p>" || w.Header().Get("Content-Type") != "text/html" {
		t.Errorf("answered %d %v %s", w.Code, w.Header(), w.Body)
	}
	if cookies := w.Header()["Set-Cookie"]; len(cookies) != 2 {
		t.Errorf("Set-Cookie: %v", cookies)
	}
	if w.Header().Get("X-Call-Id") == "forged" || w.Header().Get("Server-Timing") == "forged" || w.Header().Get("Content-Length") != "" {
		t.Errorf("answered with %v", w.Header())
	}
	for _, status := range []int{http.StatusNoContent, http.StatusNotModified} {
		server := httptest.NewServer(newAPI(t, newFakeRegistry(), own(status, "", nil, "", 0)))
		response, err := http.Get(server.URL + "/api/call/hello")
		if err != nil || response.StatusCode != status || response.Header.Get("Content-Length") != "" {
			t.Errorf("%d: answered %v, %v", status, response, err)
		}
		server.Close()
	}
}

func TestFailedCall(t *testing.T) {
	a := newAPI(t, newFakeRegistry(), func(_ context.Context, call *received) (faas.Result, error) {
		call.Version = &faas.Version{Number: 7}
		return faas.Result{}, faas.Errorf(faas.CodeOverLimit, "busy").After(2 * time.Second)
	})
	w := serve(a, "GET", "/api/call/hello", "", "X-Call-Id", "mine")
	p := wantProblem(t, w.Code, w.Header(), w.Body.String(), 429, faas.CodeOverLimit)
	h := w.Header()
	if p.CallID != "mine" || h.Get("X-Call-Id") != "mine" || h.Get("Fob-Version") != "7" || h.Get("Server-Timing") == "" ||
		h.Get("Traceparent") == "" || h.Get("Fob-Error") != "function" || h.Get("Retry-After") != "2" {
		t.Errorf("answered %v %s", h, w.Body)
	}
}

// TestRefusedCall: what is refused before it gets to the function still has
// its call's ID and trace.
func TestRefusedCall(t *testing.T) {
	a := newAPI(t, newFakeRegistry(), nil)
	for target, code := range map[string]faas.Code{
		"/api/call/a b":        faas.CodeBadRequest,
		"/api/call/hello?a=%":  faas.CodeBadRequest,
		"/api/call/hello?a:1,": faas.CodeBadRequest,
		"/api/call/hello?" + strings.Repeat("a", maxQuery+1): faas.CodeTooLarge,
	} {
		w := serve(a, "GET", strings.ReplaceAll(target, " ", "%20"), "", "X-Call-Id", "mine")
		p := wantProblem(t, w.Code, w.Header(), w.Body.String(), code.Info().Status, code)
		if p.CallID != "mine" || w.Header().Get("Traceparent") == "" {
			t.Errorf("%.40s: answered %v %s", target, w.Header(), w.Body)
		}
	}
}

func TestCallID(t *testing.T) {
	a := newAPI(t, newFakeRegistry(), own(200, "", nil, "", 0))
	minted := regexp.MustCompile(`^[0-9a-f-]{36}$`)
	for id, accepted := range map[string]bool{
		"a": true, "order-7:try.2_x": true, strings.Repeat("a", 128): true, testID: true,
		"": false, "two words": false, "a/b": false, "<b>": false, "ä": false, "a\tb": false, strings.Repeat("a", 129): false, `"`: false,
	} {
		got := serve(a, "GET", "/api/call/hello", "", "X-Call-Id", id).Header().Get("X-Call-Id")
		if accepted && got != id || !accepted && !minted.MatchString(got) {
			t.Errorf("%q was answered as %q", id, got)
		}
	}
	one := serve(a, "GET", "/api/call/hello", "").Header().Get("X-Call-Id")
	if two := serve(a, "GET", "/api/call/hello", "").Header().Get("X-Call-Id"); one == two {
		t.Errorf("two calls have the ID %s", one)
	}
}

// TestTraceparent: a call continues a valid trace of its caller's with a span of its own,
// and knows the caller's. Otherwise it begins a trace, to which no state belongs.
func TestTraceparent(t *testing.T) {
	const trace, span, state = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "a=1,b=2"
	var seen *received
	a := newAPI(t, newFakeRegistry(), func(_ context.Context, call *received) (faas.Result, error) {
		seen = call
		return plainResult("{}"), nil
	})
	valid := regexp.MustCompile(`^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$`)
	for from, continued := range map[string]bool{
		"00-" + trace + "-" + span + "-01": true,
		"00-" + trace + "-" + span + "-00": true,
		"00-" + trace + "-" + span + "-ff": true,
		"":                                 false,
		"nonsense":                         false,
		"00-" + strings.Repeat("0", 32) + "-" + span + "-01":  false,
		"00-" + trace + "-" + strings.Repeat("0", 16) + "-01": false,
		"00-" + strings.ToUpper(trace) + "-" + span + "-01":   false,
		"00-" + trace + "-" + span + "-0-":                    false,
		"00-" + trace + "0" + span + "-01":                    false,
		"00-" + trace[1:] + "-" + span + "-01":                false,
		"00-" + trace[1:] + "-0" + span + "-01":               false,
		"00-" + trace + "-" + span + "-0g":                    false,
		"ff-" + trace + "-" + span + "-01":                    false,
		"00-" + trace + "-" + span + "-01-more":               false,
	} {
		r, w := httptest.NewRequest("GET", "/api/call/hello", nil), httptest.NewRecorder()
		r.Header = http.Header{"Traceparent": {from}, "Tracestate": {"a=1", "b=2"}}
		a.ServeHTTP(w, r)
		got := w.Header().Get("Traceparent")
		m := valid.FindStringSubmatch(got)
		if m == nil || seen.TraceParent != got {
			t.Fatalf("%q became %q, and the function saw %q", from, got, seen.TraceParent)
		}
		if m[2] == span || m[2] == strings.Repeat("0", 16) || m[1] == strings.Repeat("0", 32) {
			t.Errorf("%q became %q, which has no span of its own", from, got)
		}
		if continued != (m[1] == trace) || continued && m[3] != from[len(from)-2:] {
			t.Errorf("%q became %q", from, got)
		}
		if continued && (seen.ParentSpan != span || seen.TraceState != state) || !continued && (seen.ParentSpan != "" || seen.TraceState != "") {
			t.Errorf("%q has the parent %q and the state %q", from, seen.ParentSpan, seen.TraceState)
		}
	}
}

// TestSampling: where traces are collected, the sampler's decision is in the traceparent
// that the function and the caller see. Other flags stay.
func TestSampling(t *testing.T) {
	const from = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"
	var seen, asked string
	for _, sampled := range []bool{true, false} {
		a := New(Config{Log: zerolog.Nop(), Metrics: http.NotFoundHandler(), MaxBody: testMaxBody, Hosts: []string{"example.com"}})
		a.Open(Backend{
			Registry: newFakeRegistry(), Locator: newFakeRegistry(), Tokens: &fakeTokens{}, Audit: &fakeAudit{},
			Invoker: ready(func() faas.Result { return plainResult("{}") }),
			Sample: func(call *faas.Invocation) bool {
				asked = call.TraceParent
				return sampled
			},
		})
		for flags, want := range map[string]string{"00": "01 00", "01": "01 00", "02": "03 02", "03": "03 02", "ff": "ff fe", "": "01 00"} {
			given := from + flags
			if flags == "" {
				given = ""
			}
			seen = serve(a, "GET", "/api/call/hello", "", "Traceparent", given).Header().Get("Traceparent")
			on, off, _ := strings.Cut(want, " ")
			if sampled && !strings.HasSuffix(seen, "-"+on) || !sampled && !strings.HasSuffix(seen, "-"+off) || given != "" && (seen[:36] != given[:36] || asked[53:] != flags) {
				t.Errorf("%q became %q, and the sampler saw %q", given, seen, asked)
			}
		}
	}
}

// TestHeadersAreTheCallers: what a call has to say beside its headers does not change
// the request's.
func TestHeadersAreTheCallers(t *testing.T) {
	a := newAPI(t, newFakeRegistry(), func(_ context.Context, call *received) (faas.Result, error) { return plainResult("{}"), nil })
	for coding, body := range map[string]string{"": "{}", "gzip": gzipped("{}")} {
		r := httptest.NewRequest("POST", "/api/call/hello?a=1", strings.NewReader(body))
		r.Header.Set("Traceparent", "nonsense")
		if coding != "" {
			r.Header.Set("Content-Encoding", coding)
		}
		before, w := r.Header.Clone(), httptest.NewRecorder()
		a.ServeHTTP(w, r)
		if w.Code != 200 || !maps.EqualFunc(before, r.Header, slices.Equal) {
			t.Errorf("answered %d %s, and the headers became %v", w.Code, w.Body, r.Header)
		}
	}
}

// TestRefs goes over a real connection, for a test request would not have some
// of these paths.
func TestRefs(t *testing.T) {
	registry := newFakeRegistry()
	server := httptest.NewServer(newAPI(t, registry, nil))
	defer server.Close()
	for path, want := range map[string]faas.Ref{
		"hello":                   {Name: "hello"},
		"h%65llo":                 {Name: "hello"},
		"hello@3":                 {Name: "hello", Version: 3},
		"hello%403":               {Name: "hello", Version: 3},
		"hello:live":              {Name: "hello", Alias: "live"},
		"hello%3Alive":            {Name: "hello", Alias: "live"},
		testID:                    {ID: testID},
		strings.ToUpper(testID):   {ID: testID},
		testID + "@2":             {ID: testID, Version: 2},
		"%33" + testID[1:] + "@2": {ID: testID, Version: 2},
	} {
		response, err := http.Get(server.URL + "/api/cs/" + path)
		if err != nil || response.StatusCode != 200 || registry.ref != want {
			t.Errorf("%s: %v, %v, resolved %+v", path, response, err, registry.ref)
		}
		response.Body.Close()
	}
	for path, want := range map[string]int{
		"..%2f..%2fetc%2fpasswd": 400,
		"%2e%2e":                 400,
		"..":                     400,
		"a%2fb":                  400,
		"%00":                    400,
		"hello%00":               400,
		"%ff":                    400,
		"%C3%A4":                 400,
		"hello%2540":             400,
		"hello@0":                400,
		"hello@":                 400,
		"{" + testID + "}":       400,
		strings.Repeat("a", 64):  400,
		"a/b":                    404,
		"":                       404,
	} {
		status, header, body := rawRequest(t, server.Listener.Addr().String(), "GET /api/cs/"+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
		wantProblem(t, status, header, body, want, map[int]faas.Code{400: faas.CodeBadRequest, 404: faas.CodeUnknownRoute}[want])
	}
	if status, _, _ := rawRequest(t, server.Listener.Addr().String(), "GET /api/cs/%zz HTTP/1.1\r\nHost: x\r\n\r\n"); status != 400 {
		t.Errorf("%%zz: %d", status)
	}
}

func TestBrokenAnswerIsNoWholeOne(t *testing.T) {
	for what, length := range map[string]int64{"length known": 100, "length unknown": -1} {
		server := httptest.NewServer(newAPI(t, newFakeRegistry(), func(context.Context, *received) (faas.Result, error) {
			body := io.MultiReader(strings.NewReader("half"), brokenReader{})
			return faas.Result{Status: 200, Header: make(http.Header), Body: io.NopCloser(body), Length: length}, nil
		}))
		response, err := http.Get(server.URL + "/api/call/hello")
		if err == nil {
			_, err = io.ReadAll(response.Body)
			response.Body.Close()
		}
		if err == nil {
			t.Errorf("%s: half an answer looked like a whole one", what)
		}
		server.Close()
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("broken") }

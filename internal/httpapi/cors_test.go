package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
)

// corsRegistry has the function hello, with what its live version says of
// origins, and no other.
type corsRegistry struct {
	*fakeRegistry
	former *faas.Version // version 1
}

func (c corsRegistry) Resolve(_ context.Context, ref faas.Ref) (*faas.Function, *faas.Version, error) {
	version := c.fn.Live()
	switch ref.Version {
	case 0, version.Number:
	case 1:
		version = c.former
	default:
		version = nil
	}
	if ref.Name != "hello" && ref.ID != testID || version == nil || ref.Alias != "" && ref.Alias != faas.Live {
		return nil, nil, faas.Errorf(faas.CodeUnknownFunction, "there is no such function")
	}
	return c.fn, version, nil
}

// corsAPI has a function of two versions, of which the second is live, and what
// its calls come to.
func corsAPI(t *testing.T, live, former faas.Origins, invoke invoker) *API {
	registry := corsRegistry{newFakeRegistry(), nil}
	version := func(number int, cors faas.Origins) *faas.Version {
		v := *registry.fn.Live()
		v.Number, v.Settings.CORS = number, cors
		return &v
	}
	fn := &faas.Function{ID: testID, Name: "hello"}
	registry.former = version(1, former)
	registry.fn = fn.With(registry.former).With(version(2, live))
	return newAPI(t, registry, func(ctx context.Context, call *received) (faas.Result, error) {
		_, v, err := registry.Resolve(ctx, call.Ref)
		if err != nil {
			return faas.Result{}, err
		}
		call.Version = v
		return invoke(ctx, call)
	})
}

const appOrigin = "https://app.example.com"

func TestCORS(t *testing.T) {
	ran := 0
	a := corsAPI(t, appOrigin+",http://localhost:3000", "", func(context.Context, *received) (faas.Result, error) {
		ran++
		result := plainResult(`1`)
		result.Header = http.Header{
			"Access-Control-Allow-Origin": {"*"}, "Access-Control-Allow-Credentials": {"true"}, "Access-Control-Expose-Headers": {"X-Mine"},
			"Vary": {"Cookie"}, "X-Mine": {"1"},
		}
		return result, nil
	})
	for _, path := range []string{"hello", "hello@2", "hello@1", "hello:live", testID, "h%65llo", "hello/", "hello/more/", testID + "//x"} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"} {
			for origin, allowed := range map[string]bool{
				appOrigin: true, "http://localhost:3000": true,
				"http://app.example.com": false, appOrigin + ":8443": false, appOrigin + ".evil.test": false, "https://evil.test": false, "null": false, "*": false, "": false,
				appOrigin + ",http://localhost:3000": false, "http://localhost": false,
			} {
				ran = 0
				w := serve(a, method, "/api/call/"+path, "", "Origin", origin, "Sec-Fetch-Site", "cross-site")
				if !allowed {
					wantProblem(t, w.Code, w.Header(), w.Body.String(), 403, faas.CodeCrossSite)
					if ran != 0 || w.Header().Get("Access-Control-Allow-Origin") != "" || w.Header().Get("X-Call-Id") != "" {
						t.Errorf("%q: ran %d times, and answered with %v", origin, ran, w.Header())
					}
					continue
				}
				h := w.Header()
				if w.Code != 200 || ran != 1 || fmt.Sprint(h["Access-Control-Allow-Origin"]) != "["+origin+"]" || h["Access-Control-Allow-Credentials"] != nil ||
					fmt.Sprint(h["Access-Control-Expose-Headers"]) != "["+corsExposed+"]" || h.Get("X-Mine") != "1" {
					t.Errorf("%s of %s: answered %d with %v", origin, path, w.Code, h)
				}
				if vary := h["Vary"]; !slices.Contains(vary, "Origin") || !slices.Contains(vary, "Cookie") {
					t.Errorf("Vary is %q", vary)
				}
			}
		}
	}
	// A cache that has the answer to one without an origin must ask again, and
	// nobody is told more than who may read it.
	h := serve(a, "GET", "/api/call/hello", "").Header()
	if !slices.Contains(h["Vary"], "Origin") || h["Access-Control-Allow-Origin"] != nil {
		t.Errorf("without an origin: %v", h)
	}
	for _, header := range [][]string{
		{"Sec-Fetch-Site", "cross-site"},                  // <img>, a link
		{"Sec-Fetch-Site", "same-site", "Origin", "null"}, // a sandboxed page
		{"Sec-Fetch-Site", "cross-site", "Referer", "https://app.example.com/"},
	} {
		ran = 0
		if w := serve(a, "GET", "/api/call/hello", "", header...); w.Code != 403 || ran != 0 {
			t.Errorf("%v: answered %d, ran %d times", header, w.Code, ran)
		}
	}
	for _, request := range []string{"PUT /api/call/other", "DELETE /api/functions/hello", "GET /api/cs/hello", "GET /api/functions/hello", "GET /healthz", "HEAD /api/call/other/hello", "HEAD /api/stats"} {
		method, target, _ := strings.Cut(request, " ")
		if w := serve(a, method, target, "", "Origin", appOrigin); w.Code != 403 || w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: answered %d with %v", request, w.Code, w.Header())
		}
	}
}

// TestCORSForAny: with * any page may, also one that wants no answer.
func TestCORSForAny(t *testing.T) {
	ran := 0
	a := corsAPI(t, faas.AnyOrigin, "", func(context.Context, *received) (faas.Result, error) {
		ran++
		return plainResult(`1`), nil
	})
	for origin, want := range map[string]string{"https://evil.test": "[*]", "null": "[*]", "": "[]"} {
		header := []string{"Sec-Fetch-Site", "cross-site"}
		if origin != "" {
			header = append(header, "Origin", origin)
		}
		w := serve(a, "GET", "/api/call/hello", "", header...)
		if got := fmt.Sprint(w.Header()["Access-Control-Allow-Origin"]); w.Code != 200 || got != want {
			t.Errorf("%q: answered %d, allowing %s", origin, w.Code, got)
		}
	}
	if ran != 3 {
		t.Errorf("it ran %d times", ran)
	}
	for _, path := range []string{"/api/call/other", "/api/cs/hello", "/api/stats"} {
		if w := serve(a, "GET", path, "", "Origin", "https://evil.test"); w.Code != 403 {
			t.Errorf("%s: answered %d", path, w.Code)
		}
	}
}

// TestCORSOnErrors: whatever becomes of a call, the page that may make it can
// read why.
func TestCORSOnErrors(t *testing.T) {
	var fail error
	a := corsAPI(t, appOrigin, "*", func(context.Context, *received) (faas.Result, error) { return faas.Result{}, fail })
	wants := func(target string, status int) {
		t.Helper()
		w := serve(a, "GET", target, "", "Origin", appOrigin)
		h := w.Header()
		if w.Code != status || fmt.Sprint(h["Access-Control-Allow-Origin"]) != "["+appOrigin+"]" || !strings.Contains(h.Get("Access-Control-Expose-Headers"), "Fob-Error") || h.Get("Vary") != "Origin" {
			t.Errorf("%s, %v: answered %d with %v", target, fail, w.Code, h)
		}
	}
	for _, info := range faas.CodeTable {
		fail = faas.Errorf(info.Code, "so it is")
		wants("/api/call/hello", info.Status)
	}
	fail = fmt.Errorf("something else")
	wants("/api/call/hello", 500)
	wants("/api/call/hello@3", 404)
	wants("/api/call/hello:other", 404)
	wants("/api/call/hello?a=%zz", 400)
	wants("/api/call/hello?"+strings.Repeat("x", maxQuery+1), 413)
	backend := a.opened.Load().Backend
	backend.Tokens = &fakeTokens{by: map[string]*faas.Token{"another's": {ID: "t"}}}
	a.Open(backend)
	wants("/api/call/hello", 401) // the page may send a token, and learns that it needs one
	a.Open(Backend{Tokens: &fakeTokens{}})
	if w := serve(a, "GET", "/api/call/hello", "", "Origin", appOrigin); w.Code != 503 {
		t.Errorf("without a backend: answered %d", w.Code)
	}
}

func TestPreflight(t *testing.T) {
	for cors, allowed := range map[faas.Origins]string{appOrigin: appOrigin, "*": "*", "": "", "https://other.example": ""} {
		a := corsAPI(t, cors, appOrigin, func(context.Context, *received) (faas.Result, error) {
			t.Error("a preflight ran the function")
			return plainResult(`1`), nil
		})
		ask := func(path string) (int, http.Header, string) {
			w := serve(a, "OPTIONS", path, "", "Origin", appOrigin, "Sec-Fetch-Site", "cross-site",
				"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,content-type")
			return w.Code, w.Header(), w.Body.String()
		}
		none, noneHeader, noneBody := ask("/api/call/nothing")
		wantProblem(t, none, noneHeader, noneBody, 403, faas.CodeCrossSite)
		for _, path := range []string{"/api/call/hello", "/api/call/hello@1", "/api/call/hello@77", "/api/call/hello/more"} {
			status, h, body := ask(path)
			if allowed == "" {
				if status != none || fmt.Sprint(h) != fmt.Sprint(noneHeader) || body != noneBody {
					t.Errorf("%s is told from no function: %d %v %s", path, status, h, body)
				}
				continue
			}
			if status != 204 || body != "" || h.Get("Access-Control-Allow-Origin") != allowed || h.Get("Vary") != "Origin" ||
				h.Get("Access-Control-Allow-Methods") != "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS" || h["Access-Control-Allow-Credentials"] != nil {
				t.Errorf("%s: answered %d with %v", path, status, h)
			}
			for _, name := range []string{"Authorization", "Content-Type", "Fob-Timeout", "X-Call-Id", "Traceparent"} {
				if !slices.Contains(strings.Split(h.Get("Access-Control-Allow-Headers"), ", "), name) {
					t.Errorf("a page may not send %s: %v", name, h)
				}
			}
		}
		if status, h, _ := ask("/api/functions/hello"); status != 403 || h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("what is no call: %d %v", status, h)
		}
	}
}

package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// TestOriginalAnswers holds the answers that the original's users know, byte
// for byte.
func TestOriginalAnswers(t *testing.T) {
	registry := newFakeRegistry()
	a := newAPI(t, registry, func(context.Context, *received) (faas.Result, error) { return plainResult(`{"result": 2}`), nil })
	check := func(request, body, kind, want string) *httptest.ResponseRecorder {
		t.Helper()
		method, target, _ := strings.Cut(request, " ")
		w := serve(a, method, target, body)
		if w.Code != http.StatusOK || w.Body.String() != want || w.Header().Get("Content-Type") != kind {
			t.Errorf("%s: answered %d %s %q, want %q", request, w.Code, w.Header().Get("Content-Type"), w.Body, want)
		}
		return w
	}
	const isJSON = "application/json"
	w := check("POST /api/gen", "def callme(): return 42", isJSON, `{"id": "`+testID+`"}`)
	if l := w.Header().Get("Location"); l != "/api/functions/"+testID {
		t.Errorf("Location: %s", l)
	}
	check("GET /api/call/hello?param1:1,param2:1", "", isJSON, `{"result": 2}`)
	check("GET /api/stats", "", isJSON, `{"functions": ["`+testID+`", "`+otherID+`"]}`)
	check("GET /api/meta/hello", "", isJSON, `{"host": null, "port": null, "sandboxes": []}`)
	registry.sandboxes = []faas.SandboxInfo{{ID: "00112233aabbccdd", State: "ready", Host: "172.17.0.2", Port: 8080, InFlight: 0, Started: time.Unix(1e9, 0).UTC()}}
	check("GET /api/meta/hello", "", isJSON, `{"host": "172.17.0.2", "port": 8080, "sandboxes": [{"id": "00112233aabbccdd", "state": "ready", `+
		`"host": "172.17.0.2", "port": 8080, "in_flight": 0, "started": "2001-09-09T01:46:40Z"}]}`)
	registry.code = "<b> & \"ä\"\r\n"
	w = check("GET /api/cs/hello", "", "text/plain; charset=utf-8", registry.code)
	if w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Header().Get("Fob-Version") != "3" {
		t.Errorf("the code came with %v", w.Header())
	}
}

func TestEncode(t *testing.T) {
	for want, v := range map[string]any{
		`{"a": [1, 2, {"b": null}]}`: map[string]any{"a": []any{1, 2, map[string]any{"b": nil}}},
		`"a:b,c\"d:e,\\"`:            `a:b,c"d:e,\`,
		`{"<&>": "\u2028"}`:          map[string]string{"<&>": "\u2028"},
		`["\\", "x", "\\\""]`:        []string{`\`, "x", `\"`},
		`{}`:                         map[string]int{},
	} {
		if got := string(encode(v)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestListFunctions(t *testing.T) {
	list := func(query string) (*fakeRegistry, *httptest.ResponseRecorder, api.Functions) {
		registry := newFakeRegistry()
		w := serve(newAPI(t, registry, nil), "GET", "/api/functions"+query, "")
		var p api.Functions
		if w.Code == http.StatusOK {
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
				t.Errorf("%s: %v", w.Body, err)
			}
		}
		return registry, w, p
	}
	registry, _, p := list("")
	if registry.limit != 101 || registry.after != "" || len(p.Functions) != 2 || p.Next != nil {
		t.Errorf("all: asked for %d, got %+v", registry.limit, p)
	}
	if p.Functions[0].Version == nil || p.Functions[0].Version.Number != 3 {
		t.Errorf("a list shows %+v", p.Functions[0])
	}
	registry, _, p = list("?limit=1&after=" + otherID)
	if registry.limit != 2 || registry.after != otherID || len(p.Functions) != 1 || p.Next == nil || *p.Next != registry.fn.Place().String() {
		t.Errorf("a page: asked for %d after %s, got %+v", registry.limit, registry.after, p)
	}
	if registry, _, _ = list("?name=he&limit=7"); registry.prefix != "he" || registry.limit != 8 {
		t.Errorf("asked for %d whose names begin with %q", registry.limit, registry.prefix)
	}
	for _, query := range []string{"?limit=0", "?name=a&name=b", "?limit=1001", "?limit=x", "?limit=", "?limit=1&limit=2", "?page=1", "?limit=%zz"} {
		_, w, _ := list(query)
		wantProblem(t, w.Code, w.Header(), w.Body.String(), 400, faas.CodeBadRequest)
	}
}

func TestGetAndDelete(t *testing.T) {
	registry := newFakeRegistry()
	a := newAPI(t, registry, nil)
	w := serve(a, "GET", "/api/functions/hello", "")
	var shown api.ShownFunction
	if err := json.Unmarshal(w.Body.Bytes(), &shown); err != nil || w.Code != 200 || shown.ID != testID || len(shown.Versions) != 1 || shown.Next != nil || shown.Aliases["live"] != 3 {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
	w = serve(a, "DELETE", "/api/functions/hello", "")
	if w.Code != http.StatusNoContent || w.Body.Len() > 0 || registry.ref.Name != "hello" {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
}

func TestVersionsPages(t *testing.T) {
	registry := newFakeRegistry()
	for n := 4; n <= 30; n++ {
		v := *registry.fn.Live()
		v.Number = n
		registry.fn = registry.fn.With(&v)
	}
	registry.fn = registry.fn.Without([]int{20, 21})
	a := newAPI(t, registry, nil)
	get := func(path string) (numbers []int, next string) {
		t.Helper()
		w := serve(a, "GET", path, "")
		var page api.Versions
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || w.Code != http.StatusOK || page.Versions == nil {
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
		for _, v := range page.Versions {
			numbers = append(numbers, v.Number)
		}
		if page.Next != nil {
			next = *page.Next
		}
		return numbers, next
	}
	shown, next := get("/api/functions/hello")
	if len(shown) != shownVersions || shown[0] != 30 || shown[9] != 19 || next != "19" {
		t.Errorf("it is shown with %v, then %s", shown, next)
	}
	rest, next := get("/api/functions/hello/versions?after=" + next)
	if len(rest) != 16 || rest[0] != 18 || rest[15] != 3 || next != "" {
		t.Errorf("then come %v, then %s", rest, next)
	}
	// One that was dropped is a place as good as any.
	for path, want := range map[string]string{
		"?limit=2": "[30 29] 29", "?limit=2&after=21": "[19 18] 18", "?limit=1&after=4": "[3] ", "?after=3": "[] ", "?limit=1&after=1000": "[30] 30",
	} {
		if numbers, next := get("/api/functions/hello/versions" + path); fmt.Sprint(numbers, " ", next) != want {
			t.Errorf("%s: %v, then %s; want %s", path, numbers, next, want)
		}
	}
	for _, path := range []string{"?after=0", "?after=x", "?after=-1", "?limit=0", "?limit=1001", "?before=3"} {
		w := serve(a, "GET", "/api/functions/hello/versions"+path, "")
		wantProblem(t, w.Code, w.Header(), w.Body.String(), 400, faas.CodeBadRequest)
	}
	w := serve(a, "GET", "/api/functions/hello@3/versions", "")
	wantProblem(t, w.Code, w.Header(), w.Body.String(), 400, faas.CodeBadRequest)
}

func TestAllow(t *testing.T) {
	a := newAPI(t, newFakeRegistry(), nil)
	for request, want := range map[string]string{
		"GET /api/gen":               "POST",
		"HEAD /api/gen/":             "POST",
		"TRACE /api/call/hello":      "GET, HEAD, POST, PUT, PATCH, DELETE",
		"CONNECT /api/call/hello/x":  "GET, HEAD, POST, PUT, PATCH, DELETE",
		"POST /api/functions/hello":  "GET, HEAD, PUT, PATCH, DELETE",
		"POST /api/functions/":       "GET, HEAD",
		"OPTIONS /api/functions/a@3": "GET, HEAD, PUT, PATCH, DELETE",
		"POST /metrics":              "GET, HEAD",
		"PROPFIND /healthz":          "GET, HEAD",
	} {
		method, target, _ := strings.Cut(request, " ")
		w := serve(a, method, target, "")
		if got := strings.Join(w.Header().Values("Allow"), ", "); w.Code != http.StatusMethodNotAllowed || got != want {
			t.Errorf("%s: answered %d, Allow: %s, want %s", request, w.Code, got, want)
			continue
		}
		wantProblem(t, w.Code, w.Header(), w.Body.String(), 405, faas.CodeMethodNotAllowed)
	}
	for _, target := range []string{"/", "/api", "/api/", "/api/call/", "/api/call//", "/api/cs/a/b", "/api/cs/hello//", "/API/gen", "/api/stats/..", "//api/stats"} {
		w := serve(a, "GET", target, "")
		wantProblem(t, w.Code, w.Header(), w.Body.String(), 404, faas.CodeUnknownRoute)
	}
}

func TestPanic(t *testing.T) {
	a := newAPI(t, newFakeRegistry(), func(context.Context, *received) (faas.Result, error) { panic("secret") })
	w := serve(a, "GET", "/api/call/hello", "", "X-Call-Id", "mine")
	p := wantProblem(t, w.Code, w.Header(), w.Body.String(), 500, faas.CodeInternal)
	if strings.Contains(w.Body.String(), "secret") || p.CallID != "mine" {
		t.Errorf("answered %s", w.Body)
	}
}

// TestNotOpen: without a backend everything that needs one says why there is
// none, and the rest answers.
func TestNotOpen(t *testing.T) {
	a := New(Config{Metrics: http.NotFoundHandler(), MaxBody: testMaxBody, Hosts: []string{"example.com"}})
	for _, why := range []*faas.Error{nil, faas.Errorf(faas.CodeStandby, "another one serves").After(time.Second)} {
		code := faas.CodeStarting
		if why != nil {
			a.Unready(why)
			code = why.Code
		}
		for _, request := range []string{
			"POST /api/gen", "GET /api/call/hello", "POST /api/call/hello", "GET /api/stats", "GET /api/meta/hello", "GET /api/cs/hello", "GET /readyz",
			"GET /api/functions", "GET /api/functions/hello", "PUT /api/functions/hello", "PATCH /api/functions/hello", "DELETE /api/functions/hello",
		} {
			method, target, _ := strings.Cut(request, " ")
			w := serve(a, method, target, "x = 1")
			wantProblem(t, w.Code, w.Header(), w.Body.String(), 503, code)
			if w.Header().Get("Retry-After") != "1" {
				t.Errorf("%s: answered %v", request, w.Header())
			}
		}
		if w := serve(a, "GET", "/healthz", ""); w.Code != 200 {
			t.Errorf("GET /healthz: answered %d", w.Code)
		}
	}
}

// TestUnreadyServesOn: with a backend, being not ready concerns /readyz alone,
// so that a dispatcher that drains finishes what it has.
func TestUnreadyServesOn(t *testing.T) {
	a := newAPI(t, newFakeRegistry(), func(context.Context, *received) (faas.Result, error) { return plainResult(`{"result": 2}`), nil })
	if w := serve(a, "GET", "/readyz", ""); w.Code != 200 || w.Body.String() != `{"status": "ready"}` {
		t.Errorf("GET /readyz: answered %d %s", w.Code, w.Body)
	}
	a.Unready(faas.Errorf(faas.CodeDraining, "shutting down"))
	w := serve(a, "GET", "/readyz", "")
	wantProblem(t, w.Code, w.Header(), w.Body.String(), 503, faas.CodeDraining)
	if w := serve(a, "GET", "/api/call/hello", ""); w.Code != 200 {
		t.Errorf("a call: answered %d %s", w.Code, w.Body)
	}
}

func TestOperations(t *testing.T) {
	a := newAPI(t, newFakeRegistry(), nil)
	for target, want := range map[string]string{
		"/healthz":          `{"status": "ok"}`,
		"/metrics":          "metrics",
		"/api/version":      `{"version": "1", "commit": "c", "go": "go", "engine": "docker"}`,
		"/api/openapi.yaml": string(api.OpenAPI),
	} {
		if w := serve(a, "GET", target, ""); w.Code != 200 || w.Body.String() != want {
			t.Errorf("%s: answered %d %.200s", target, w.Code, w.Body)
		}
	}
}

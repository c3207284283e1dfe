package httpapi

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
)

// secretOf is how tests write the secret of a token.
func secretOf(name string) string { return "fob_0123456789abcdef_" + name }

// newTokens returns tokens by name and grants, as in "ann": "read invoke:hello".
func newTokens(t testing.TB, grants map[string]string) *fakeTokens {
	t.Helper()
	tokens := &fakeTokens{by: map[string]*faas.Token{}}
	for name, texts := range grants {
		token := &faas.Token{ID: name, Name: name}
		for _, text := range strings.Fields(texts) {
			g, err := faas.ParseGrant(text)
			if err != nil {
				t.Fatal(err)
			}
			token.Grants = append(token.Grants, g)
		}
		tokens.by[secretOf(name)] = token
	}
	return tokens
}

// guarded returns an API whose one function, hello, tells what it was sent as
// Authorization, and who may call it.
func guarded(t *testing.T, public bool, grants map[string]string) (*API, *fakeRegistry) {
	t.Helper()
	registry := newFakeRegistry()
	registry.fn.Live().Settings.Public = public
	invoke := func(_ context.Context, call *received) (faas.Result, error) {
		return plainResult(strings.Join(call.Header["Authorization"], "|")), nil
	}
	a := newAPI(t, registry, invoke)
	a.Open(Backend{Registry: registry, Locator: registry, Invoker: invoker(invoke), Tokens: newTokens(t, grants), Audit: &fakeAudit{}})
	return a, registry
}

// A function gets to see any Authorization but ours.
func TestAuthorizationPassesThrough(t *testing.T) {
	ann := secretOf("ann")
	for _, c := range []struct {
		header []string
		status int // where a token is needed
		passed string
	}{
		{nil, 401, ""},
		{[]string{"Bearer " + ann}, 200, ""},
		{[]string{"bearer  \t" + ann + " "}, 200, ""},
		{[]string{"BEARER " + ann}, 200, ""},
		{[]string{"Bearer fob_nobody"}, 401, ""},
		{[]string{"Bearer theirs"}, 401, "Bearer theirs"},
		{[]string{"Basic YTpi"}, 401, "Basic YTpi"},
		{[]string{"Basic " + ann}, 401, ""},
		{[]string{ann}, 401, ""},
		{[]string{"Bearer\t" + ann}, 401, ""},
		{[]string{"Bearer theirs, Bearer " + ann}, 401, ""}, // as a proxy joins two
		{[]string{`Token token="` + ann + `"`}, 401, ""},
		{[]string{"Bearer theirs", ann}, 401, ""},
		{[]string{"Bearer"}, 401, "Bearer"},
		{[]string{""}, 401, ""},
		{[]string{"Bearer " + ann, "Basic YTpi"}, 401, ""},
		{[]string{"Basic YTpi", "Bearer " + ann}, 401, ""},
		{[]string{"Basic YTpi", "Bearer x"}, 401, "Basic YTpi|Bearer x"},
	} {
		for _, public := range []bool{false, true} {
			a, _ := guarded(t, public, map[string]string{"ann": "invoke"})
			r := httptest.NewRequest("GET", "/api/call/hello", nil)
			if c.header != nil {
				r.Header["Authorization"] = slices.Clone(c.header)
			}
			w := httptest.NewRecorder()
			a.ServeHTTP(w, r)
			want, passed := c.status, c.passed
			if public {
				want = 200
			}
			if w.Code != want || want == 200 && w.Body.String() != passed {
				t.Errorf("%q, public is %v: answered %d %q, want %d %q", c.header, public, w.Code, w.Body, want, passed)
			}
			if want == 401 && (w.Header().Get("WWW-Authenticate") != "Bearer" || w.Header().Get("X-Call-Id") == "" || w.Header().Get("Server-Timing") == "") {
				t.Errorf("%q: the header is %v", c.header, w.Header())
			}
		}
	}
	// Also where no token is needed, somebody may show one.
	a, _ := guarded(t, false, nil)
	if w := serve(a, "GET", "/api/call/hello", "", "Authorization", "Bearer "+ann); w.Code != 200 || w.Body.String() != "" {
		t.Errorf("answered %d, and passed on %q", w.Code, w.Body)
	}
}

// What is refused is refused before its body is read.
func TestRefusedBeforeTheBody(t *testing.T) {
	a, _ := guarded(t, false, map[string]string{"ann": "read", "bob": "deploy:other invoke:other admin:other"})
	for _, who := range []string{"nobody", "ann", "bob"} {
		for _, target := range []string{"POST /api/gen?name=hello", "POST /api/call/hello", "PUT /api/functions/hello", "PATCH /api/functions/hello", "POST /api/tokens"} {
			method, path, _ := strings.Cut(target, " ")
			body := &unread{}
			r := httptest.NewRequest(method, path, body)
			r.ContentLength = 100
			r.Header.Set("Authorization", "Bearer "+secretOf(who))
			w := httptest.NewRecorder()
			a.ServeHTTP(w, r)
			if w.Code < 401 || w.Code > 404 || body.reads > 0 {
				t.Errorf("%s by %s: answered %d after %d reads of the body", target, who, w.Code, body.reads)
			}
		}
	}
}

// Whoever may make some functions by name hears what is wrong with a setting, wherever
// in the query the name is.
func TestGenForSomeSaysWhatIsWrong(t *testing.T) {
	a, _ := guarded(t, false, map[string]string{"bob": "deploy:new"})
	for query, want := range map[string]int{
		"name=new&timeout=bad":     http.StatusBadRequest,
		"timeout=bad&name=new":     http.StatusBadRequest,
		"timeout=5s&zz=1&name=new": http.StatusBadRequest,
		"name=new&name=other":      http.StatusBadRequest,
		"timeout=bad&name=other":   http.StatusForbidden,
		"timeout=bad":              http.StatusForbidden,
		"name=other&name=new":      http.StatusForbidden,
		"name=%zz&name=new":        http.StatusForbidden,
	} {
		w := serve(a, "POST", "/api/gen?"+query, code, "Authorization", "Bearer "+secretOf("bob"))
		if w.Code != want {
			t.Errorf("?%s: answered %d %s, want %d", query, w.Code, w.Body, want)
		}
	}
}

type unread struct{ reads int }

func (u *unread) Read([]byte) (int, error) { u.reads++; return 0, http.ErrBodyReadAfterClose }

// With the API open, but no backend, nobody is let in whom nobody can know.
func TestNotYetOpen(t *testing.T) {
	a := New(Config{Hosts: []string{"example.com"}, Metrics: http.NotFoundHandler()})
	for _, path := range []string{"/api/stats", "/metrics", "/api/tokens", "/api/call/hello"} {
		w := serve(a, "GET", path, "", "Authorization", "Bearer "+secretOf("ann"))
		wantProblem(t, w.Code, w.Header(), w.Body.String(), 503, faas.CodeStarting)
	}
	// On standby there are metrics, though not of functions, and nothing else.
	a.Unready(faas.Errorf(faas.CodeStandby, "another one serves"))
	for path, status := range map[string]int{"/metrics": 404, "/api/stats": 503, "/api/tokens": 503, "/api/audit": 503} { // 404 is this handler's
		if w := serve(a, "GET", path, ""); w.Code != status {
			t.Errorf("on standby %s is answered %d", path, w.Code)
		}
	}
	// The owner of a data folder manages its tokens, and nothing else is there.
	a.Open(Backend{Tokens: &fakeTokens{}})
	for path, status := range map[string]int{"/api/stats": 503, "/api/call/hello": 503, "/api/functions/hello": 503, "/healthz": 200} {
		w := httptest.NewRecorder()
		a.Local().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != status {
			t.Errorf("%s: answered %d %s, want %d", path, w.Code, w.Body, status)
		}
	}
}

// A sandbox gets what it holds, and at most that when live moves on meanwhile.
func TestSandboxesToken(t *testing.T) {
	a, registry := guarded(t, true, map[string]string{"ann": "admin"})
	ask := func(path, token string) int { return serve(a, "GET", path, "", "Authorization", "Bearer "+token).Code }
	if got := ask("/api/cs/hello", sandboxToken); got != 200 {
		t.Errorf("its own code: %d", got)
	}
	for _, path := range []string{"/api/meta/hello", "/api/functions/hello", "/api/stats", "/api/tokens", "/metrics"} {
		if got := ask(path, sandboxToken); got != 401 {
			t.Errorf("%s: %d", path, got)
		}
	}
	if got := ask("/api/cs/hello", sandboxToken[1:]); got != 401 {
		t.Errorf("another token: %d", got)
	}
	registry.err = faas.UnknownFunction(faas.Ref{Name: "hello"})
	if got := ask("/api/cs/hello", sandboxToken); got != 401 {
		t.Errorf("the code of a function that is not there: %d", got)
	}
	registry.err = nil
	next := *registry.fn.Live()
	next.Number++
	held := registry.fn.Live()
	registry.fn = registry.fn.With(&next)
	a.Open(Backend{Registry: registry, Locator: &holding{registry, held.Key()}, Tokens: newTokens(t, map[string]string{"ann": "admin"}), Audit: &fakeAudit{}})
	if got := ask("/api/cs/hello", sandboxToken); got != 401 {
		t.Errorf("the code of the next version: %d", got)
	}
}

// holding is a registry whose sandbox holds a version that is not live.
type holding struct {
	*fakeRegistry
	key faas.VersionKey
}

func (h *holding) Holder(context.Context, string) (string, faas.VersionKey, bool) {
	return "00112233aabbccdd", h.key, true
}

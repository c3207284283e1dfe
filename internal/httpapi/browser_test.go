package httpapi

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"

	"github.com/flockofbirds/fob/internal/faas"
)

func TestHosts(t *testing.T) {
	h := newHosts([]string{"fob.example.com", "*.Birds.example", "nest"})
	for host, want := range map[string]bool{
		"": true, "localhost": true, "localhost:9999": true, "LocalHost.": true, "localhost.:80": true, "a.localhost": true, "A.b.localhost:1": true,
		"127.0.0.1": true, "127.0.0.1:9999": true, "192.168.7.9:80": true, "0.0.0.0": true, "127.0.0.1:": true,
		"[::1]": true, "[::1]:9999": true, "[2001:db8::1]": true, "[::ffff:127.0.0.1]:80": true,
		"fob.example.com": true, "FOB.example.com:443": true, "fob.example.com.": true, "nest": true, "nest:9999": true,
		"wren.birds.example": true, "a.wren.BIRDS.example:80": true,

		"evil.test": false, "evil.test:9999": false, "127.0.0.1.evil.com": false, "127.0.0.1.evil.com:9999": false, "localhost.evil.com": false,
		"evil-localhost": false, "xlocalhost": false, "localhost..": false, "localhost.com": false, ".": false, ":": false, ":80": false,
		"example.com": false, "xfob.example.com": false, "a.fob.example.com": false, "fob.example.com.evil.test": false,
		"birds.example": false, "xbirds.example": false, "wren.birds.example.evil.test": false,
		"127.0.0.1@evil.com": false, "localhost@evil.com": false, "evil.com@localhost": false, "user:127.0.0.1@localhost": false, "localhost:80@evil.com": false,
		"localhost:x": false, "localhost:80:80": false, "localhost:999999": false, "localhost:-1": false, "localhost/": false, "localhost#": false, "localhost\\.evil.com": false,
		"::1": false, "[::1": false, "[::1]evil.com": false, "[::1].evil.com": false, "[::1%25eth0]": false, "[fe80::1%eth0]:80": false, "[fe80::1%.evil.com]": false,
		"[127.0.0.1]": false, "[localhost]": false, "[]": false, "[": false, "]": false,
		"127.1": false, "2130706433": false, "0x7f.0.0.1": false, "0177.0.0.1": false, "127.0.0.1.": false, "127.0.0.256": false, "127.0.0.1 ": false,
		"évil.localhost": false, "nest\x00": false, "*.birds.example": false, "%6eest": false,
	} {
		if got := h.allow(host); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
}

func TestCheckHost(t *testing.T) {
	for _, good := range []string{"a", "fob.example.com", "*.example.com", "FOB", "my_service", "xn--bcher-kva.example"} {
		if err := CheckHost(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", "*", "*.", "a.*", "a:80", "https://a", "a/", "a b", "a..b", ".a", "a.", "-a", "[::1]", "bücher.example", "*a.example", strings.Repeat("a.", 200) + "a"} {
		if CheckHost(bad) == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

// everyRoute returns a request to every route, and to none.
func everyRoute(t *testing.T) []string {
	t.Helper()
	all := []string{"GET /", "GET /favicon.ico", "HEAD /api/call/hello", "OPTIONS /api/call/hello", "PUT /api/call/hello", "GET /api/call/", "GET /api/call/a%2Fb", "GET //api/call/hello", "TRACE /healthz"}
	a := newAPI(t, newFakeRegistry(), nil)
	err := chi.Walk(a.Routes(), func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		all = append(all, method+" "+strings.ReplaceAll(route, "{ref}", "hello"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestGuard: no route answers what another site's page, or a rebound name, asks.
func TestGuard(t *testing.T) {
	a := newAPI(t, newFakeRegistry(), func(context.Context, *faas.Call) (*faas.Result, error) {
		t.Error("the function ran")
		return plainResult(`1`), nil
	})
	ask := func(request, host string, header http.Header) *httptest.ResponseRecorder {
		method, target, _ := strings.Cut(request, " ")
		r := httptest.NewRequest(method, target, strings.NewReader("def callme(): pass"))
		r.Host = host
		r.Header = header
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		return w
	}
	for _, request := range everyRoute(t) {
		w := ask(request, "evil.test:9999", http.Header{})
		p := wantProblem(t, w.Code, w.Header(), w.Body.String(), 403, codeBadHost)
		if !strings.Contains(p.Detail, "evil.test") || !strings.Contains(p.Detail, "FOB_HOSTS") {
			t.Errorf("the error says %q", p.Detail)
		}
		if w := ask(request, "evil.test", http.Header{"Sec-Fetch-Site": {"same-origin"}, "Origin": {"http://evil.test"}}); w.Code != 403 {
			t.Errorf("%s as a rebound name: %d", request, w.Code)
		}
		for what, header := range map[string]http.Header{
			"cross-site":              {"Sec-Fetch-Site": {"cross-site"}},
			"same-site":               {"Sec-Fetch-Site": {"same-site"}},
			"a new word":              {"Sec-Fetch-Site": {"other"}},
			"an empty word":           {"Sec-Fetch-Site": {""}},
			"both":                    {"Sec-Fetch-Site": {"same-origin", "cross-site"}},
			"another origin":          {"Origin": {"http://evil.test"}},
			"another port":            {"Origin": {"http://127.0.0.1:3000"}},
			"no port":                 {"Origin": {"http://127.0.0.1"}},
			"null":                    {"Origin": {"null"}},
			"empty":                   {"Origin": {""}},
			"two origins":             {"Origin": {"http://127.0.0.1:9999", "http://evil.test"}},
			"two in one":              {"Origin": {"http://127.0.0.1:9999, http://evil.test"}},
			"another scheme":          {"Origin": {"file://127.0.0.1:9999"}},
			"no scheme":               {"Origin": {"127.0.0.1:9999"}},
			"a longer name":           {"Origin": {"http://127.0.0.1:9999.evil.test"}},
			"typed, by another":       {"Origin": {"http://evil.test"}, "Sec-Fetch-Site": {"none"}},
			"ours, by another":        {"Origin": {"http://127.0.0.1:9999"}, "Sec-Fetch-Site": {"cross-site"}},
			"another, said to be not": {"Origin": {"http://evil.test"}, "Sec-Fetch-Site": {"same-origin"}},
		} {
			w := ask(request, "127.0.0.1:9999", header)
			if w.Code != 403 || !strings.Contains(w.Body.String(), string(codeCrossSite)) && request[:4] != "HEAD" {
				t.Errorf("%s of %s: answered %d %s", what, request, w.Code, w.Body)
			}
			for name := range w.Header() {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s of %s: answered with %s", what, request, name)
				}
			}
		}
	}
}

// TestGuardLetsIn: curl, the user, and pages of the same origin are let in.
func TestGuardLetsIn(t *testing.T) {
	a := newAPI(t, newFakeRegistry(), func(context.Context, *faas.Call) (*faas.Result, error) { return plainResult(`1`), nil })
	for what, c := range map[string]struct {
		host   string
		header http.Header
	}{
		"curl":              {"127.0.0.1:9999", nil},
		"HTTP/1.0":          {"", nil},
		"typed":             {"localhost:9999", http.Header{"Sec-Fetch-Site": {"none"}}},
		"same origin":       {"localhost:9999", http.Header{"Sec-Fetch-Site": {"same-origin"}}},
		"POST":              {"localhost:9999", http.Header{"Sec-Fetch-Site": {"same-origin"}, "Origin": {"http://localhost:9999"}}},
		"an older browser":  {"localhost:9999", http.Header{"Origin": {"http://localhost:9999"}}},
		"port 80":           {"example.com", http.Header{"Origin": {"http://example.com"}}},
		"port 80 said":      {"example.com:80", http.Header{"Origin": {"http://example.com"}}},
		"behind TLS":        {"example.com", http.Header{"Origin": {"https://example.com"}, "Sec-Fetch-Site": {"same-origin"}}},
		"behind TLS, 443":   {"example.com:443", http.Header{"Origin": {"https://example.com"}}},
		"behind TLS, 8443":  {"example.com:8443", http.Header{"Origin": {"https://example.com:8443"}}},
		"in other letters":  {"Example.COM", http.Header{"Origin": {"https://example.com"}}},
		"an IPv6 address":   {"[::1]:9999", http.Header{"Origin": {"http://[::1]:9999"}}},
		"an IPv6 address 2": {"[::1]", http.Header{"Origin": {"https://[::1]"}}},
	} {
		for _, method := range []string{"GET", "POST"} {
			r := httptest.NewRequest(method, "/api/call/hello", nil)
			r.Host = c.host
			if c.header != nil {
				r.Header = c.header.Clone()
			}
			w := httptest.NewRecorder()
			a.ServeHTTP(w, r)
			if w.Code != 200 {
				t.Errorf("%s, %s: answered %d %s", what, method, w.Code, w.Body)
			}
		}
	}
}

// TestContain: what a browser would show of a function's answers has no power
// over the API, and what it would not costs nothing.
func TestContain(t *testing.T) {
	for mediaType, data := range map[string]bool{
		"application/json": true, "application/json; charset=utf-8": true, "Application/JSON": true, "application/x-ndjson": true, "application/ndjson ;x=y": true,
		"text/event-stream": true, "text/event-stream;charset=utf-8": true,
		"": false, "text/html": false, "text/plain; charset=utf-8": false, "image/svg+xml": false, "application/xml": false, "text/javascript": false, "*/*": false, "unknown/unknown": false,
		"application/json, text/html": false, "application/json; x=,text/html": false, "text/html; a=application/json": false, "application/jsonx": false, "x application/json": false,
		"application/xhtml+xml; application/json": false, "application/octet-stream": false, "application/pdf": false,
	} {
		for _, own := range [][]string{nil, {"default-src 'self'"}, {"sandbox allow-same-origin", "script-src *"}} {
			header := http.Header{"Referrer-Policy": {"unsafe-url"}, "X-Content-Type-Options": {"sniff"}}
			if own != nil {
				header["Content-Security-Policy"] = own
			}
			a := newAPI(t, newFakeRegistry(), func(context.Context, *faas.Call) (*faas.Result, error) {
				result := plainResult(`<script>1</script>`)
				result.ContentType, result.Header = mediaType, header
				return result, nil
			})
			h := serve(a, "GET", "/api/call/hello", "").Header()
			if got := h["X-Content-Type-Options"]; len(got) != 1 || got[0] != "nosniff" {
				t.Errorf("%q may be sniffed: %q", mediaType, got)
			}
			want := strings.Join(own, "|")
			if !data {
				want = strings.TrimSuffix("sandbox allow-scripts allow-forms allow-popups allow-downloads|"+want, "|")
				if got := h["Referrer-Policy"]; len(got) != 1 || got[0] != "no-referrer" {
					t.Errorf("%q has the Referrer-Policy %q", mediaType, got)
				}
			}
			if got := strings.Join(h["Content-Security-Policy"], "|"); got != want {
				t.Errorf("%q with %q has the policies %s, want %s", mediaType, own, got, want)
			}
		}
	}
}

// TestOwnAnswersAreInert: no browser runs anything of what the API itself
// answers.
func TestOwnAnswersAreInert(t *testing.T) {
	a := newAPI(t, newFakeRegistry(), func(context.Context, *faas.Call) (*faas.Result, error) {
		return nil, faas.Errorf(faas.CodeRaised, "<script>")
	})
	for _, request := range everyRoute(t) {
		method, target, _ := strings.Cut(request, " ")
		if method == "DELETE" {
			continue // its answer is empty
		}
		h := serve(a, method, target, "").Header()
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Content-Security-Policy") != "default-src 'none'" || h.Get("Content-Type") == "" {
			t.Errorf("%s: answered with %v", request, h)
		}
	}
}

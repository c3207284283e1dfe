package httpapi

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

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
	for _, rt := range Routes() {
		for _, method := range rt.Methods() {
			all = append(all, method+" "+strings.ReplaceAll(rt.Path, "{ref}", "hello"))
		}
	}
	return all
}

// TestGuard: no route answers what another site's page, or a rebound name, asks.
func TestGuard(t *testing.T) {
	a := newAPI(t, newFakeRegistry(), func(context.Context, *received) (faas.Result, error) {
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
		p := wantProblem(t, w.Code, w.Header(), w.Body.String(), 403, faas.CodeBadHost)
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

			"prefetch":                   {"Sec-Fetch-Site": {"none"}, "Sec-Purpose": {"prefetch"}},
			"prerender":                  {"Sec-Fetch-Site": {"none"}, "Sec-Purpose": {"prefetch;prerender"}},
			"prefetch through a proxy":   {"Sec-Purpose": {"prefetch;anonymous-client-ip"}},
			"prefetch by our page":       {"Sec-Fetch-Site": {"same-origin"}, "Sec-Purpose": {"prefetch"}},
			"a new purpose":              {"Sec-Purpose": {""}},
			"prefetch, as it was":        {"Purpose": {"prefetch"}},
			"prefetch, in Firefox once":  {"X-Moz": {"Prefetch"}},
			"preview, in Safari":         {"X-Purpose": {"preview"}},
			"typed, on another's page":   {"Sec-Fetch-Site": {"none"}, "Referer": {"http://evil.test/"}},
			"typed, on another's origin": {"Sec-Fetch-Site": {"none"}, "Referer": {"http://evil.test"}},
			"typed, on another port":     {"Sec-Fetch-Site": {"none"}, "Referer": {"http://127.0.0.1:3000/a"}},
			"typed, on a longer name":    {"Sec-Fetch-Site": {"none"}, "Referer": {"http://127.0.0.1:9999.evil.test/"}},
			"typed, with a user's name":  {"Sec-Fetch-Site": {"none"}, "Referer": {"http://127.0.0.1:9999@evil.test/"}},
			"typed, with ours behind":    {"Sec-Fetch-Site": {"none"}, "Referer": {"http://evil.test?://127.0.0.1:9999/"}},
			"typed, with a backslash":    {"Sec-Fetch-Site": {"none"}, "Referer": {`http://evil.test\@127.0.0.1:9999/`}},
			"typed, on no page":          {"Sec-Fetch-Site": {"none"}, "Referer": {"about:client"}},
			"ours, on another's page":    {"Sec-Fetch-Site": {"same-origin"}, "Referer": {"http://evil.test/"}},
			"two pages":                  {"Sec-Fetch-Site": {"none"}, "Referer": {"http://127.0.0.1:9999/", "http://evil.test/"}},
		} {
			w := ask(request, "127.0.0.1:9999", header)
			if w.Code != 403 || !strings.Contains(w.Body.String(), string(faas.CodeCrossSite)) && request[:4] != "HEAD" {
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
	a := newAPI(t, newFakeRegistry(), func(context.Context, *received) (faas.Result, error) { return plainResult(`1`), nil })
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
		"reloaded":          {"localhost:9999", http.Header{"Sec-Fetch-Site": {"none"}, "Referer": {"http://localhost:9999/api/call/hello?a=/b"}}},
		"no Referer":        {"localhost:9999", http.Header{"Sec-Fetch-Site": {"none"}, "Referer": {""}}},
		"curl -e":           {"localhost:9999", http.Header{"Referer": {"http://evil.test/"}}},
		"another's Purpose": {"localhost:9999", http.Header{"Purpose": {"billing"}, "X-Moz": {"cow"}}},
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

// TestContain: no answer of a function has any power over the API, whatever it
// says that it is.
func TestContain(t *testing.T) {
	for _, mediaType := range []string{"application/json", "application/x-ndjson", "text/event-stream", "", "text/html", "text/plain; charset=utf-8", "image/svg+xml", "application/json, text/html", "*/*"} {
		for _, c := range []struct{ own, want []string }{
			{nil, nil},
			{[]string{"default-src 'self'"}, []string{"default-src 'self'"}},
			{[]string{"sandbox allow-same-origin", "script-src *"}, []string{"sandbox allow-same-origin", "script-src *"}},
			{[]string{"default-src 'none'; report-uri /api/call/other; img-src *"}, []string{"default-src 'none'; img-src *"}},
			{[]string{"Report-To\tgroup ;default-src *, report-uri x;", "REPORT-URI /"}, []string{"default-src *"}},
			{[]string{"report-sample 'x'"}, []string{"report-sample 'x'"}},
		} {
			header := http.Header{"Referrer-Policy": {"unsafe-url"}, "X-Content-Type-Options": {"sniff"}}
			if c.own != nil {
				header["Content-Security-Policy"] = c.own
			}
			a := newAPI(t, newFakeRegistry(), func(context.Context, *received) (faas.Result, error) {
				result := plainResult(`<script>1</script>`)
				result.ContentType, result.Header = mediaType, header
				return result, nil
			})
			h := serve(a, "GET", "/api/call/hello", "").Header()
			for name, want := range map[string][]string{
				"X-Content-Type-Options":  {"nosniff"},
				"Referrer-Policy":         {"no-referrer"},
				"Content-Security-Policy": append([]string{"sandbox allow-scripts allow-forms allow-popups allow-downloads"}, c.want...),
			} {
				if got := h[name]; !slices.Equal(got, want) {
					t.Errorf("%q with %q has the %s %q, want %q", mediaType, c.own, name, got, want)
				}
			}
		}
	}
}

// TestHeadersThatAct: what SECURITY.md says is dropped is dropped, what it says
// passes passes, and it names all that are.
func TestHeadersThatAct(t *testing.T) {
	text, err := os.ReadFile("../../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n| headers of a function's answer | are | why |\n|---|---|---|\n")
	if !found {
		t.Fatal("SECURITY.md has no table of headers")
	}
	header, dropped, said := http.Header{}, map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		cells := strings.Split(line, "|")
		for _, m := range regexp.MustCompile("`([A-Za-z0-9-]+)(…?)`").FindAllStringSubmatch(cells[1], -1) {
			name := m[1]
			if said[http.CanonicalHeaderKey(name)] = true; m[2] != "" {
				name += "Some"
			}
			header.Set(name, "x")
			dropped[http.CanonicalHeaderKey(name)] = strings.TrimSpace(cells[2]) == "dropped"
		}
	}
	for name := range ours {
		if !said[name] {
			t.Errorf("SECURITY.md does not say that %s is dropped", name)
		}
	}
	for _, prefix := range oursBy {
		if !said[prefix] {
			t.Errorf("SECURITY.md does not say that %s… is dropped", prefix)
		}
	}
	got := serve(newAPI(t, newFakeRegistry(), own(200, "application/json", header, "1", 1)), "GET", "/api/call/hello", "").Header()
	for name, drop := range dropped {
		if got[name] != nil == drop {
			t.Errorf("%s: dropped %v, and SECURITY.md says %v", name, !drop, drop)
		}
	}
	if len(dropped) < 40 {
		t.Errorf("SECURITY.md has only %d headers", len(dropped))
	}
}

// TestOwnAnswersAreInert: no browser runs anything of what the API itself
// answers.
func TestOwnAnswersAreInert(t *testing.T) {
	a := newAPI(t, newFakeRegistry(), func(context.Context, *received) (faas.Result, error) {
		return faas.Result{}, faas.Errorf(faas.CodeRaised, "<script>")
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

// TestNothingIsSpeculative: a function that any page may call is not called ahead
// of need either, and no probe or metric answers such a request.
func TestNothingIsSpeculative(t *testing.T) {
	registry := newFakeRegistry()
	registry.fn.Live().Settings.CORS = faas.AnyOrigin
	a := newAPI(t, registry, func(context.Context, *received) (faas.Result, error) {
		t.Error("the function ran")
		return plainResult(`1`), nil
	})
	for _, request := range append(everyRoute(t), "GET /healthz", "GET /readyz", "GET /metrics") {
		method, target, _ := strings.Cut(request, " ")
		w := serve(a, method, target, "", "Sec-Purpose", "prefetch", "Sec-Fetch-Site", "none", "Origin", "http://evil.test")
		wantProblem(t, w.Code, w.Header(), w.Body.String(), 403, faas.CodeCrossSite)
	}
}

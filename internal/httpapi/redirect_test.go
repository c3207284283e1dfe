package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
)

// functions is a registry of functions by name.
type several struct {
	*fakeRegistry
	byName map[string]*faas.Function
}

func (f several) Resolve(_ context.Context, ref faas.Ref) (*faas.Function, *faas.Version, error) {
	for name, fn := range f.byName {
		if name == ref.Name || fn.ID == ref.ID {
			return fn, fn.Live(), nil
		}
	}
	return nil, nil, faas.UnknownFunction(ref)
}

// TestRedirects: a function redirects to itself and elsewhere, and never to what
// else the API has, however a browser could be told where that is.
func TestRedirects(t *testing.T) {
	registry := several{newFakeRegistry(), map[string]*faas.Function{}}
	for name, id := range map[string]string{"me": testID, "victim": otherID} {
		fn := &faas.Function{ID: id, Name: name}
		registry.byName[name] = fn.With(&faas.Version{FunctionID: id, Number: 1})
	}
	var status int
	var locations []string
	a := New(Config{Metrics: http.NotFoundHandler(), MaxBody: testMaxBody, Port: 9999, Hosts: []string{"fob.example.com", "*.birds.example"}})
	a.Open(Backend{Registry: registry, Locator: registry, Tokens: &fakeTokens{}, Audit: &fakeAudit{}, Invoker: invoker(func(_ context.Context, call *received) (faas.Result, error) {
		call.Version = registry.byName["me"].Live()
		result := plainResult("")
		result.Status, result.Header = status, http.Header{"Location": locations}
		return result, nil
	})})
	ask := func(host, target string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", target, nil)
		r.Host = host
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		return w
	}
	const host = "127.0.0.1:9999"
	for location, passes := range map[string]bool{
		// Itself.
		"": true, "?again=1": true, "#there": true, "?to=/api/call/victim": true, "#/api/call/victim": true,
		"me": true, "me?a=1": true, "./me": true, "me@1": true, "/api/call/me": true, "/api/call/me?a=1": true, "/api/call/me/a/b": true, "/api/call/" + testID: true, "../../api/call/me": true,
		"http://127.0.0.1:9999/api/call/me": true, "//127.0.0.1:9999/api/call/me": true, "http://localhost:9999/api/call/me": true, "https://fob.example.com:9999/api/call/me?x=1": true,
		"/api/call/me/ä": true,

		// Elsewhere.
		"https://example.org/api/call/victim": true, "//example.org/api/call/victim": true, "http://127.0.0.1:3000/api/call/victim": true, "http://localhost/api/call/victim": true, "http://localhost:/": true,
		"https://fob.example.com/": true, "HTTPS://user:x@example.org:8443": true, "https://example.org?http://127.0.0.1:9999/": true, "https://127.0.0.1:9999@example.org/": true,
		"mailto:a@example.org": true, "myapp://127.0.0.1:9999/api/call/victim": true, "http://[2001:db8::1]/": true, "https://example.org./": true, "https://xn--bcher-kva.example/": true,

		// The API.
		"victim": false, "./victim": false, "/": false, "/api/call/victim": false, "/api/call/victim/me": false, "/api/call/me/../victim": false, "me/../victim": false, "..": false, ".": false,
		"/api/call/" + otherID: false, "/api/functions": false, "/healthz": false, "/api/call/": false, "/api/call//me": false, "/api//call/me": false, "/API/call/me": false,
		"/api/call/me/%2e%2E/victim": false, "/api/call/me/.%2e/victim": false, "/api/call/%6de": false, "/api/call/me/..%2Fvictim": false, "/api/call/me/%2e%2e%5cvictim": false, "/api/call/me%2F..%2Fvictim": false, "/api/call/me/%zz": false,
		`\api\call\victim`: false, `/api\call/victim`: false, `me\..\victim`: false, " /api/call/victim": false, "\t/api/call/victim \t": false, "/api/c\tall/vic\ttim": false,
		"http://127.0.0.1:9999/api/call/victim": false, "http://127.0.0.1:9999": false, "HTTP://LOCALHOST:9999/api/call/victim": false, "http://a.localhost:9999/api/call/victim": false, "http://localhost.:9999/": false,
		"https://127.0.0.1:9999/api/call/victim": false, "http://FOB.example.com:9999/api/call/victim": false, "http://wren.birds.example:9999/": false, "http://[::1]:9999/": false, "http://10.1.2.3:9999/": false,
		"//127.0.0.1:9999/api/call/victim": false, `\\127.0.0.1:9999/api/call/victim`: false, `/\127.0.0.1:9999/`: false, "///127.0.0.1:9999/": false, "h\tttp://127.0.0.1:9\t999/": false,
		"http:////127.0.0.1:9999/api/call/victim": false, `http:\\127.0.0.1:9999\api\call\victim`: false, "http://user@127.0.0.1:9999/": false, "http://a:b@c@127.0.0.1:9999/": false, "http://example.org@127.0.0.1:9999/": false,
		`http://127.0.0.1:9999\@example.org/`: false, "http://127.0.0.1:9999?@example.org/": false, "http://127.0.0.1:9999#@example.org/": false, "http://127.0.0.1:09999/": false,
		"http://127.0.0.1:9999/api/call/me/../../functions": false,

		// What browsers read, each as it does.
		"http:victim": false, "http:/api/call/victim": false, "https:/api/call/victim": false, `http:\victim`: false, "http://": false, "http:///": false, "http://:9999/": false, "http://127.0.0.1:x/": false, "http://127.0.0.1:99999/": false,
		"http://127.1:9999/": false, "http://2130706433:9999/": false, "http://0x7f.0.0.1:9999/": false, "http://0177.0.0.1:9999/": false, "http://127.0.0.1.:9999/": false, "http://example.0x7f/": false, "http://1.2.3.256/": false,
		"http://loc%61lhost:9999/": false, "http://ｌｏｃａｌｈｏｓｔ:9999/": false, "http://127。0。0。1:9999/": false, "http://local host:9999/": false, "http://[::1:9999/": false, "http://[::1%25eth0]:9999/": false, "http://[127.0.0.1]:9999/": false,
	} {
		for _, status = range []int{300, 301, 302, 303, 307, 308, 399} {
			locations = []string{location}
			w := ask(host, "/api/call/me")
			if !passes {
				wantProblem(t, w.Code, w.Header(), w.Body.String(), 502, faas.CodeBadAnswer)
				if w.Header()["Location"] != nil || w.Header().Get("Fob-Error") != "function" {
					t.Errorf("%q: answered with %v", location, w.Header())
				}
			}
			if passes && (w.Code != status || w.Header().Get("Location") != location) {
				t.Errorf("%q: answered %d %s", location, w.Code, w.Body)
			}
		}
		locations = []string{"https://example.org/", location}
		if w := ask(host, "/api/call/me"); (w.Code == 399) != passes {
			t.Errorf("%q as the second: answered %d", location, w.Code)
		}
	}
	// By other names and ports.
	status = 302
	for _, c := range []struct {
		host, location string
		passes         bool
	}{
		{"fob.example.com", "https://fob.example.com/api/call/victim", false},
		{"fob.example.com", "https://fob.example.com:443/api/call/victim", false},
		{"fob.example.com", "http://fob.example.com/api/call/victim", false},
		{"fob.example.com", "//fob.example.com/api/call/victim", false},
		{"fob.example.com", "https://wren.birds.example/api/call/victim", false},
		{"fob.example.com", "http://localhost:9999/api/call/victim", false},
		{"fob.example.com", "https://fob.example.com/api/call/me", true},
		{"fob.example.com", "https://fob.example.com:8443/", true},
		{"fob.example.com:8443", "https://fob.example.com:8443/", false},
		{"fob.example.com:8443", "https://fob.example.com/", true},
		{"fob.example.com:443", "https://fob.example.com/", false},
		{"[::1]", "http://[::1]/", false},
		{"[::1]:80", "http://[::1]/", false},
		{"[::1]:81", "http://[::1]/", true},
		{"", "http://localhost/", false},
	} {
		locations = []string{c.location}
		if w := ask(c.host, "/api/call/me"); (w.Code == 302) != c.passes {
			t.Errorf("%q, asked as %q: answered %d %s", c.location, c.host, w.Code, w.Body)
		}
	}
	// Answers that no browser follows have what Location they like.
	for _, status = range []int{200, 201, 404} {
		locations = []string{"/api/call/victim"}
		if w := ask(host, "/api/call/me"); w.Code != status || w.Header().Get("Location") == "" {
			t.Errorf("%d: answered %d %s", status, w.Code, strings.TrimSpace(w.Body.String()))
		}
	}
}

// TestRedirectsAsBrowsersReadThem holds what passes against a browser's own reading
// of it: Node has the URL of the WHATWG.
func TestRedirectsAsBrowsersReadThem(t *testing.T) {
	const base = "http://127.0.0.1:9999/api/call/me"
	pieces := []string{
		"/", "/", "\\", "//", "api", "call", "/api/call/", "me", "victim", ".", "..", "%2e", "%2E%2e", "%2f", "%5c", "%", "?", "#", "@", ":", "::", "9999", "80", "http:", "https:", "HTTP://", "http://", "h\ttp:", "ftp:",
		"127.0.0.1", "localhost", "LocalHost", "127.1", "0x7f.1", "2130706433", "[::1]", "[::ffff:7f00:1]", "fob.example.com", "wren.birds.example", "example.org", "a b", " ", "\t", ";", "&", "=", "ä", "。", "ｌ", "\u00ad", "^", "|", "<", "%6c", "x", "1", "0",
	}
	random := rand.New(rand.NewPCG(9, 11))
	locations := make([]string, 10_000)
	for i := range locations {
		for range 1 + random.IntN(7) {
			locations[i] += pieces[random.IntN(len(pieces))]
		}
	}
	given, _ := json.Marshal(locations)
	node := exec.Command("node", "-e", `
const said = JSON.parse(require('fs').readFileSync(0, 'utf8')).map((location) => {
  try {
    const url = new URL(location, '`+base+`');
    return [url.protocol, url.hostname, url.port, url.pathname];
  } catch { return null; }
});
process.stdout.write(JSON.stringify(said));`)
	node.Stdin, node.Stderr = bytes.NewReader(given), os.Stderr
	out, err := node.Output()
	if err != nil {
		t.Fatalf("node: %v (scripts/setup test brings it)", err)
	}
	var read [][]string
	if err := json.Unmarshal(out, &read); err != nil {
		t.Fatal(err)
	}
	a := New(Config{Metrics: http.NotFoundHandler(), MaxBody: testMaxBody, Port: 9999, Hosts: []string{"fob.example.com", "*.birds.example"}})
	registry := several{newFakeRegistry(), map[string]*faas.Function{}}
	me := (&faas.Function{ID: testID, Name: "me"}).With(&faas.Version{FunctionID: testID, Number: 1})
	registry.byName["me"] = me
	calls := &calls{registry: registry, home: &a.home}
	r := httptest.NewRequest("GET", base, nil)
	passed, ours := 0, 0
	for i, location := range locations {
		result := faas.Result{Version: me.Live(), Status: 302, Header: http.Header{"Location": {location}}}
		if calls.checkRedirect(r, result) != nil {
			continue
		}
		passed++
		url := read[i]
		if url == nil || url[0] != "http:" && url[0] != "https:" {
			continue // a browser goes nowhere
		}
		port := url[2]
		if port == "" {
			port = map[string]string{"http:": "80", "https:": "443"}[url[0]]
		}
		if !a.home.allow(url[1]) || port != "9999" {
			continue
		}
		ours++
		if path := url[3]; path != "/api/call/me" && !strings.HasPrefix(path, "/api/call/me/") && !strings.HasPrefix(path, "/api/call/me@1") {
			t.Errorf("%q passes, and leads to %q", location, url)
		}
	}
	if passed < 300 || ours < 20 {
		t.Errorf("only %d passed, %d of them to itself", passed, ours)
	}
}

package httpapi

import (
	"compress/gzip"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
)

// TestPageForBrowsers: whoever names HTML gets the page, and everybody else hears what
// they always heard.
func TestPageForBrowsers(t *testing.T) {
	a := newAPI(t, newFakeRegistry(), nil)
	for accept, want := range map[string]bool{
		"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8": true,
		"application/json, TEXT/HTML ; q=0.1":                                        true,
		"":                                                                           false,
		"*/*":                                                                        false,
		"application/json, */*;q=0.5":                                                false,
		"text/html;q=0":                                                              false,
		"text/html; level=1; Q = 0.0, */*":                                           false,
		"application/json;x=\"text/html\"":                                           false,
		"text/plain, text/htmlx, xtext/html":                                         false,
	} {
		header := []string{}
		if accept != "" {
			header = []string{"Accept", accept}
		}
		w := serve(a, "GET", "/", "", header...)
		if !want {
			p := wantProblem(t, w.Code, w.Header(), w.Body.String(), 404, faas.CodeUnknownRoute)
			if p.Detail != `there is nothing at "/"; GET /api/openapi.yaml says what there is` {
				t.Errorf("Accept: %s: %s", accept, p.Detail)
			}
		} else if w.Code != 200 || w.Header().Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(w.Body.String(), "<noscript>") {
			t.Errorf("Accept: %s: answered %d %v", accept, w.Code, w.Header())
		}
		if vary := w.Header().Get("Vary"); vary != "Accept" {
			t.Errorf("Accept: %s: Vary is %q", accept, vary)
		}
	}
}

// TestPagePolicy: the page runs only what has the nonce of its answer, which no other
// answer has.
func TestPagePolicy(t *testing.T) {
	a := newAPI(t, newFakeRegistry(), nil)
	seen := map[string]bool{}
	for range 20 {
		w := serve(a, "GET", "/", "", "Accept", "text/html")
		policy := w.Header().Get("Content-Security-Policy")
		m := regexp.MustCompile(`^default-src 'none'; script-src 'nonce-([A-Z0-9]{26})'; style-src 'nonce-([A-Z0-9]{26})'; .*connect-src 'self'; .*frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'$`).FindStringSubmatch(policy)
		if m == nil || m[1] != m[2] || seen[m[1]] {
			t.Fatalf("the policy is %s", policy)
		}
		seen[m[1]] = true
		html := w.Body.String()
		if n := strings.Count(html, `nonce="`+m[1]+`"`); n != 2 || strings.Contains(html, "{{") {
			t.Errorf("the nonce stands in %d places:\n%s", n, html)
		}
		if regexp.MustCompile(`<script[^>]*>[^<]|<style|\sstyle=|\son\w+=|//[a-z]`).MatchString(html) {
			t.Errorf("the page has script, style or an address of its own:\n%s", html)
		}
	}
}

// TestPageFiles: what the page consists of, how large it is, and that a browser need not
// fetch it twice.
func TestPageFiles(t *testing.T) {
	a := newAPI(t, newFakeRegistry(), nil)
	total := 0
	for name, media := range map[string]string{
		"page.js": "text/javascript; charset=utf-8", "page.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml", "about.json": "application/json",
	} {
		plain := serve(a, "GET", "/page/"+name, "")
		small := serve(a, "GET", "/page/"+name, "", "Accept-Encoding", "gzip, br")
		if plain.Code != 200 || plain.Header().Get("Content-Type") != media || plain.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: answered %d %v", name, plain.Code, plain.Header())
		}
		total += small.Body.Len()
		z, err := gzip.NewReader(small.Body)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if content, err := io.ReadAll(z); err != nil || string(content) != plain.Body.String() || len(content) < 100 {
			t.Errorf("%s: compressed it is %d bytes long, and %d without: %v", name, len(content), plain.Body.Len(), err)
		}
		again := serve(a, "GET", "/page/"+name, "", "If-None-Match", plain.Header().Get("Etag"))
		if again.Code != http.StatusNotModified || again.Body.Len() != 0 {
			t.Errorf("%s: asked whether it has changed, answered %d", name, again.Code)
		}
	}
	if total > 150_000 {
		t.Errorf("the page is %d bytes long, compressed", total)
	}
	t.Logf("the page is %d bytes long, compressed", total)
	w := serve(a, "GET", "/page/page.html", "")
	wantProblem(t, w.Code, w.Header(), w.Body.String(), 404, faas.CodeUnknownRoute)
}

// TestPageWhileStarting: the page is there before anything else, so that a tab that is
// opened now finds its way.
func TestPageWhileStarting(t *testing.T) {
	a := New(Config{Hosts: []string{"example.com"}})
	for _, path := range []string{"/", "/page/page.js"} {
		if w := serve(a, "GET", path, "", "Accept", "text/html"); w.Code != 200 {
			t.Errorf("%s: answered %d", path, w.Code)
		}
	}
}

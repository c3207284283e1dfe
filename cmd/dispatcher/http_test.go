package main

import (
	"fmt"
	"strings"
	"testing"
)

// TestMethodsAndPaths: a function that takes the request gets every method and
// path, any other has three methods and no path, also when nobody knows yet which
// it is.
func TestMethodsAndPaths(t *testing.T) {
	r := boot(t, nil)
	for lang, code := range map[string][2]string{
		"python": {"def callme(request): return [request.method, request.root, request.path]", "def callme(): return 1"},
		"node":   {"module.exports = (request) => [request.method, request.root, request.path]", "module.exports = () => 1"},
	} {
		r.do("PUT", "/api/functions/full-"+lang+"?lang="+lang, code[0])
		r.do("PUT", "/api/functions/plain-"+lang+"?lang="+lang, code[1])
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"} {
			root := "/api/call/full-" + lang
			a := r.do(method, root+"/a%20b/c?x=1", "")
			want := fmt.Sprintf(`{"result": [%q, %q, "/a b/c"]}`, method, root)
			if method == "HEAD" {
				if a.Status != 200 || a.Body != "" || a.Header.Get("Content-Length") == "" {
					t.Errorf("HEAD: answered %d %q with %v", a.Status, a.Body, a.Header)
				}
			} else if a.Status != 200 || strings.ReplaceAll(a.Body, ",", ", ") != want && a.Body != want {
				t.Errorf("%s: answered %d %s, want %s", method, a.Status, a.Body, want)
			}
			plain := r.do(method, "/api/call/plain-"+lang+"/", "")
			switch method {
			case "GET", "HEAD", "POST":
				if plain.Status != 200 {
					t.Errorf("%s of a plain function: answered %d %s", method, plain.Status, plain.Body)
				}
			default:
				plain.wantsProblem(t, 405, "method_not_allowed")
				if allow := strings.Join(plain.Header.Values("Allow"), ", "); allow != "GET, HEAD, POST" {
					t.Errorf("Allow: %s", allow)
				}
			}
		}
		a := r.do("GET", "/api/call/plain-"+lang+"/more", "")
		a.wantsProblem(t, 404, "unknown_route")
		if !strings.Contains(a.Body, "request") {
			t.Errorf("it does not say what would help: %s", a.Body)
		}
	}
}

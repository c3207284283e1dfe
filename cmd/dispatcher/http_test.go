package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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

// TestBodies: what real clients send reaches functions of both kinds as what it is.
func TestBodies(t *testing.T) {
	r := boot(t, nil)
	dir := t.TempDir()
	for name, content := range map[string]string{"a.txt": "one\n", "b.txt": "two"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for lang, code := range map[string][2]string{
		"python": {`
def callme(a="", tags: list[str] = [], photo=None):
    return f"{a} {'|'.join(tags)} {photo and photo.filename + ' ' + photo.content_type + ' ' + photo.text()}"`, `
def callme(request):
    every = [f"{n}={'|'.join(v)}" for n, v in request.form_all.items()] + [f"{n}={f.filename}" for n, fs in request.files_all.items() for f in fs]
    return f"{' '.join(every)} {request.headers.get('content-encoding')} {len(request.body)} {request.query_all.get('q')}"`},
		"node": {`
module.exports = ({ a = "", tags = [], photo = null }) =>
    a + " " + tags.join("|") + " " + (photo ? photo.filename + " " + photo.contentType + " " + photo.text() : "None")`, `
module.exports = (request) => {
    const every = [...Object.entries(request.formAll).map(([n, v]) => n + "=" + v.join("|")),
        ...Object.entries(request.filesAll).flatMap(([n, fs]) => fs.map((f) => n + "=" + f.filename))];
    const q = request.queryAll.q;
    return every.join(" ") + " " + (request.headers["content-encoding"] ?? "None") + " " + request.body.length + " " + (q ? "['" + q.join("', '") + "']" : "None");
}`},
	} {
		plain, full := r.URL+"/api/call/plain-"+lang, r.URL+"/api/call/full-"+lang
		r.do("PUT", "/api/functions/plain-"+lang+"?lang="+lang, code[0])
		r.do("PUT", "/api/functions/full-"+lang+"?lang="+lang, code[1])
		for command, want := range map[string]string{
			"curl -s -d 'a=1&tags=x&tags=y+z' " + plain:                                    "1 x|y z None",
			"curl -s -d '{\"a\": \"json\"}' " + plain:                                      "json  None",
			"curl -s -d ' {\"a\": \"json\", \"tags\": [\"t\"]}' " + plain:                  "json t None",
			"curl -s -F a=ü -F tags[]=x -F 'photo=@a.txt;type=image/png' " + plain:         "ü x a.txt image/png one\\n",
			"curl -s '" + plain + "?tags=q&tags=r&a=s'":                                    "s q|r None",
			"http --ignore-stdin -b --form POST " + plain + " a=1 tags=x":                  "1 x None",
			"http --ignore-stdin -b --form POST " + plain + " a=1 photo@b.txt":             "1  b.txt text/plain two",
			"http --ignore-stdin -b --compress --compress POST " + plain + " a=1":          "1  None",
			"gzip -c a.txt | curl -s -H 'Content-Encoding: gzip' --data-binary @- " + full: "one\\n= None 4 None",
			"curl -s -F a=1 -F a=2 -F f=@a.txt -F f=@b.txt '" + full + "/x?q=1&q=2'":       "a=1|2 f=a.txt f=b.txt None … ['1', '2']",
		} {
			cmd := exec.Command("bash", "-o", "pipefail", "-c", command)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			if err != nil || !like(fmt.Sprintf(`{"result": "%s"}`, want), string(out)) {
				t.Errorf("%s\nprinted %s (%v), want %s", command, out, err, want)
			}
		}
	}
	a := r.send("POST", "/api/call/full-python", "x", http.Header{"Content-Encoding": {"br"}})
	a.wantsProblem(t, 415, "unknown_encoding")
	if a.Header.Get("X-Call-Id") == "" {
		t.Errorf("answered with %v", a.Header)
	}
	// More than is held whole, and it comes out of a compressed body.
	r.do("PUT", "/api/functions/count", "def callme(request): return sum(map(len, request.stream()))")
	var body bytes.Buffer
	zip := gzip.NewWriter(&body)
	io.WriteString(zip, strings.Repeat("x", 20_000_000))
	zip.Close()
	if a := r.send("POST", "/api/call/count", body.String(), http.Header{"Content-Encoding": {"gzip"}}); a.Body != `{"result": 20000000}` {
		t.Errorf("a stream: answered %d %s", a.Status, a.Body)
	}
}

package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const addCode = `def callme(param1, param2):
    if param1 == "" or param2 == "":
        return None
    return int(param1) + int(param2)
`

func TestArguments(t *testing.T) {
	t.Parallel()
	r := boot(t)
	add := r.gen("", addCode)
	typed := r.gen("", "def callme(a: int, b: float = 0.5, *, c: bool = False, **more): return [a, b, c, more]")
	node := r.gen("?lang=node", "function callme(a, b = 'B') { return [a, b] }")
	for _, c := range []struct{ method, path, body, want string }{
		{"GET", add + "?param1:1,param2:1", "", `{"result": 2}`},
		{"GET", add + "?param1=1&param2=1", "", `{"result": 2}`},
		{"GET", add + "?param1:%31,param2: 1", "", `{"result": 2}`},
		{"GET", add + "?param1:,param2:1", "", `{"result": null}`},
		{"POST", add, `{"param1": 20, "param2": "22"}`, `{"result": 42}`},
		{"POST", add + "?param1=20", `{"param2": 22}`, `{"result": 42}`},
		{"GET", typed + "?a=1&b=2&c=yes&d=%C3%A9+%26", "", `{"result": [1, 2.0, true, {"d": "é &"}]}`},
		{"GET", typed + "?a:1,d:x+y%2Cz", "", `{"result": [1, 0.5, false, {"d": "x+y,z"}]}`},
		{"POST", typed, `{"a": 1, "c": null, "d": {"e": [1.5]}}`, `{"result": [1, 0.5, null, {"d": {"e": [1.5]}}]}`},
		{"GET", node + "?b:2,a:1", "", `{"result": ["1", "2"]}`},
		{"POST", node, `{"a": [1, "\u00e9\ud83d\ude00"]}`, `{"result": [[1, "é😀"], "B"]}`},
	} {
		a := r.do(c.method, "/api/call/"+strings.ReplaceAll(c.path, " ", "%20"), c.body)
		if got, want := compact(t, a.Body), compact(t, c.want); a.Status != 200 || got != want {
			t.Errorf("%s %s %s: %d %s, want %s", c.method, c.path, c.body, a.Status, a.Body, c.want)
		}
	}
}

// compact makes two spellings of the same JSON the same.
func compact(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s is no JSON: %v", text, err)
	}
	out, _ := json.Marshal(v)
	return string(out)
}

func TestRequests(t *testing.T) {
	t.Parallel()
	r := boot(t, "FOB_HOSTS=functions.example")
	for lang, code := range map[string]string{
		"python": `def callme(request, who="nobody"):
    return {"method": request.method, "path": request.path, "query": request.query, "headers": dict(request.headers),
            "body": list(request.body), "who": who}`,
		"node": `async function callme(request, who = "nobody") {
    return {method: request.method, path: request.path, query: request.query, headers: Object.fromEntries(Object.entries(request.headers)),
            body: [...request.body], who}
}`,
	} {
		t.Run(lang, func(t *testing.T) {
			id := r.gen("?lang="+lang, code)
			var binary strings.Builder
			var bytes []int
			for i := range 256 {
				binary.WriteByte(byte(i))
				bytes = append(bytes, i)
			}
			a := r.do("POST", "/api/call/"+id+"?who=m%C3%A9&x=0&x=1", binary.String(), "Host", "functions.example:81", "Content-Type", "application/octet-stream", "Traceparent", "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01", "X-Two", "a", "X-Two", "b", "Fob-Method", "DELETE", "Fob-Args", `{"who": "a thief"}`, "Authorization", "Bearer mine", "X-Call-Id", "call-7")
			var answer struct {
				Result struct {
					Method, Path, Who string
					Query, Headers    map[string]string
					Body              []int
				}
			}
			if err := json.Unmarshal([]byte(a.Body), &answer); err != nil || a.Status != 200 {
				t.Fatalf("answered %d %s", a.Status, a.Body)
			}
			got := answer.Result
			if got.Method != "POST" || got.Path != "/" || got.Who != "mé" || !maps.Equal(got.Query, map[string]string{"who": "mé", "x": "1"}) {
				t.Errorf("the function saw %+v", got)
			}
			if !slices.Equal(got.Body, bytes) {
				t.Errorf("the function saw the body %v", got.Body)
			}
			for name, want := range map[string]string{
				"host": "functions.example:81", "content-type": "application/octet-stream", "authorization": "Bearer mine", "x-call-id": "call-7",
			} {
				if got.Headers[name] != want {
					t.Errorf("the function saw %s: %q, want %q", name, got.Headers[name], want)
				}
			}
			if two := strings.ReplaceAll(got.Headers["x-two"], " ", ""); two != "a,b" {
				t.Errorf("the function saw x-two: %q", two)
			}
			if got.Headers["traceparent"] != a.Header.Get("Traceparent") || !strings.HasPrefix(got.Headers["traceparent"], "00-0123456789abcdef0123456789abcdef-") {
				t.Errorf("the function saw the trace %q, and the answer has %q", got.Headers["traceparent"], a.Header.Get("Traceparent"))
			}
			for name := range got.Headers {
				if strings.HasPrefix(name, "fob-") {
					t.Errorf("the function saw %s", name)
				}
			}
		})
	}
}

func TestOwnResponses(t *testing.T) {
	t.Parallel()
	r := boot(t)
	for lang, code := range map[string]string{
		"python": `from fob import Response
def callme():
    return Response(bytes(range(256)), status=203, headers={"Set-Cookie": ["a=1; Path=/", "b=2"], "X-Thing": "yes", "Content-Type": "image/x-none",
        "Fob-Error": "forged", "Fob-Version": "77", "X-Call-Id": "forged", "Connection": "close", "Content-Length": "3"})`,
		"node": `function callme() {
    const headers = new Headers({"X-Thing": "yes", "Content-Type": "image/x-none", "Fob-Error": "forged", "Fob-Version": "77", "X-Call-Id": "forged", "Connection": "close", "Content-Length": "3"})
    headers.append("Set-Cookie", "a=1; Path=/")
    headers.append("Set-Cookie", "b=2")
    return new Response(Uint8Array.from({length: 256}, (_, i) => i), {status: 203, headers})
}`,
	} {
		t.Run(lang, func(t *testing.T) {
			id := r.gen("?lang="+lang, code)
			a := r.do("GET", "/api/call/"+id, "", "X-Call-Id", "mine")
			var want []byte
			for i := range 256 {
				want = append(want, byte(i))
			}
			if a.Status != 203 || a.Body != string(want) {
				t.Errorf("answered %d with %d bytes, want 203 with the bytes 0 to 255", a.Status, len(a.Body))
			}
			for name, want := range map[string][]string{
				"Set-Cookie": {"a=1; Path=/", "b=2"}, "X-Thing": {"yes"}, "Content-Type": {"image/x-none"}, "Content-Length": {"256"},
				"Fob-Version": {"1"}, "X-Call-Id": {"mine"}, "Fob-Error": nil, "Connection": nil,
			} {
				if got := a.Header.Values(name); !slices.Equal(got, want) {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
	// A function's own 404 is not ours, and a 204 has no body.
	own := r.gen("", "from fob import Response\ndef callme(status: int, text=''): return Response(text, status=status)")
	if a := r.do("GET", "/api/call/"+own+"?status=404&text=mine", ""); a.Status != 404 || a.Body != "mine" || a.Header.Get("Fob-Error") != "" {
		t.Errorf("answered %d %s %v", a.Status, a.Body, a.Header)
	}
	if a := r.do("GET", "/api/call/"+own+"?status=204", ""); a.Status != 204 || a.Body != "" {
		t.Errorf("answered %d %s", a.Status, a.Body)
	}
}

func TestCallHeaders(t *testing.T) {
	t.Parallel()
	r := boot(t)
	id := r.gen("", "def callme(x=0): return 1 / int(x)")
	const from = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
	answers := map[string]answered{
		"ok":       r.do("GET", "/api/call/"+id+"?x=1", "", "Traceparent", from, "X-Call-Id", "mine-1.2:3_4"),
		"function": r.do("GET", "/api/call/"+id+"?x=0", "", "Traceparent", from, "X-Call-Id", "mine-1.2:3_4"),
		"platform": r.do("GET", "/api/call/nobody", "", "Traceparent", from, "X-Call-Id", "mine-1.2:3_4"),
	}
	answers["ok"].wants(t, 200, `{"result": 1.0}`)
	raised := answers["function"].wantsProblem(t, 500, "function_raised")
	if raised.Error == nil || raised.Error.Type != "ZeroDivisionError" || raised.Error.Line != 1 || !strings.Contains(raised.Error.Traceback, "return 1 / int(x)") {
		t.Errorf("the error is %+v", raised.Error)
	}
	unknown := answers["platform"].wantsProblem(t, 404, "unknown_function")
	timing := regexp.MustCompile(`^queue;dur=\d+\.\d{3}, start;dur=\d+\.\d{3}, run;dur=\d+\.\d{3}$`)
	for name, a := range answers {
		if got := a.Header.Get("X-Call-Id"); got != "mine-1.2:3_4" {
			t.Errorf("%s: X-Call-Id is %q", name, got)
		}
		trace := a.Header.Get("Traceparent")
		if len(trace) != len(from) || trace[:36] != from[:36] || trace[36:52] == from[36:52] || trace[52:] != "-01" {
			t.Errorf("%s: traceparent is %q, which does not continue %q", name, trace, from)
		}
		if got := a.Header.Get("Server-Timing"); !timing.MatchString(got) {
			t.Errorf("%s: Server-Timing is %q", name, got)
		}
		fault, version := name, "1"
		if name == "ok" {
			fault = ""
		}
		if name == "platform" {
			version = ""
		}
		if a.Header.Get("Fob-Error") != fault || a.Header.Get("Fob-Version") != version {
			t.Errorf("%s: Fob-Error is %q, Fob-Version %q", name, a.Header.Get("Fob-Error"), a.Header.Get("Fob-Version"))
		}
	}
	if raised.CallID != "mine-1.2:3_4" || unknown.CallID != "mine-1.2:3_4" {
		t.Error("the problems lack the call's ID")
	}
	// What cannot be logged or is no trace is replaced.
	minted := regexp.MustCompile(`^[0-9a-f-]{36}$`)
	begun := regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-00$`)
	for _, header := range [][]string{
		{},
		{"X-Call-Id", "has blanks", "Traceparent", "nonsense"},
		{"X-Call-Id", strings.Repeat("x", 129), "Traceparent", "00-" + strings.Repeat("0", 32) + "-0123456789abcdef-01"},
	} {
		a := r.do("GET", "/api/call/"+id+"?x=1", "", header...)
		if !minted.MatchString(a.Header.Get("X-Call-Id")) || !begun.MatchString(a.Header.Get("Traceparent")) {
			t.Errorf("X-Call-Id is %q, traceparent %q", a.Header.Get("X-Call-Id"), a.Header.Get("Traceparent"))
		}
	}
}

// The longest request head that is let in is one that a driver takes, and what
// is longer costs no sandbox.
func TestLongHeads(t *testing.T) {
	t.Parallel()
	r := boot(t)
	for lang, code := range map[string]string{
		"python": "def callme(request, **text): return len(text['a'])",
		"node":   "function callme(request, a) { return a.length }",
	} {
		id := r.gen("?lang="+lang, code)
		before := r.do("GET", "/api/meta/"+id, "").Body
		for _, c := range []struct{ query, status, body string }{
			{strings.Repeat("é", 16_000), "200 OK", `{"result": 16000}`},
			{strings.Repeat("é", 17_000), "413 Request Entity Too Large", ""},
			{"b", "200 OK", `{"result": 1}`},
		} {
			nc, err := net.Dial("tcp", r.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			// Not percent-encoded: that is how the argument grows most.
			fmt.Fprintf(nc, "GET /api/call/%s?a=%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Long: %s\r\n\r\n", id, c.query, strings.Repeat("x", 60<<10))
			answer, err := io.ReadAll(nc)
			if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 "+c.status) || !strings.HasSuffix(string(answer), c.body) {
				t.Errorf("%s with %d bytes of query: %v, %.300s", lang, len(c.query), err, answer)
			}
		}
		if after := r.do("GET", "/api/meta/"+id, "").Body; after != before {
			t.Errorf("%s: another sandbox, %s after %s", lang, after, before)
		}
	}
}

// What a call leaves behind in its sandbox is gone after max_calls of them.
func TestMaxCalls(t *testing.T) {
	t.Parallel()
	r := boot(t)
	for lang, code := range map[string]string{
		"python": "n = 0\ndef callme():\n    global n\n    n += 1\n    return n\n",
		"node":   "let n = 0\nfunction callme() { return ++n }\n",
	} {
		for calls, want := range map[int]string{1: "1 1 1 1 1", 2: "1 2 1 2 1", 0: "1 2 3 4 5"} {
			id := r.gen(fmt.Sprintf("?lang=%s&max_calls=%d&max_scale=1", lang, calls), code)
			var got []string
			for range 5 {
				var answer struct{ Result int }
				if err := json.Unmarshal([]byte(r.do("GET", "/api/call/"+id, "").Body), &answer); err != nil {
					t.Fatal(err)
				}
				got = append(got, fmt.Sprint(answer.Result))
			}
			if all := strings.Join(got, " "); all != want {
				t.Errorf("%s with max_calls=%d answered %s, want %s", lang, calls, all, want)
			}
		}
	}
}

// TestMethodsAndPaths: a function that takes the request gets every method and
// path, any other has three methods and no path, also when nobody knows yet which
// it is.
func TestMethodsAndPaths(t *testing.T) {
	t.Parallel()
	r := boot(t)
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
	t.Parallel()
	r := boot(t)
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
	a := r.do("POST", "/api/call/full-python", "x", "Content-Encoding", "br")
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
	if a := r.do("POST", "/api/call/count", body.String(), "Content-Encoding", "gzip"); a.Body != `{"result": 20000000}` {
		t.Errorf("a stream: answered %d %s", a.Status, a.Body)
	}
}

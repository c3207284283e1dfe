package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/web"
)

const nobody = "00000000-0000-4000-8000-000000000000"

// TestOpenAPI drives every route of the program into every answer that the
// document has for it.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	c := newChecker(t, api.OpenAPI)
	t.Run("routes", func(t *testing.T) {
		for name, part := range map[string]func(t *testing.T, c *checker){
			"limits": driveLimits, "not permitted": driveNotPermitted, "full disk": driveFullDisk, "loading": driveLoading,
			"registrations": drive(driveGenerate, driveManagement), "secrets": drive(driveSecrets), "calls": drive(driveCalls, driveHistory, driveBusy, driveOperations), "tokens": drive(driveTokens, driveStandby),
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				part(t, c)
			})
		}
	})
	c.checkAllSeen()
}

// bootAsker boots a dispatcher whose answers are held against the document.
func bootAsker(t *testing.T, c *checker, settings ...string) *asker {
	return &asker{boot(t, append([]string{"FOB_MAX_BODY=64KB"}, settings...)...), &http.Client{Transport: c}}
}

// drive asks one dispatcher about several matters, one after the other.
func drive(matters ...func(t *testing.T, a *asker)) func(t *testing.T, c *checker) {
	return func(t *testing.T, c *checker) {
		a := bootAsker(t, c)
		for _, ask := range matters {
			ask(t, a)
		}
	}
}

// driveLoading registers code that does when it is loaded what a file says.
func driveLoading(t *testing.T, c *checker) {
	a := bootAsker(t, c, "FOB_LOAD_TIMEOUT=5s")
	mode := filepath.Join(t.TempDir(), "mode")
	moody := fmt.Sprintf("import os, time\nmode = open(%q).read()\n"+
		"if mode == 'raise': raise ValueError('not today')\n"+
		"if mode == 'exit': os._exit(3)\n"+
		"if mode == 'hang': time.sleep(600)\n"+
		"def callme(): return 1\n", mode)
	loading := func(what string) {
		t.Helper()
		if err := os.WriteFile(mode, []byte(what), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	loading("fine")
	a.ask(t, ask{request: "PUT /api/functions/moody", body: moody, status: 201})
	for what, want := range map[string]ask{
		"raise": {status: 422, code: "does_not_compile"},
		"exit":  {status: 502, code: "sandbox_died"},
		"hang":  {status: 504, code: "timeout"},
	} {
		loading(what)
		var all sync.WaitGroup
		for request, body := range map[string]string{
			"POST /api/gen":                         moody,
			"PUT /api/functions/new":                moody,
			"PATCH /api/functions/moody?timeout=1s": "",
		} {
			q := want
			q.request, q.body = request, body
			all.Go(func() { a.ask(t, q) })
		}
		all.Wait()
	}
}

// shows is the header that shows a token.
func shows(token *api.MadeToken) map[string]string {
	return map[string]string{"Authorization": "Bearer " + token.Secret}
}

func driveGenerate(t *testing.T, a *asker) {
	const code = "def callme():\n    return 42\n"
	everySetting := "timeout=5s&memory=256MB&cpus=0.5&concurrency=2&max_concurrency=9&target_utilization=0.5&min_scale=0&max_scale=3&" +
		"stable_window=10s&idle_timeout=1m&pause_after=30s&queue=10&queue_timeout=1s&start_timeout=5s&network=none&public=true&env=A=1,B=2&description=Adds+up.&secrets="
	broken := waiver{malformed: true}
	for _, q := range []ask{
		{request: "POST /api/gen", body: code, status: 200},
		{request: "POST /api/gen", body: code, header: map[string]string{"Content-Type": "application/json"}, status: 200},
		{request: "POST /api/gen", body: code, header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, status: 200},
		{request: "POST /api/gen", body: code, header: map[string]string{"Content-Type": "application/octet-stream"}, status: 200},
		{request: "POST /api/gen?lang=python&name=taken&" + everySetting, body: code, status: 200},
		{request: "POST /api/gen?lang=node", body: `{"code": "function callme(a) { return a }", "timeout": "5s", "concurrency": 3, "cpus": 0.5, "public": false, "env": {"A": "1"}, "secrets": []}`, status: 200},
		{request: "POST /api/gen?name=taken", body: code, status: 409, code: "name_taken"},
		{request: "POST /api/gen", body: code + strings.Repeat("#", 70<<10), status: 413, code: "too_large"},
		{request: "POST /api/gen?lang=cobol", body: code, waiver: broken, status: 415, code: "unknown_language"},
		{request: "POST /api/gen", body: "def callme(:", status: 422, code: "does_not_compile"},
		{request: "POST /api/gen", body: "x = 1", status: 422, code: "does_not_compile"},
	} {
		a.ask(t, q)
	}
	for _, q := range []ask{
		{request: "POST /api/gen"},
		{request: "POST /api/gen", body: "\xff\xfe"},
		{request: "POST /api/gen", body: `{"code": 1}`},
		{request: "POST /api/gen", body: `{"lang": "python"}`},
		{request: "POST /api/gen", body: `{"code": "`},
		{request: "POST /api/gen?colour=blue", body: code},
		{request: "POST /api/gen?memory=1", body: code},
		{request: "POST /api/gen?concurrency=0", body: code},
		{request: "POST /api/gen?timeout=-1", body: code},
		{request: "POST /api/gen?public=maybe", body: code},
		{request: "POST /api/gen", body: `{"code": "x", "queue": true}`},
		{request: "POST /api/gen", body: `{"code": "x", "name": true}`},
		{request: "POST /api/gen?env=A", body: code},
		{request: "POST /api/gen?secrets=a-b", body: code},
		{request: "POST /api/gen?secrets=NOBODYS", body: code},
		{request: "POST /api/gen", body: `{"code": "x", "env": {"A": 1}}`},
		{request: "POST /api/gen", body: `{"code": "x", "secrets": {"A": "1"}}`},
		{request: "POST /api/gen", body: `{"code": "x", "timeout": ["1s"]}`},
		{request: "POST /api/gen?timeout=1s&timeout=2s", body: code},
		{request: "POST /api/gen?timeout=%zz", body: code},
		{request: "POST /api/gen?name=two+words", body: code},
	} {
		q.waiver, q.status, q.code = broken, 400, "bad_request"
		a.ask(t, q)
	}
}

func driveManagement(t *testing.T, a *asker) {
	const code = "def callme(a='1'):\n    return a\n"
	broken := waiver{malformed: true}
	a.ask(t, ask{request: "GET /api/stats", status: 200})
	for _, q := range []ask{
		{request: "PUT /api/functions/hello?timeout=7s", body: code, status: 201},
		{request: "PUT /api/functions/hello?memory=64MB", body: code, status: 200},
		{request: "PUT /api/functions/hello", body: `{"code": "def callme(): pass", "name": "hello"}`, status: 200},
		{request: "PUT /api/functions/" + nobody, body: code, status: 404, code: "unknown_function"},
		{request: "PUT /api/functions/hello@1", body: code, status: 400, code: "bad_request"},
		{request: "PUT /api/functions/hello", body: code + strings.Repeat("#", 70<<10), status: 413, code: "too_large"},
		{request: "PUT /api/functions/hello?lang=cobol", body: code, waiver: broken, status: 415, code: "unknown_language"},
		{request: "PATCH /api/functions/hello?timeout=9s", body: `{"queue": 7}`, status: 200},
		{request: "PATCH /api/functions/hello?name=hallo", status: 200},
		{request: "PATCH /api/functions/hallo", body: `{"name": "hello"}`, status: 200},
		{request: "PATCH /api/functions/hello?name=other&queue=7", status: 400, code: "bad_request"},
		{request: "PATCH /api/functions/hello", status: 400, code: "bad_request"},
		{request: "PATCH /api/functions/hello", body: `{"code": "x"}`, waiver: broken, status: 400, code: "bad_request"},
		{request: "PATCH /api/functions/nobody?timeout=1s", status: 404, code: "unknown_function"},
		{request: "PATCH /api/functions/hello", body: `{"timeout": "1s"}` + strings.Repeat(" ", 70<<10), status: 413, code: "too_large"},

		{request: "GET /api/functions/hello", status: 200},
		{request: "GET /api/functions/hello@1", status: 200},
		{request: "GET /api/functions/hello@99", status: 404, code: "unknown_function"},
		{request: "GET /api/functions/hello:blue", status: 404, code: "unknown_function"},
		{request: "PATCH /api/functions/hello?queue=7", status: 200},
		{request: "GET /api/functions/hello/versions", status: 200},
		{request: "GET /api/functions/hello/versions?limit=1&after=3", status: 200},
		{request: "GET /api/functions/hello/versions?after=0", waiver: broken, status: 400, code: "bad_request"},
		{request: "GET /api/functions/nobody/versions", status: 404, code: "unknown_function"},
		{request: "GET /api/functions?limit=1", status: 200},
		{request: "GET /api/functions?name=hel&limit=1", status: 200},
		{request: "GET /api/functions?limit=0", waiver: broken, status: 400, code: "bad_request"},
		{request: "GET /api/functions?after=" + nobody, status: 400, code: "bad_request"},
		{request: "GET /api/cs/hello:live", status: 200, answer: "def callme(): pass"},
		{request: "GET /api/meta/hello", status: 200},
		{request: "GET /api/meta/nobody", status: 404, code: "unknown_function"},
		{request: "GET /api/cs/nobody", status: 404, code: "unknown_function"},

		{request: "PUT /api/functions/passing", body: code, status: 201},
		{request: "DELETE /api/functions/passing@1", status: 400, code: "bad_request"},
		{request: "DELETE /api/functions/passing", status: 204},
		{request: "DELETE /api/functions/passing", status: 404, code: "unknown_function"},
	} {
		a.ask(t, q)
	}
	for _, path := range []string{"/api/call/", "/api/meta/", "/api/cs/", "/api/functions/"} {
		for _, ref := range []string{"..%2f..%2fetc", "%00", "a%20b", "hello@0", "hello:", "%ff"} {
			a.ask(t, ask{request: "GET " + path + ref, waiver: broken, status: 400, code: "bad_request"})
		}
	}
	// A sandbox that is idle for long enough goes.
	a.ask(t, ask{request: "PUT /api/functions/shy?idle_timeout=1ms", body: code, status: 201})
	eventually(t, 30*time.Second, "nothing runs shy", func() bool {
		return a.do("GET", "/api/meta/shy", "").Body == `{"host": null, "port": null, "sandboxes": []}`
	})
}

func driveSecrets(t *testing.T, a *asker) {
	const code = "import os\ndef callme():\n    return os.environ['KEY']\n"
	broken := waiver{malformed: true}
	for _, q := range []ask{
		{request: "GET /api/secrets", status: 200, answer: `{"secrets": []}`},
		{request: "PUT /api/secrets/KEY", body: "one", status: 201},
		{request: "PUT /api/secrets/KEY?functions=keyed,other", body: `{"two": 2}`, status: 200},
		{request: "PUT /api/secrets/KEY?functions=a%20b", body: "x", waiver: broken, status: 400, code: "bad_request"},
		{request: "PUT /api/secrets/KEY?colour=blue", body: "x", waiver: broken, status: 400, code: "bad_request"},
		{request: "PUT /api/secrets/KEY", waiver: broken, status: 400, code: "bad_request"},
		{request: "PUT /api/secrets/rotate-key", body: "x", waiver: broken, status: 400, code: "bad_request"},
		{request: "PUT /api/secrets/FOB_KEY", body: "x", status: 400, code: "bad_request"},
		{request: "PUT /api/secrets/KEY", body: strings.Repeat("x", 64<<10+1), waiver: broken, status: 413, code: "too_large"},
		{request: "PUT /api/functions/keyed?secrets=KEY", body: code, status: 201},
		{request: "PUT /api/functions/barred?secrets=KEY", body: code, status: 400, code: "bad_request"},
		{request: "GET /api/call/keyed", status: 200, answer: `{"result": "{\"two\": 2}"}`},
		{request: "GET /api/secrets", status: 200},
		{request: "POST /api/secrets/rotate-key", status: 200},
		{request: "DELETE /api/secrets/KEY", status: 409, code: "in_use"},
		{request: "DELETE /api/secrets/a-b", waiver: broken, status: 400, code: "bad_request"},
		{request: "PATCH /api/functions/keyed", body: `{"secrets": []}`, status: 200},
		{request: "DELETE /api/secrets/KEY", status: 204},
		{request: "DELETE /api/secrets/KEY", status: 404, code: "unknown_secret"},
		// The first version still names it.
		{request: "GET /api/call/keyed@1", status: 200},
		{request: "DELETE /api/functions/keyed", status: 204},
	} {
		a.ask(t, q)
	}
}

func driveCalls(t *testing.T, a *asker) {
	put := func(name, query, code string) {
		t.Helper()
		a.ask(t, ask{request: "PUT /api/functions/" + name + query, body: code, status: 201})
	}
	put("add", "", "def callme(param1, param2):\n    return int(param1) + int(param2)\n")
	put("echo", "", "def callme(request, n=0):\n    return {'method': request.method, 'n': n}\n")
	put("own", "", "import fob\ndef callme(status: int = 200):\n"+
		"    return fob.Response('<p>hi', status=status, headers={'Content-Type': 'text/html', 'X-Mood': 'good'})\n")
	put("bad", "?timeout=300ms", "import os, time\ndef callme(how):\n"+
		"    if how == 'raise': return {}['x']\n"+
		"    if how == 'exit': os._exit(3)\n"+
		"    if how == 'hang': time.sleep(600)\n"+
		"    if how == 'nan': return float('nan')\n"+
		"    return 'x' * 100000\n")

	own := waiver{own: []string{"X-Mood"}}
	trace := map[string]string{"X-Call-Id": "mine:1", "Traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
	for _, method := range []string{"GET", "POST"} {
		call := method + " /api/call/"
		for _, q := range []ask{
			{request: call + "add?param1:1,param2:1", status: 200, answer: `{"result": 2}`},
			{request: call + "add@1?param1=1&param2=1", header: trace, status: 200, answer: `{"result": 2}`},
			{request: call + "add?param1:1,param2:1", header: map[string]string{"Fob-Timeout": "20s"}, status: 200, answer: `{"result": 2}`},
			{request: call + "add?param1:1,param2:1", header: map[string]string{"Fob-Timeout": "soon"}, status: 400, code: "bad_request"},
			{request: call + "echo?n=1", status: 200, answer: `{"result": {"method": "` + method + `", "n": "1"}}`},
			{request: call + "own", waiver: own, status: 200, answer: "<p>hi"},
			{request: call + "own?status=404", waiver: own, status: 404, answer: "<p>hi"},
			{request: call + "own?status=418", waiver: own, status: 418, answer: "<p>hi"},
			{request: call + "nobody", status: 404, code: "unknown_function"},
			{request: call + "add?param1=1", status: 404, code: "bad_arguments"},
			{request: call + "add?param1=1&param2=two", status: 404, code: "bad_arguments"},
			{request: call + "add?param1=1&param1=1&param2=2", waiver: waiver{malformed: true}, status: 400, code: "bad_request"},
			{request: call + "add?param1:1,", waiver: waiver{malformed: true}, status: 400, code: "bad_request"},
			{request: call + "add?param1=" + strings.Repeat("1", 70<<10), status: 413, code: "too_large"},
			{request: call + "bad?how=raise", status: 500, code: "function_raised"},
			{request: call + "bad?how=nan", status: 500, code: "bad_result"},
			{request: call + "bad?how=exit", status: 502, code: "sandbox_died"},
			{request: call + "bad?how=much", status: 502, code: "bad_answer"},
			{request: call + "bad?how=hang", status: 504, code: "timeout"},
		} {
			a.ask(t, q)
		}
	}
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		a.ask(t, ask{request: method + " /api/call/echo", status: 200})
		a.ask(t, ask{request: method + " /api/call/echo/any/path", status: 200})
		a.ask(t, ask{request: method + " /api/call/add/any/path", status: 404})
		if method != "GET" && method != "HEAD" && method != "POST" {
			a.ask(t, ask{request: method + " /api/call/add", status: 405, code: "method_not_allowed"})
		}
	}
	for _, q := range []ask{
		{request: "POST /api/call/add", body: `{"param1": 1, "param2": 1}`, status: 200, answer: `{"result": 2}`},
		{request: "POST /api/call/add?param1=1", body: `{"param2": 1}`, status: 200, answer: `{"result": 2}`},
		{request: "POST /api/call/echo", body: "any \x00 thing", status: 200},
		{request: "POST /api/call/add", body: "[1, 1]", waiver: waiver{malformed: true}, status: 400, code: "bad_request"},
		{request: "POST /api/call/add", body: strings.Repeat(" ", 70<<10), status: 413, code: "too_large"},
	} {
		a.ask(t, q)
	}
}

// driveHistory looks calls up.
func driveHistory(t *testing.T, a *asker) {
	broken := waiver{malformed: true}
	a.ask(t, ask{request: "GET /api/call/add?param1:1,param2:1", header: map[string]string{"X-Call-Id": "looked-up"}, status: 200})
	eventually(t, 10*time.Second, "the history has the call", func() bool { return a.do("GET", "/api/calls/looked-up", "").Status == 200 })
	for _, q := range []ask{
		{request: "GET /api/calls/looked-up", status: 200},
		{request: "GET /api/calls/nobody", status: 404, code: "unknown_call"},
		{request: "GET /api/calls", status: 200},
		{request: "GET /api/calls?function=bad&version=1&outcome=failed&caller=127.0.0.1&text=KeyError&since=1h&until=0s&min_run=1ns&limit=1&follow=false", status: 200},
		{request: "GET /api/calls?trace=4bf92f3577b34da6a3ce929d0e0e4736&limit=1", status: 200},
		{request: "GET /api/calls?function=nobody", status: 404, code: "unknown_function"},
		{request: "GET /api/calls?limit=0", waiver: broken, status: 400, code: "bad_request"},
		{request: "GET /api/calls?outcome=fine", status: 400, code: "bad_request"},
		{request: "GET /api/logs", status: 200, header: map[string]string{"Accept": "application/json"}},
		{request: "GET /api/logs?call=looked-up&function=bad&version=1&level=stdout,error&text=x&since=1h&until=0s&limit=1&follow=false", status: 200},
		{request: "GET /api/logs?function=nobody", status: 404, code: "unknown_function"},
		{request: "GET /api/logs?limit=0", waiver: broken, status: 400, code: "bad_request"},
		{request: "GET /api/logs?level=loud", status: 400, code: "bad_request"},
	} {
		a.ask(t, q)
	}
}

// driveBusy brings functions to their limits.
func driveBusy(t *testing.T, a *asker) {
	gate := filepath.Join(t.TempDir(), "gate")
	code := fmt.Sprintf("import os, time\ndef callme():\n    while not os.path.exists(%q):\n        time.sleep(0.01)\n", gate)
	a.ask(t, ask{request: "PUT /api/functions/full?max_scale=1&queue=0", body: code, status: 201})
	a.ask(t, ask{request: "PUT /api/functions/slow?max_scale=1&queue_timeout=50ms", body: code, status: 201})
	var held, waiting sync.WaitGroup
	defer held.Wait()
	defer func() {
		if err := os.WriteFile(gate, nil, 0o644); err != nil {
			t.Error(err)
		}
	}()
	for _, name := range []string{"full", "slow"} {
		held.Go(func() {
			if got, err := a.try("GET", "/api/call/"+name, ""); err != nil || got.Status != http.StatusOK {
				t.Errorf("the call that was held: %v %v", got, err)
			}
		})
		eventually(t, 30*time.Second, "the call is in its sandbox", func() bool {
			return strings.Contains(a.do("GET", "/api/meta/"+name, "").Body, `"state": "busy"`)
		})
	}
	for _, method := range []string{"GET", "POST"} {
		a.ask(t, ask{request: method + " /api/call/full", status: 429, code: "over_limit"})
		waiting.Go(func() {
			a.ask(t, ask{request: method + " /api/call/slow", status: 503, code: "no_capacity"})
		})
	}
	waiting.Wait()
}

func driveOperations(t *testing.T, a *asker) {
	a.ask(t, ask{request: "GET /healthz", status: 200, answer: `{"status": "ok"}`})
	a.ask(t, ask{request: "GET /api/audit?limit=3&after=1&since=2026-01-31T12:00:00Z", status: 200})
	a.ask(t, ask{request: "GET /api/audit?limit=0", waiver: waiver{malformed: true}, status: 400, code: "bad_request"})
	a.ask(t, ask{request: "GET /api/backup", status: 200})
	a.ask(t, ask{request: "GET /readyz", status: 200, answer: `{"status": "ready"}`})
	a.ask(t, ask{request: "GET /metrics", status: 200})
	a.ask(t, ask{request: "GET /api/version", status: 200})
	a.ask(t, ask{request: "GET /api/openapi.yaml", status: 200, answer: string(api.OpenAPI)})
	a.ask(t, ask{request: "GET /", header: map[string]string{"Accept": "text/html"}, status: 200})
	a.ask(t, ask{request: "GET /", status: 404, code: "unknown_route"})
	a.ask(t, ask{request: "GET /page/page.js", status: 200, answer: string(web.Script)})
	a.ask(t, ask{request: "GET /page/nothing.js", status: 404, code: "unknown_route"})
	a.ask(t, ask{request: "GET /nowhere", status: 404, code: "unknown_route"})
	got := a.ask(t, ask{request: "DELETE /api/call/add", status: 405, code: "method_not_allowed"})
	if allow := strings.Join(got.Header.Values("Allow"), ", "); allow != "GET, HEAD, POST" {
		t.Errorf("Allow: %s, want GET, HEAD, POST", allow)
	}
}

// driveTokens makes tokens and has them refused.
func driveTokens(t *testing.T, a *asker) {
	broken := waiver{malformed: true}
	a.ask(t, ask{request: "GET /api/tokens", status: 200, answer: `{"tokens": []}`})
	ann, bob := a.token("admin"), a.token("read:hello", "invoke:hello")
	for _, q := range []ask{
		{request: "GET /api/tokens", status: 200},
		{request: "POST /api/tokens", body: `{"name": "eve", "grants": ["read", "deploy:hello"], "expires": "720h"}`, status: 201},
		{request: "POST /api/tokens", body: `{"name": "eve", "grants": ["read"], "expires": "2100-01-02T15:04:05+02:00"}`, status: 201},
		{request: "POST /api/tokens", body: `{"name": "eve", "grants": ["fly"]}`, waiver: broken, status: 400, code: "bad_request"},
		{request: "POST /api/tokens", body: `{"name": "eve", "grants": []}`, waiver: broken, status: 400, code: "bad_request"},
		{request: "POST /api/tokens", body: `{"name": "eve", "grants": [null]}`, waiver: broken, status: 400, code: "bad_request"},
		{request: "POST /api/tokens", body: `{"name": "eve", "grants": ["read"], "expires": "-1h"}`, status: 400, code: "bad_request"},
		{request: "POST /api/tokens", body: `{"name": "eve", "grants": ["read"], "expires": "soon"}`, status: 400, code: "bad_request"},
		{request: "POST /api/tokens", body: `{"name": "eve", "grants": ["read"], "scope": "admin"}`, waiver: broken, status: 400, code: "bad_request"},
		{request: "POST /api/tokens", body: `{"name": "eve\u001b", "grants": ["read"]}`, waiver: broken, status: 400, code: "bad_request"},
		{request: "POST /api/tokens", body: `{"name": "eve", "grants": ["read"]} {}`, waiver: broken, status: 400, code: "bad_request"},
		{request: "POST /api/tokens", body: strings.Repeat(" ", 70<<10), waiver: broken, status: 413, code: "too_large"},
		{request: "DELETE /api/tokens/0123456789abcdef", status: 404, code: "unknown_token"},
		{request: "DELETE /api/tokens/%1b%5b31m", status: 404, code: "unknown_token"},
	} {
		q.header = shows(ann)
		a.ask(t, q)
	}
	deployer := a.token("deploy:hello")
	for _, route := range routes {
		a.ask(t, ask{request: route.request, body: route.body, status: 401, code: "unauthorized"})
		other := bob
		if strings.HasPrefix(route.request, "GET") || strings.Contains(route.request, "/call/") { // they read, or call
			other = deployer
		}
		a.ask(t, ask{request: route.request, body: route.body, header: shows(other), status: 403, code: "forbidden"})
	}
	var list api.Tokens
	got := a.ask(t, ask{request: "GET /api/tokens", header: shows(ann), status: 200})
	if err := json.Unmarshal([]byte(got.Body), &list); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(list.Tokens) // ann is the first
	for _, other := range list.Tokens {
		a.ask(t, ask{request: "DELETE /api/tokens/" + other.ID, header: shows(ann), status: 204})
	}
}

// routes are requests to all routes that ask for a token.
var routes = []struct{ request, body string }{
	{"POST /api/gen", "def callme(): pass"},
	{"GET /api/call/add", ""},
	{"POST /api/call/add", "{}"},
	{"GET /api/stats", ""},
	{"GET /api/meta/add", ""},
	{"GET /api/cs/add", ""},
	{"GET /api/functions", ""},
	{"GET /api/functions/add", ""},
	{"GET /api/functions/add/versions", ""},
	{"PUT /api/functions/add", "def callme(): pass"},
	{"PATCH /api/functions/add?timeout=1s", ""},
	{"DELETE /api/functions/add", ""},
	{"GET /api/calls", ""},
	{"GET /api/calls/0123", ""},
	{"GET /api/logs", ""},
	{"GET /metrics", ""},
	{"GET /api/audit", ""},
	{"GET /api/backup", ""},
	{"GET /api/secrets", ""},
	{"PUT /api/secrets/KEY", "x"},
	{"DELETE /api/secrets/KEY", ""},
	{"POST /api/secrets/rotate-key", ""},
	{"GET /api/tokens", ""},
	{"POST /api/tokens", `{"name": "eve", "grants": ["admin"]}`},
	{"DELETE /api/tokens/0123456789abcdef", ""},
}

// driveLimits asks everything of a dispatcher that answers one request a day.
func driveLimits(t *testing.T, c *checker) {
	a := bootAsker(t, c, "FOB_RATE_ADDRESS=0.00001/1")
	a.ask(t, ask{request: "GET /api/version", status: 200})
	for _, route := range routes {
		a.ask(t, ask{request: route.request, body: route.body, status: 429, code: "rate_limited"})
	}
	a.ask(t, ask{request: "GET /api/version", status: 429, code: "rate_limited"})
	a.ask(t, ask{request: "GET /api/openapi.yaml", status: 429, code: "rate_limited"})
	a.ask(t, ask{request: "GET /", status: 429, code: "rate_limited"})
	a.ask(t, ask{request: "GET /page/page.js", status: 429, code: "rate_limited"})
	a.do("GET", "/nowhere", "").wantsProblem(t, 429, "rate_limited")
	a.ask(t, ask{request: "GET /readyz", status: 200})
	a.terminate()
}

// driveNotPermitted calls a function after its operator has become stricter.
func driveNotPermitted(t *testing.T, c *checker) {
	data := shortDir(t)
	first := boot(t, "FOB_DATA="+data)
	first.do("PUT", "/api/functions/wide", "def callme(): return 1").wantsStatus(t, 201)
	first.terminate()
	strict := bootAsker(t, c, "FOB_DATA="+data, "FOB_NETWORK=none", "FOB_MAX_NETWORK=allow=*")
	for _, method := range []string{"GET", "POST"} {
		strict.ask(t, ask{request: method + " /api/call/wide", status: 403, code: "not_permitted"})
	}
}

// driveFullDisk asks a dispatcher whose disk is full.
func driveFullDisk(t *testing.T, c *checker) {
	data := smallDisk(t, 8)
	second := bootAsker(t, c, "FOB_DATA="+data, "FOB_SOCKETS="+shortDir(t))
	code := "def callme(): return 1\n" + strings.Repeat("#", 60<<10)
	second.ask(t, ask{request: "PUT /api/functions/big", body: code, status: 201})
	second.ask(t, ask{request: "PUT /api/secrets/KEY", body: "x", status: 201})
	fillDisk(t, data)
	for _, q := range []ask{
		{request: "POST /api/gen", body: code},
		{request: "PUT /api/functions/big", body: code + "#"},
		{request: "PATCH /api/functions/big?timeout=1s"},
		{request: "PUT /api/secrets/KEY", body: strings.Repeat("x", 60<<10)},
		{request: "POST /api/secrets/rotate-key"},
	} {
		q.status, q.code = 507, "no_space"
		second.ask(t, q)
	}
	second.ask(t, ask{request: "GET /api/call/big", status: 200})
	second.terminate()
}

// driveStandby asks everything of a second dispatcher on the same data.
func driveStandby(t *testing.T, a *asker) {
	second := &asker{bootUnready(t, "FOB_DATA="+a.Data, "FOB_STANDBY=true"), a.client}
	second.awaitStandby()
	second.ask(t, ask{request: "GET /readyz", status: 503, code: "standby"})
	second.ask(t, ask{request: "GET /healthz", status: 200})
	for _, request := range []string{
		"POST /api/gen", "GET /api/call/add", "POST /api/call/add", "GET /api/stats", "GET /api/meta/add", "GET /api/cs/add",
		"GET /api/tokens", "POST /api/tokens", "DELETE /api/tokens/0123456789abcdef",
		"GET /api/functions", "GET /api/functions/add", "GET /api/functions/add/versions", "GET /api/audit", "GET /api/backup", "PUT /api/functions/add", "PATCH /api/functions/add", "DELETE /api/functions/add",
		"GET /api/secrets", "PUT /api/secrets/KEY", "DELETE /api/secrets/KEY", "POST /api/secrets/rotate-key", "GET /api/calls", "GET /api/calls/0123", "GET /api/logs",
	} {
		body := ""
		if request == "POST /api/tokens" {
			body = `{"name": "bob", "grants": ["read"]}`
		}
		if strings.HasPrefix(request, "PUT") || strings.HasSuffix(request, "gen") {
			body = "def callme(): pass"
		}
		second.ask(t, ask{request: request, body: body, status: 503, code: "standby"})
	}
	second.terminate()
}

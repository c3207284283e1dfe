package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// rounds is a program on the Docker engine that bad input is tried on, beside a
// function that must not be troubled by it.
type rounds struct {
	*dispatcher
	aviary  string
	healthy string
}

func bootRounds(t *testing.T, settings ...string) *rounds {
	t.Helper()
	aviary := testAviary(t)
	r := boot(t, append(settings, "FOB_AVIARY="+aviary)...)
	return &rounds{dispatcher: r, aviary: aviary, healthy: r.gen("", addCode)}
}

// in returns the rounds for a subtest, which fails if a request does.
func (r *rounds) in(t *testing.T) *rounds {
	own := *r.dispatcher
	own.t = t
	return &rounds{dispatcher: &own, aviary: r.aviary, healthy: r.healthy}
}

// others fails the test unless the healthy function answers.
func (r *rounds) others(t *testing.T) {
	t.Helper()
	if a := r.do("GET", "/api/call/"+r.healthy+"?param1:1,param2:1", ""); a.Status != 200 || a.Body != `{"result": 2}` {
		t.Fatalf("after that, another function answers %d %s", a.Status, a.Body)
	}
}

func TestDockerBadInput(t *testing.T) {
	t.Parallel()
	r := bootRounds(t, "FOB_LOAD_TIMEOUT=5s") // some code never ends to load
	full := func() bool {                     // the pool and the healthy function
		return len(containers(t, r.aviary)) == 3 && r.blank() == 2
	}
	eventually(t, time.Minute, "the pool is full", full)
	before := r.goroutines()
	t.Run("registering", r.badCode)
	t.Run("calling", r.badCalls)
	t.Run("misbehaving", r.badFunctions)

	r.others(t)
	for _, id := range r.functions() {
		if id != r.healthy {
			r.do("DELETE", "/api/functions/"+id, "").wants(t, 204, "")
		}
	}
	eventually(t, time.Minute, "only the pool's containers and the healthy one are left", full)
	eventually(t, time.Minute, "only their socket folders are left", func() bool { return len(socketFolders(t, r.sockets())) == 3 })
	eventually(t, time.Minute, "there are as many goroutines as before", func() bool { return r.goroutines() <= before })

	r.terminate()
	if left := containers(t, r.aviary); len(left) > 0 {
		t.Errorf("containers are left: %v", left)
	}
	if left := socketFolders(t, r.sockets()); len(left) > 0 {
		t.Errorf("socket folders are left: %v", left)
	}
	if left := lines(dockerCLI(t, "network", "ls", "--quiet", "--filter", "label=fob.aviary="+r.aviary)); len(left) > 0 {
		t.Errorf("networks are left: %v", left)
	}
}

// goroutines is how many the dispatcher has, with no connection but the one on which it
// is asked.
func (d *dispatcher) goroutines() float64 {
	d.t.Helper()
	d.HTTP.CloseIdleConnections()
	http.DefaultClient.CloseIdleConnections()
	return d.metric("go_goroutines")
}

// containerOf returns the ID of the one container that a function runs in.
func (d *dispatcher) containerOf(ref string) string {
	d.t.Helper()
	id := d.sandboxIDs(ref)
	ids := lines(dockerCLI(d.t, "ps", "--quiet", "--no-trunc", "--filter", "label=fob.sandbox="+id))
	if len(ids) != 1 {
		d.t.Fatalf("sandbox %s is the containers %v", id, ids)
	}
	return ids[0]
}

func socketFolders(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (r *rounds) badCode(t *testing.T) {
	before := r.functions()
	const fine = "def callme(): pass"
	for _, c := range []struct {
		name, query, code string
		want              refusal
	}{
		{"empty", "", "", wants(400, "bad_request", "no code", "--data-binary")},
		{"blank", "", " \r\n\t", wants(400, "bad_request", "no code")},
		{"10 MB", "", "#" + strings.Repeat("x", 10<<20), wants(413, "too_large", "6MB", "FOB_MAX_BODY")},
		{"a program file", "", "\x7fELF\x02\x01\x01\x00\x00", wants(400, "bad_request", "NUL")},
		{"binary", "", "\x1f\x8b\x08\xff\xfe\x01", wants(400, "bad_request", "UTF-8")},
		{"invalid UTF-8", "", "def callme(): return '\xff'", wants(400, "bad_request", "UTF-8")},
		{"a syntax error", "", "x = 1\ndef callme(:", wants(422, "does_not_compile", "SyntaxError")},
		{"a syntax error in JavaScript", "?lang=node", "let x = 1\nfunction callme( { return 1", wants(422, "does_not_compile", "SyntaxError")},
		{"Python said to be JavaScript", "?lang=node", fine, wants(422, "does_not_compile", "SyntaxError")},
		{"nested too deeply", "", "x = " + strings.Repeat("(", 10000) + strings.Repeat(")", 10000), wants(422, "does_not_compile", "parentheses")},
		{"nested too deeply in JavaScript", "?lang=node", "x = " + strings.Repeat("[", 100000) + strings.Repeat("]", 100000), wants(422, "does_not_compile", "")},
		{"no callme", "", "def call_me(): pass", wants(422, "does_not_compile", "callme")},
		{"no callme in JavaScript", "?lang=node", "function call_me() {}", wants(422, "does_not_compile", "callme")},
		{"callme is no function", "", "callme = 42", wants(422, "does_not_compile", "callme", "int")},
		{"raises at import", "", "x = 1\nx / 0", wants(422, "does_not_compile", "ZeroDivisionError")},
		{"raises at import in JavaScript", "?lang=node", "let x = 1\nx.y.z\nfunction callme() {}", wants(422, "does_not_compile", "TypeError")},
		{"imports what is not there", "", "import numpy_of_old", wants(422, "does_not_compile", "numpy_of_old")},
		{"exits at import", "", "import sys\nsys.exit(3)", wants(422, "does_not_compile", "SystemExit")},
		{"dies at import", "", "import os\nos._exit(3)", wants(502, "sandbox_died", "exited with code 3", "being loaded")},
		{"loops at import", "", "while True: pass", wants(504, "timeout", "5s", "import")},
		{"loops at import in JavaScript", "?lang=node", "while (true);", wants(504, "timeout", "5s", "import")},
		{"eats memory at import", "?memory=64MB", "x = []\nwhile True: x.append(b'x' * 1000000)", wants(502, "sandbox_died", "out of memory", "64MB")},

		{"an unknown language", "?lang=cobol", fine, wants(415, "unknown_language", "cobol", "python", "node")},
		{"an empty language", "?lang=", fine, wants(400, "bad_request", "lang")},
		{"an unknown setting", "?colour=red", fine, wants(400, "bad_request", "colour", "memory")},
		{"memory=1", "?memory=1", fine, wants(400, "bad_request", "memory=1", "32MB to 64GB")},
		{"memory=much", "?memory=much", fine, wants(400, "bad_request", "memory=much", "128MB")},
		{"concurrency=0", "?concurrency=0", fine, wants(400, "bad_request", "concurrency=0", "1 to 1000")},
		{"concurrency=1.5", "?concurrency=1.5", fine, wants(400, "bad_request", "concurrency=1.5", "whole number")},
		{"timeout=-1", "?timeout=-1", fine, wants(400, "bad_request", "timeout=-1", "30s")},
		{"timeout=-1s", "?timeout=-1s", fine, wants(400, "bad_request", "timeout=-1s", "10ms to 1h")},
		{"timeout=2h", "?timeout=2h", fine, wants(400, "bad_request", "timeout=2h", "10ms to 1h")},
		{"cpus=NaN", "?cpus=NaN", fine, wants(400, "bad_request", "cpus=NaN", "0.05 to 64")},
		{"max_scale=0", "?max_scale=0", fine, wants(400, "bad_request", "max_scale=0")},
		{"min_scale above max_scale", "?min_scale=5&max_scale=4", fine, wants(400, "bad_request", "min_scale", "max_scale")},
		{"queue=-1", "?queue=-1", fine, wants(400, "bad_request", "queue=-1")},
		{"idle_timeout=0s", "?idle_timeout=0s", fine, wants(400, "bad_request", "idle_timeout=0s")},
		{"network=host", "?network=host", fine, wants(400, "bad_request", "network=host", "egress", "none")},
		{"a setting twice", "?memory=64MB&memory=64MB", fine, wants(400, "bad_request", "memory", "twice")},
		{"a setting here and there", "?memory=64MB", `{"code": "def callme(): pass", "memory": "64MB"}`, wants(400, "bad_request", "memory", "both")},
		{"a query that is none", "?memory=%zz", fine, wants(400, "bad_request", "percent-encoded")},
		{"a name that is none", "?name=a/b", fine, wants(400, "bad_request", "a/b", "letters")},

		{"an envelope that ends early", "", `{"code": "def callme(): pass"`, wants(400, "bad_request", "JSON")},
		{"an envelope with more behind it", "", `{"code": "def callme(): pass"} {}`, wants(400, "bad_request", "JSON")},
		{"an empty envelope", "", `{}`, wants(400, "bad_request", "code")},
		{"an envelope without code", "", `{"lang": "python"}`, wants(400, "bad_request", "code")},
		{"code that is no string", "", `{"code": ["def callme(): pass"]}`, wants(400, "bad_request", "code", "string")},
		{"empty code", "", `{"code": ""}`, wants(400, "bad_request", "no code")},
		{"code with a NUL", "", `{"code": "def callme(): return '\u0000'"}`, wants(400, "bad_request", "NUL")},
		{"an unknown member", "", `{"code": "def callme(): pass", "colour": "red"}`, wants(400, "bad_request", "colour")},
		{"a setting that is a list", "", `{"code": "def callme(): pass", "memory": [64]}`, wants(400, "bad_request", "memory", "neither")},
		{"a setting that is null", "", `{"code": "def callme(): pass", "memory": null}`, wants(400, "bad_request", "memory", "neither")},
		{"a setting out of range", "", `{"code": "def callme(): pass", "concurrency": 0}`, wants(400, "bad_request", "concurrency=0")},
		{"a number that is no duration", "", `{"code": "def callme(): pass", "timeout": 30}`, wants(400, "bad_request", "timeout=30", "30s")},
		{"a deep envelope", "", `{"code": ` + strings.Repeat("[", 100000), wants(400, "bad_request", "JSON")},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := c.want.check(t, r.do("POST", "/api/gen"+c.query, c.code))
			if p.Code == "does_not_compile" && p.Error == nil {
				t.Error("the answer does not say what the error in the code is")
			}
			r.others(t)
		})
	}
	t.Run("where the error is", func(t *testing.T) {
		for query, code := range map[string]string{"": "x = 1\nx / 0\ndef callme(): pass", "?lang=node": "let x\nx.y\nfunction callme() {}"} {
			p := r.do("POST", "/api/gen"+query, code).wantsProblem(t, 422, "does_not_compile")
			if p.Error == nil || p.Error.Line != 2 || p.Error.Message == "" {
				t.Errorf("%s: the error is %+v, and is in line 2", query, p.Error)
			}
		}
	})
	t.Run("10 MB of unknown length", func(t *testing.T) {
		request, err := http.NewRequest("POST", r.URL+"/api/gen", io.LimitReader(endless{}, 10<<20))
		if err != nil {
			t.Fatal(err)
		}
		a, err := exchange(request)
		if err != nil {
			t.Fatal(err)
		}
		a.wantsProblem(t, 413, "too_large")
		r.others(t)
	})
	if after := r.functions(); !slices.Equal(before, after) {
		t.Errorf("after all that there are %v, want %v", after, before)
	}
}

// endless is a comment without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '#'
	}
	return len(p), nil
}

func (r *rounds) badCalls(t *testing.T) {
	add := "/api/call/" + r.healthy
	many := make([]string, 1001)
	for i := range many {
		many[i] = fmt.Sprintf("p%d=1", i)
	}
	for _, c := range []struct {
		name, method, path, body string
		want                     refusal
	}{
		{"no ref", "GET", "/api/call/", "", wants(404, "unknown_route")},
		{"a ref with a bad beginning", "GET", "/api/call/-x", "", wants(400, "bad_request", "-x", "NAME:live")},
		{"a ref with dots", "GET", "/api/call/a..b", "", wants(400, "bad_request", "a..b")},
		{"a path in the ref", "GET", "/api/call/..%2f..%2fetc%2fpasswd", "", wants(400, "bad_request", "../../etc/passwd")},
		{"a path in a meta ref", "GET", "/api/meta/..%2fx", "", wants(400, "bad_request", "../x")},
		{"a path in a code ref", "GET", "/api/cs/..%2F..%2Ffob.db", "", wants(400, "bad_request", "fob.db")},
		{"a path in a function ref", "DELETE", "/api/functions/..%2fx", "", wants(400, "bad_request", "../x")},
		{"a path beside the ref", "GET", "/api/call/../../etc/passwd", "", wants(400, "bad_request", "..")},
		{"a path below the ref", "GET", add + "/more", "", wants(404, "unknown_route", "/more", "request")},
		{"a NUL", "GET", "/api/call/a%00b", "", wants(400, "bad_request", `a\x00b`)},
		{"a NUL alone", "PUT", "/api/functions/%00", "def callme(): pass", wants(400, "bad_request")},
		{"no UTF-8", "GET", "/api/call/%ff%fe", "", wants(400, "bad_request")},
		{"a long name", "GET", "/api/call/" + strings.Repeat("a", 10000), "", wants(400, "bad_request", "63")},
		{"version 0", "GET", add + "@0", "", wants(400, "bad_request", "version")},
		{"a version that is no number", "GET", add + "@one", "", wants(400, "bad_request", "version")},
		{"a great version", "GET", add + "@99999999999999999999", "", wants(400, "bad_request", "version")},
		{"a version and an alias", "GET", add + "@1:live", "", wants(400, "bad_request")},
		{"an empty alias", "GET", add + ":", "", wants(400, "bad_request", "alias")},
		{"an unknown function", "GET", "/api/call/nobody", "", wants(404, "unknown_function", "nobody")},
		{"another method", "DELETE", add, "", wants(405, "method_not_allowed", "GET, HEAD and POST", "request")},

		{"too few", "GET", add + "?param1:1", "", wants(404, "bad_arguments", "param2")},
		{"none", "GET", add, "", wants(404, "bad_arguments", "param1", "param2")},
		{"too many", "GET", add + "?param1:1,param2:1,param3:1", "", wants(404, "bad_arguments", "param3")},
		{"no number", "GET", add + "?param1:one,param2:1", "", wants(404, "bad_arguments", "one")},
		{"a colon in the value", "GET", add + "?param1:1:2,param2:1", "", wants(404, "bad_arguments", "1:2")},
		{"a part without a colon", "GET", add + "?param1:1,param2", "", wants(400, "bad_request", "param2", "%2C")},
		{"a nameless part", "GET", add + "?:1", "", wants(400, "bad_request", "name")},
		{"a duplicate", "GET", add + "?param1:1,param1:2", "", wants(400, "bad_request", "param1", "twice")},
		{"a duplicate in the other form", "GET", add + "?param1=1&param1=1", "", wants(400, "bad_request", "param1", "twice")},
		{"a duplicate in disguise", "GET", add + "?param1=1&param%31=1", "", wants(400, "bad_request", "param1", "twice")},
		{"once in the query and once in the body", "POST", add + "?param1=1", `{"param1": 1, "param2": 2}`, wants(404, "bad_arguments", "param1")},
		{"bad percent-encoding", "GET", add + "?param1=%zz", "", wants(400, "bad_request", "param1", "percent-encoded")},
		{"no UTF-8 in a value", "GET", add + "?param1=%ff&param2=1", "", wants(400, "bad_request", "param1", "UTF-8")},
		{"no UTF-8 in a name", "GET", add + "?%ff=1", "", wants(400, "bad_request", "name")},
		{"1001 parameters", "GET", add + "?" + strings.Join(many, "&"), "", wants(400, "bad_request", "1000")},
		{"a long query", "GET", add + "?param1=" + strings.Repeat("1", 64<<10), "", wants(413, "too_large", "32768", "POST")},

		{"a body that is no JSON", "POST", add, "param1=1", wants(400, "bad_request")},
		{"UTF-16", "POST", add, "{\x00}\x00", wants(400, "bad_request", "UTF-16")},
		{"a body that ends early", "POST", add, `{"param1": 1, `, wants(400, "bad_request")},
		{"a body that is a list", "POST", add, `[1, 1]`, wants(400, "bad_request")},
		{"a body that is null", "POST", add, `null`, wants(400, "bad_request")},
		{"no UTF-8 in the body", "POST", add, "{\"param1\": \"\xff\"}", wants(400, "bad_request")},
		{"a deep body", "POST", add, `{"param1": ` + strings.Repeat("[", 200000) + strings.Repeat("]", 200000) + `, "param2": 1}`, wants(400, "bad_request")},
		{"a 10 MB body", "POST", add, `{"param1": "` + strings.Repeat("1", 10<<20) + `"}`, wants(413, "too_large", "6MB")},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.want.check(t, r.do(c.method, c.path, c.body))
			r.others(t)
		})
	}
}

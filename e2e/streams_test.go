package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Functions that stream in the way that they are asked to. What they are told to
// wait for comes from another call in the same sandbox.
var streamers = map[string]string{
	"python": `import os, threading, time
from fob import Response

go = threading.Event()
closed = []

def events(how):
    try:
        yield "data: one\n\n"
        if how == "raises": raise ValueError("half")
        if how == "hangs": time.sleep(3600)
        if how == "exits": os._exit(3)
        while how == "endless":
            yield "data: more\n\n"
            time.sleep(0.01)
        if how == "slow": time.sleep(3)
        else: go.wait(60)
        yield "data: two\n\n"
    finally:
        closed.append(how)

def callme(how):
    if how == "go": return go.set()
    if how == "closed": return closed
    return Response(events(how), headers={"Content-Type": "text/event-stream"})
`,
	"node": `let go
const gone = new Promise(resolve => go = resolve)
const closed = []
const sleep = seconds => new Promise(resolve => setTimeout(resolve, seconds * 1000))

async function* events(how) {
    try {
        yield "data: one\n\n"
        await sleep(0.1) // a ReadableStream that fails drops what waits in it
        if (how === "raises") throw new Error("half")
        if (how === "hangs") await sleep(3600)
        if (how === "exits") process.kill(process.pid, "SIGKILL")
        while (how === "endless") {
            yield "data: more\n\n"
            await sleep(0.01)
        }
        await (how === "slow" ? sleep(3) : gone)
        yield "data: two\n\n"
    } finally {
        closed.push(how)
    }
}

module.exports = function callme(how) {
    if (how === "go") return go()
    if (how === "closed") return closed
    return new Response(ReadableStream.from(events(how)), { headers: { "Content-Type": "text/event-stream" } })
}
`,
}

// curling is a curl that runs.
type curling struct {
	t   *testing.T
	cmd *exec.Cmd
	out *bufio.Reader
}

// curl starts curl, without its own buffering.
func curl(t *testing.T, args ...string) *curling {
	t.Helper()
	c := &curling{t: t, cmd: exec.Command("curl", append([]string{"-sSN", "--max-time", "300"}, args...)...)}
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	t.Cleanup(func() { c.cmd.Process.Kill(); c.cmd.Wait() })
	return c
}

// event fails the test unless that is the next server-sent event.
func (c *curling) event(want string) {
	c.t.Helper()
	text, err := c.out.ReadString('\n')
	if err == nil {
		_, err = c.out.Discard(1)
	}
	if err != nil || text != "data: "+want+"\n" {
		c.t.Fatalf("read %q, %v; want the event %s", text, err, want)
	}
}

// end reads the rest, waits, and returns both that and curl's exit status.
func (c *curling) end() (rest string, status int) {
	c.t.Helper()
	text, err := io.ReadAll(c.out)
	if err != nil {
		c.t.Fatal(err)
	}
	err = c.cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		c.t.Fatal(err)
	} else if ok {
		return string(text), exit.ExitCode()
	}
	return string(text), 0
}

// wantBroken fails the test unless curl could tell that the answer broke off.
func (c *curling) wantBroken() {
	c.t.Helper()
	if rest, status := c.end(); status != 18 && status != 56 {
		c.t.Errorf("curl ended with %d, and the rest %q, and so took it for whole", status, rest)
	}
}

// wantEnd fails the test unless that event was the last, and the answer is whole.
func (c *curling) wantEnd(last string) {
	c.t.Helper()
	c.event(last)
	if rest, status := c.end(); rest != "" || status != 0 {
		c.t.Errorf("curl ended with %d, and the rest %q", status, rest)
	}
}

// TestDockerStreams: what comes chunk by chunk, and how that ends.
func TestDockerStreams(t *testing.T) {
	t.Parallel()
	p := boot(t, "FOB_AVIARY="+testAviary(t))
	for lang, code := range streamers {
		t.Run(lang, func(t *testing.T) {
			id := p.gen("?max_scale=1&concurrency=3&lang="+lang, code)
			url := p.URL + "/api/call/" + id + "?how="
			closed := func(how string) {
				t.Helper()
				eventually(t, time.Minute, "its finally has run, and its slot is free", func() bool {
					return strings.Contains(p.do("GET", "/api/call/"+id+"?how=closed", "").Body, how) &&
						p.inFlight(id) == 0
				})
			}

			events := curl(t, url+"waits")
			events.event("one")
			p.do("GET", "/api/call/"+id+"?how=go", "").wants(t, 200, `{"result": null}`)
			events.wantEnd("two")
			closed("waits")

			for _, version := range []string{"--http1.1", "--http1.0"} {
				broken := curl(t, version, url+"raises")
				broken.event("one")
				broken.wantBroken()
			}
			closed("raises")

			leaving := curl(t, url+"endless")
			leaving.event("one")
			leaving.event("more")
			leaving.cmd.Process.Kill()
			closed("endless")
			if !strings.Contains(p.do("GET", "/metrics", "").Body, `function="`+id+`",outcome="cancelled"`) {
				t.Error("no call counts as cancelled")
			}

			over := curl(t, "-H", "Fob-Timeout: 1s", url+"hangs")
			over.event("one")
			over.wantBroken()

			dies := curl(t, url+"exits")
			dies.event("one")
			dies.wantBroken()
			p.do("GET", "/api/call/"+id+"?how=closed", "").wants(t, 200, `{"result": []}`)
		})
	}
}

// TestDockerStreamsEndWhole: nothing that ends a sandbox ends its streams.
func TestDockerStreamsEndWhole(t *testing.T) {
	t.Parallel()
	p := boot(t, "FOB_AVIARY="+testAviary(t))
	for lang, code := range streamers {
		t.Run(lang, func(t *testing.T) {
			for what, change := range map[string]func(id string){
				"scale down": func(string) {},
				"PUT":        func(id string) { p.do("PUT", "/api/functions/"+id, code+" ") },
				"DELETE":     func(id string) { p.do("DELETE", "/api/functions/"+id, "") },
			} {
				id := p.gen("?idle_timeout=1ms&lang="+lang, code)
				events := curl(t, p.URL+"/api/call/"+id+"?how=slow")
				events.event("one")
				change(id)
				events.wantEnd("two")
				t.Logf("%s: whole", what)
			}
			killed := p.gen("?lang="+lang, code)
			events := curl(t, p.URL+"/api/call/"+killed+"?how=hangs")
			events.event("one")
			dockerCLI(t, "kill", p.containerOf(killed))
			events.wantBroken()
		})
	}
}

// TestDockerStreamsOfAnyLength: 1 GB goes in and comes out with flat memory; what
// does not stream has one limit.
func TestDockerStreamsOfAnyLength(t *testing.T) {
	t.Parallel()
	p := boot(t, "FOB_AVIARY="+testAviary(t))
	folder := t.TempDir()
	sparse := func(name string, size int64) string { // which takes no space
		path := filepath.Join(folder, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	large, vast := sparse("large", 256<<20), sparse("vast", 1<<30)
	for lang, code := range map[string][2]string{
		"python": {
			"def callme(request):\n    for piece in request.stream(): yield piece\n",
			"def callme(n=0, **rest): return 'x' * int(n)\n",
		},
		"node": {
			"module.exports = async function* callme(request) { for await (const piece of request.stream()) yield piece }",
			"module.exports = function callme(n) { return 'x'.repeat(Number(n)) }",
		},
	} {
		t.Run(lang, func(t *testing.T) {
			echo, plain := p.gen("?timeout=10m&lang="+lang, code[0]), p.gen("?lang="+lang, code[1])
			sandbox := p.do("GET", "/api/meta/"+echo, "").Body
			for what, way := range map[string]struct {
				size int64
				args []string
			}{
				"with Content-Length": {1 << 30, []string{"-T", vast}},
				"in chunks":           {256 << 20, []string{"-T", large, "-H", "Transfer-Encoding: chunked"}},
			} {
				before := p.peakMemory()
				begun := time.Now()
				c := curl(t, append(way.args, "-X", "POST", "-H", "Content-Type: application/octet-stream", p.URL+"/api/call/"+echo)...)
				n, err := io.Copy(io.Discard, c.out)
				if _, status := c.end(); n != way.size || err != nil || status != 0 {
					t.Fatalf("%s: %d bytes came back, %v, and curl ended with %d", what, n, err, status)
				}
				took, after := time.Since(begun), p.peakMemory()
				t.Logf("%s: %v, %.0f MB/s each way, the dispatcher's memory peaks at %d MB, before at %d MB",
					what, took.Round(time.Millisecond), float64(way.size)/took.Seconds()/(1<<20), after>>20, before>>20)
				if after-before > 160<<20 { // the race detector takes most of it
					t.Errorf("%s: the dispatcher took %d MB for it", what, (after-before)>>20)
				}
			}
			if after := p.do("GET", "/api/meta/"+echo, "").Body; after != sandbox {
				t.Errorf("another sandbox: %s after %s", after, sandbox)
			}

			// A client that leaves while it sends takes nothing with it.
			leaving := exec.Command("curl", "-sSN", "-T", "-", "-X", "POST", "-o", os.DevNull, p.URL+"/api/call/"+echo)
			stdin, err := leaving.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := leaving.Start(); err != nil {
				t.Fatal(err)
			}
			io.CopyN(stdin, endless{}, 20<<20)
			leaving.Process.Kill()
			leaving.Wait()
			eventually(t, time.Minute, "the slot is free, of the same sandbox", func() bool {
				return p.do("GET", "/api/meta/"+echo, "").Body == sandbox
			})

			blanks := strings.Repeat(" ", 7<<20)
			p.do("GET", "/api/call/"+plain+"?n=7000000", "").wantsProblem(t, 502, "bad_answer")
			p.do("POST", "/api/call/"+plain+"?n=1", blanks).wantsProblem(t, 413, "too_large")
			p.do("GET", "/api/call/"+plain+"?n=1", "").wants(t, 200, `{"result": "x"}`)
			text := fmt.Sprintf(`{"n": "1", "x": %q}`, blanks[:6_000_000])
			if a := p.do("POST", "/api/call/"+plain+"?n=5", text); a.Status == 413 {
				t.Errorf("6 MB are answered %d %s", a.Status, a.Body)
			}
		})
	}
}

// peakMemory is the most memory that the dispatcher ever had, in bytes.
func (p *dispatcher) peakMemory() int {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		p.t.Fatal(err)
	}
	fields := strings.Fields(string(status))
	i := slices.Index(fields, "VmHWM:")
	n, err := strconv.Atoi(fields[i+1])
	if i < 0 || err != nil || fields[i+2] != "kB" {
		p.t.Fatalf("no peak in %s", status)
	}
	return n << 10
}

// TestImpatientCallerOfAStream: a caller's time is over before the function has
// given anything, and what it gives then finds the connection idle, or in use by
// the next request.
func TestImpatientCallerOfAStream(t *testing.T) {
	t.Parallel()
	r := boot(t, "FOB_POOL=python=1,node=0")
	id := r.gen("?concurrency=4&timeout=20s", `
import threading

go = threading.Event()

def items():
    go.wait()
    yield "late"

def callme(what=""):
    if what == "go": return go.set()
    if what == "again": return go.clear()
    return items()
`)
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	ask := func(query, timeout string) int {
		request, err := http.NewRequest("GET", r.URL+"/api/call/"+id+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		if timeout != "" {
			request.Header.Set("Fob-Timeout", timeout)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode
	}
	atRest := func() bool { return r.inFlight(id) == 0 }
	for range 3 {
		if status := ask("", "50ms"); status != http.StatusGatewayTimeout {
			t.Fatalf("who waits for 50 ms is answered %d", status)
		}
		r.do("GET", "/api/call/"+id+"?what:go", "").wantsStatus(t, http.StatusOK)
		eventually(t, 10*time.Second, "the call has ended", atRest)
		if status := ask("?what:again", ""); status != http.StatusOK {
			t.Fatalf("the same connection's next request is answered %d", status)
		}

		// This time the next request is the one that lets the function go on.
		if status := ask("", "50ms"); status != http.StatusGatewayTimeout {
			t.Fatalf("who waits for 50 ms is answered %d", status)
		}
		if status := ask("?what:go", ""); status != http.StatusOK {
			t.Fatalf("the next request is answered %d", status)
		}
		eventually(t, 10*time.Second, "the call has ended", atRest)
		if status := ask("?what:again", ""); status != http.StatusOK {
			t.Fatalf("the one after it is answered %d", status)
		}
	}
}

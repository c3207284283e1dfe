package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/client"
)

// hunt looks for a secret wherever it must not be.
type hunt struct {
	report  func(format string, args ...any) // of a find
	needles [][]byte

	mu     sync.Mutex
	looked map[string]int // by kind of place: bytes
	found  map[string]bool
}

func newHunt(report func(string, ...any), value string) *hunt {
	h := &hunt{report: report, looked: map[string]int{}, found: map[string]bool{}}
	add := func(form string) { h.needles = append(h.needles, []byte(form)) }
	add(value)
	add(hex.EncodeToString([]byte(value)))
	add(strings.ToUpper(hex.EncodeToString([]byte(value))))
	// In base64 of something longer it looks different by where it begins; what
	// it shares a character with is left out.
	for shift := range 3 {
		padded := append(make([]byte, shift), value...)
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			add(encoding.EncodeToString(padded)[(8*shift+5)/6 : 8*len(padded)/6])
		}
	}
	return h
}

// look looks at something of a kind of place. A find fails the test, once a place.
func (h *hunt) look(kind, place string, data []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.looked[kind] += len(data)
	for _, needle := range h.needles {
		if at := bytes.Index(data, needle); at >= 0 && !h.found[kind+place] {
			h.found[kind+place] = true
			h.report("the secret is in the %s %s: %q", kind, place, data[max(0, at-60):min(len(data), at+len(needle)+20)])
		}
	}
}

// files looks at all files below a folder. Some may go meanwhile.
func (h *hunt) files(kind, folder string) {
	filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			if data, err := os.ReadFile(path); err == nil {
				h.look(kind, path, data)
			}
			if strings.HasPrefix(entry.Name(), "core") {
				h.report("there is a core file, %s", path)
			}
		}
		return nil
	})
}

// cli looks at what the docker client says of something, which may be gone.
func (h *hunt) cli(kind string, args ...string) string {
	out, _ := exec.Command("docker", args...).CombinedOutput()
	h.look(kind, strings.Join(args, " "), out)
	return string(out)
}

// follower looks at every container of an aviary from its start to its end: its
// folder on the engine's disk, and its log in there. The log it holds open, for
// that goes with the container.
type follower struct {
	h     *hunt
	ended chan struct{}
	end   func() // closes it
	all   sync.WaitGroup
	mu    sync.Mutex
	log   map[string]*os.File // by container
}

func (h *hunt) follow(t *testing.T, aviary string) *follower {
	f := &follower{h: h, ended: make(chan struct{}), log: map[string]*os.File{}}
	f.end = sync.OnceFunc(func() { close(f.ended) })
	t.Cleanup(f.end)
	folders := filepath.Join(strings.TrimSpace(dockerCLI(t, "info", "--format", "{{.DockerRootDir}}")), "containers")
	f.all.Go(func() {
		for {
			out, _ := exec.Command("docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", "label=fob.aviary="+aviary).Output()
			for _, id := range strings.Fields(string(out)) {
				f.openLog(id, filepath.Join(folders, id, id+"-json.log"))
				h.files("engine's folder of a container", filepath.Join(folders, id))
			}
			select {
			case <-f.ended:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	return f
}

// openLog opens a container's log, unless that has been done or it is not there yet.
func (f *follower) openLog(id, path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.log[id] == nil {
		if file, err := os.Open(path); err == nil {
			f.log[id] = file
		}
	}
}

// logs returns what there is so far, as the engine writes it: in JSON.
func (f *follower) logs() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all strings.Builder
	for _, file := range f.log {
		io.Copy(&all, io.NewSectionReader(file, 0, math.MaxInt64))
	}
	return all.String()
}

// stop ends it, once all containers have ended.
func (f *follower) stop() {
	f.end()
	f.all.Wait()
	f.h.look("containers' logs", "", []byte(f.logs()))
	for _, file := range f.log {
		file.Close()
	}
}

// processes looks at what the kernel shows of the processes in a container, or
// of one process, and returns how many there are.
func (h *hunt) processes(container string, pid int) (n int) {
	folders, _ := filepath.Glob("/proc/[0-9]*")
	for _, folder := range folders {
		cgroup, _ := os.ReadFile(folder + "/cgroup")
		if !(container != "" && bytes.Contains(cgroup, []byte(container))) && folder != fmt.Sprintf("/proc/%d", pid) {
			continue
		}
		n++
		for _, name := range []string{"environ", "cmdline", "comm", "status", "maps", "mountinfo"} {
			data, err := os.ReadFile(filepath.Join(folder, name))
			if err == nil {
				h.look("process's "+name, folder, data)
			}
		}
	}
	return n
}

// A function's ways to lose a secret, which is where it says what it does with
// CANARY. Each is "python", "node".
var canaryFunctions = map[string][2]string{
	"works": {`
import hashlib, os
def callme():
    file = open(os.environ["FOB_SECRETS"] + "/CANARY", "rb").read()
    return [hashlib.sha256(v).hexdigest() for v in (os.environb[b"CANARY"], file)]
`, `
const { createHash } = require('crypto');
const sum = (v) => createHash('sha256').update(v).digest('hex');
module.exports = () => [process.env.CANARY, require('fs').readFileSync(process.env.FOB_SECRETS + '/CANARY')].map(sum);
`},
	"raises": {`
import os
def callme():
    try: {}[os.environ["CANARY"]]
    except KeyError as e: raise RuntimeError("with " + os.environ["CANARY"]) from e
`, `module.exports = () => { throw new Error('with ' + process.env.CANARY, { cause: new Error(process.env.CANARY) }); };`},
	"prints": {`
import logging, os, sys
print("at import", os.environ["CANARY"])
def callme():
    print("printed", os.environ["CANARY"])
    logging.error("logged %s", os.environ["CANARY"])
    sys.stderr.write("partial " + os.environ["CANARY"])
`, `
console.log('at import', process.env.CANARY);
module.exports = () => {
  console.error('printed', process.env.CANARY);
  setTimeout(() => { throw new Error('thrown ' + process.env.CANARY); });
  process.stdout.write('partial ' + process.env.CANARY);
};
`},
	"streams": {`
import os
def callme():
    yield "a"
    raise RuntimeError("in a stream " + os.environ["CANARY"])
`, `module.exports = function* () { yield 'a'; throw new Error('in a stream ' + process.env.CANARY); };`},
	"crashes": {`
import os
def callme():
    print("crashing with", os.environ["CANARY"])
    os._exit(3)
`, `module.exports = () => { console.log('crashing with', process.env.CANARY); process.exit(3); };`},
	"aborts": {`
import os
key = os.environ["CANARY"] * 1000
def callme(): os.abort()
`, `const key = process.env.CANARY.repeat(1000); module.exports = () => process.abort();`},
	"eats": {`
import os
hoard = [os.environ["CANARY"]]
def callme():
    while True: hoard.append(bytearray(1 << 20))
`, `
const hoard = [process.env.CANARY];
module.exports = () => { for (;;) hoard.push(Buffer.alloc(1 << 20, 1)); };
`},
	"hangs": {`
import os
def callme():
    key = os.environ["CANARY"]
    while True: pass
`, `module.exports = () => { const key = process.env.CANARY; for (;;); };`},
	"dumps": {`
import glob, os, signal
def callme():
    for number in (signal.SIGABRT, signal.SIGSEGV):
        pid = os.fork()
        if pid == 0:
            os.chdir("/tmp")
            os.kill(os.getpid(), number)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status) or os.WCOREDUMP(status): return "a core was dumped: %d" % status
    return glob.glob("/tmp/core*") + glob.glob("/run/secrets/core*")
`, `
const { spawnSync } = require('child_process');
module.exports = () => {
  spawnSync(process.execPath, ['-e', 'process.abort()'], { cwd: '/tmp' });
  return require('fs').readdirSync('/tmp').filter((name) => name.startsWith('core'));
};
`},
}

// TestDockerCanary gives a secret to functions that do with it what they can, and
// hunts it through everything that is seen from outside of their sandboxes.
func TestDockerCanary(t *testing.T) {
	t.Parallel()
	value := "canary-" + rand.Text()
	h := newHunt(t.Errorf, value)
	aviary, data := testAviary(t), shortDir(t)
	var events client.Log
	watch := exec.Command("docker", "events", "--since", fmt.Sprint(time.Now().Unix()))
	watch.Stdout = &events
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer watch.Wait()
	defer watch.Process.Kill()
	p := boot(t, "FOB_DATA="+data, "FOB_AVIARY="+aviary, "FOB_POOL=python=1,node=1", "FOB_LOG_LEVEL=debug")
	followed := h.follow(t, aviary)
	ask := func(method, path, body string, want int) answered {
		t.Helper()
		a, err := p.try(method, path, body)
		h.look("answer", method+" "+path, fmt.Appendf(nil, "%v %s", a.Header, a.Body))
		if err == nil && a.Status != want || err != nil && want != 0 {
			t.Errorf("%s %s: %d %s, %v; want %d", method, path, a.Status, a.Body, err, want)
		}
		return a
	}

	ask("PUT", "/api/secrets/CANARY", value, 201)
	ask("PUT", "/api/secrets/CANARY?colour=blue", value, 400)
	ask("PUT", "/api/secrets/a-b", value, 400)
	ask("POST", "/api/secrets/CANARY", value, 405)
	ask("PUT", "/api/secrets/CANARY", value+strings.Repeat(value, 3000), 413)
	sum := sha256.Sum256([]byte(value))
	want := fmt.Sprintf(`{"result": ["%x", "%[1]x"]}`, sum)
	statuses := map[string]int{"raises": 500, "streams": 0, "crashes": 502, "aborts": 502, "eats": 502, "hangs": 504}
	for i, lang := range []string{"python", "node"} {
		for name, code := range canaryFunctions {
			ref := lang + "-" + name
			timeout := "1m" // it is to end by itself, however busy the machine
			if name == "hangs" {
				timeout = "2s"
			}
			ask("PUT", "/api/functions/"+ref+"?secrets=CANARY&memory=64MB&timeout="+timeout+"&lang="+lang, code[i], 201)
			status, special := statuses[name]
			if !special {
				status = 200
			}
			a := ask("GET", "/api/call/"+ref, "", status)
			switch name {
			case "works":
				if a.wants(t, 200, strings.Replace(want, `", "`, map[string]string{"python": `", "`, "node": `","`}[lang], 1)); h.processes(sandboxContainer(t, p, ref), 0) == 0 {
					t.Error("no process of the sandbox was looked at")
				}
			case "dumps":
				a.wants(t, 200, `{"result": []}`)
			case "raises":
				if e := a.wantsProblem(t, 500, "function_raised").Error; !strings.Contains(e.Message, "with ***") || !strings.Contains(e.Traceback, "***") {
					t.Errorf("%s answered %s", ref, a.Body)
				}
			}
		}
		broken := map[string]string{
			"python": "import os\nraise ValueError('bad ' + os.environ['CANARY'])\n", "node": "throw new Error('bad ' + process.env.CANARY);",
		}[lang]
		ask("PUT", "/api/functions/broken?secrets=CANARY&lang="+lang, broken, 422).wantsProblem(t, 422, "does_not_compile")
		ask("PUT", "/api/functions/broken?secrets=CANARY&lang="+lang, "def callme(:(", 422)
		ask("PUT", "/api/functions/broken?secrets=CANARY,GONE&lang="+lang, "x", 400)
	}
	for _, path := range []string{
		"/api/stats", "/api/functions", "/api/functions/python-works", "/api/meta/python-works", "/api/cs/python-works", "/api/secrets",
		"/metrics", "/api/version", "/api/openapi.yaml", "/healthz", "/readyz",
	} {
		ask("GET", path, "", 200)
	}
	ask("GET", "/api/secrets/CANARY", "", 405)
	ask("DELETE", "/api/secrets/CANARY", "", 409)
	ask("POST", "/api/secrets/rotate-key", "", 200)

	if h.processes("", p.PID()) != 1 {
		t.Error("the dispatcher's process was not looked at")
	}
	for _, id := range containers(t, aviary) {
		h.cli("container", "inspect", "--size", id)
		h.cli("container's changes", "diff", id)
		h.cli("container's processes", "top", id, "axeww")
	}
	for _, image := range strings.Fields(dockerCLI(t, "image", "ls", "--quiet", "--no-trunc")) {
		h.cli("image", "image", "inspect", image)
		h.cli("image", "history", "--no-trunc", image)
	}
	for _, network := range networks(t, aviary) {
		h.cli("network", "network", "inspect", network)
	}
	for _, path := range []string{"/api/calls?limit=1000", "/api/logs?limit=1000", "/api/audit"} {
		ask("GET", path, "", 200)
	}
	h.journals(t, data)
	h.files("data folder", data)
	// The engine holds "partial" back, which has no line break, and may lose it.
	for _, line := range []string{"at import ***", "printed ***", "logged ***", "thrown ***", "in a stream ***", "crashing with ***"} {
		eventually(t, time.Minute, "a container's log has "+line, func() bool { return strings.Contains(followed.logs(), line) })
	}
	p.terminate()
	followed.stop()
	h.dispatcherLog(t, p)
	watch.Process.Signal(syscall.SIGINT)
	h.look("events", "", []byte(events.String()))
	h.files("data folder", data)
	if cores, _ := filepath.Glob("core*"); len(cores) > 0 {
		t.Errorf("there are core files: %v", cores)
	}
	for _, kind := range []string{
		"answer", "container", "container's processes", "image", "network", "data folder", "engine's folder of a container", "containers' logs",
		"audit journal", "history journal", "logs journal", "dispatcher's log", "events", "process's environ", "process's cmdline",
	} {
		if h.looked[kind] < 50 {
			t.Errorf("only %d bytes of %s were looked at", h.looked[kind], kind)
		}
	}
	t.Logf("looked at so many bytes: %v", h.looked)
}

// sandboxContainer returns the container of a function's sandbox.
func sandboxContainer(t *testing.T, p *dispatcher, ref string) string {
	t.Helper()
	m := regexp.MustCompile(`"sandboxes": \[\{"id": "([0-9a-f]+)"`).FindStringSubmatch(p.do("GET", "/api/meta/"+ref, "").Body)
	if m == nil {
		t.Fatalf("%s has no sandbox", ref)
	}
	return strings.TrimSpace(dockerCLI(t, "ps", "--quiet", "--no-trunc", "--filter", "label=fob.sandbox="+m[1]))
}

// The hunt finds a secret in each form that it looks for.
func TestHuntFinds(t *testing.T) {
	t.Parallel()
	value := "canary-" + rand.Text()
	for what, hidden := range map[string]string{
		"plain":              "x" + value + "y",
		"hex":                fmt.Sprintf("x%xy", value),
		"HEX":                fmt.Sprintf("x%Xy", value),
		"base64":             base64.StdEncoding.EncodeToString([]byte(value)),
		"in a longer base64": base64.StdEncoding.EncodeToString([]byte("{" + value + "}")),
		"in another one":     base64.URLEncoding.EncodeToString([]byte("{\"" + value + "\"}")),
	} {
		found := 0
		h := newHunt(func(string, ...any) { found++ }, value)
		h.look("", what, []byte(hidden))
		if found != 1 {
			t.Errorf("it does not find it %s: %s", what, hidden)
		}
	}
}

package e2e

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/pages"
)

// TestCommandLine: what is asked is answered, and what is not understood takes a
// line.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"--version":         "flock of birds dispatcher",
		"version":           "flock of birds dispatcher",
		"serve --version":   "flock of birds dispatcher",
		"help":              "Commands:",
		"--help":            "Commands:",
		"help serve":        "FOB_ADDR",
		"help token create": "SCOPE[:FUNCTION]",
	} {
		out, complaints, ok := command(t, nil, strings.Fields(line)...)
		if !ok || !strings.Contains(out, want) || complaints != "" {
			t.Errorf("dispatcher %s: %v, %s%s", line, ok, out, complaints)
		}
	}
	for line, want := range map[string]string{
		"":                   `"serve"`,
		"srve":               `did you mean "serve"?; see dispatcher --help`,
		"servre":             `"serve"`,
		"hlep":               `"help"`,
		"nonsense":           "see dispatcher --help",
		"help nonsense":      "nonsense",
		"help toke":          `"token"`,
		"token creat x":      `did you mean "create"?; see dispatcher token --help`,
		"serve --adr x":      `"--addr"`,
		"serve --addr x":     "FOB_ADDR=x",
		"token create":       "see dispatcher token create --help",
		"restore":            "see dispatcher restore --help",
		"health --addr x:1":  "--addr",
		"restore /no/such/f": "/no/such/f",
	} {
		out, complaints, ok := command(t, []string{"FOB_DATA=" + t.TempDir()}, strings.Fields(line)...)
		if ok || out != "" || !strings.Contains(complaints, want) || strings.Count(complaints, "\n") != 1 {
			t.Errorf("dispatcher %s: %v, %s%s, want %s", line, ok, out, complaints, want)
		}
	}
}

// TestHealth: it asks the dispatcher that is meant, and no other.
func TestHealth(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.Path != "/readyz" {
			w.WriteHeader(http.StatusNotFound)
		}
		io.WriteString(w, "another")
	}))
	defer other.Close()
	addr := strings.TrimPrefix(other.URL, "http://")
	r := boot(t)
	refused := func(want string, env ...string) {
		t.Helper()
		if out, complaints, ok := command(t, env, "health"); ok || !strings.Contains(complaints, want) {
			t.Errorf("with %v: %v %s%s, want %s", env, ok, out, complaints, want)
		}
	}
	says := func(want string, env ...string) {
		t.Helper()
		if out, complaints, ok := command(t, env, "health"); !ok || out != want+"\n" {
			t.Errorf("with %v: %v %s%s, want %s", env, ok, out, complaints, want)
		}
	}
	data := "FOB_DATA=" + r.Data
	says(`{"status": "ready"}`, data, "FOB_ADDR="+addr)
	if asked.Load() > 0 {
		t.Error("it asked another dispatcher")
	}
	for _, url := range []string{other.URL, addr, other.URL + "/", "localhost:" + addr[strings.LastIndex(addr, ":")+1:], addr[strings.LastIndex(addr, ":"):]} {
		says("another", data, "FOB_URL="+url)
	}
	refused("404", data, "FOB_URL="+addr+"/elsewhere")
	for _, url := range []string{"ftp://" + addr, "http://", "http://a b", addr + "?x=1"} {
		refused("FOB_URL="+url, data, "FOB_URL="+url)
	}
	// No other is taken for one that does not run, and nothing is made.
	empty := shortDir(t)
	refused("no dispatcher runs", "FOB_DATA="+empty, "FOB_ADDR="+addr)
	if entries, err := os.ReadDir(empty); err != nil || len(entries) > 0 {
		t.Errorf("health left %v in the data folder (%v)", entries, err)
	}
	refused("no such file", "FOB_DATA="+filepath.Join(empty, "none"))
	r.terminate()
	refused("no dispatcher runs", data)
}

// TestHealthOfTheSilent: a dispatcher that does not answer is not ready.
func TestHealthOfTheSilent(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer silent.Close()
	defer close(release)
	if out, complaints, ok := command(t, []string{"FOB_URL=" + silent.URL}, "health", "--timeout", "50ms"); ok || !strings.Contains(complaints, "deadline") {
		t.Errorf("%v %s%s", ok, out, complaints)
	}
}

// TestGreeting: the start says what README.md begins with, and, where the
// dispatcher is published elsewhere, for there.
func TestGreeting(t *testing.T) {
	t.Parallel()
	var first string
	for _, b := range pages.Blocks(t, "README.md") {
		if b.Runs() {
			first = b.Text
			break
		}
	}
	r := boot(t)
	greeting := func(d *dispatcher) (commands string) {
		for line := range strings.Lines(d.Log.String()) {
			if command, is := strings.CutPrefix(line, "  "); is {
				commands += command
			}
		}
		return strings.ReplaceAll(commands, d.URL, "http://127.0.0.1:9999")
	}
	eventually(t, time.Minute, "it greets with what README.md begins with", func() bool { return greeting(r) == first })
	if compose := pages.Read(t, "docker-compose.yml"); !strings.Contains(compose, `"127.0.0.1:${FOB_PORT:-9999}:9999"`) ||
		!strings.Contains(compose, "FOB_PUBLIC_URL=http://127.0.0.1:${FOB_PORT:-9999}\n") {
		t.Error("docker-compose.yml publishes it elsewhere than it says")
	}
	p := boot(t, "FOB_PUBLIC_URL=https://fob.example.com:8443")
	eventually(t, time.Minute, "it greets", func() bool {
		return strings.Contains(p.Log.String(), "curl 'https://fob.example.com:8443/api/call/hello?name=Ada'")
	})
}

// A command whose output nobody wants any more ends without a word.
func TestCommandIntoHead(t *testing.T) {
	t.Parallel()
	data := shortDir(t)
	for range 3 {
		mustCommand(t, data, "token", "create", "x", "--grant", "admin")
	}
	for _, args := range []string{"audit", "token list", "backup -", "--help"} {
		cmd := exec.Command("/bin/sh", "-c", `{ sleep 0.05; exec "$0" `+args+`; } | true`, program)
		cmd.Env = append(os.Environ(), "FOB_DATA="+data)
		var complaints strings.Builder
		cmd.Stderr = &complaints
		if err := cmd.Run(); err != nil || complaints.String() != "" {
			t.Errorf("%s: %v, %s", args, err, complaints.String())
		}
	}
}

// A command reaches a running dispatcher through its data folder, which nobody
// else may do, however long the folder's path is.
func TestControlSocket(t *testing.T) {
	t.Parallel()
	for name, folder := range map[string]string{"a short path": "", "a long path": strings.Repeat("deep/", 30)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			short := shortDir(t)
			data := filepath.Join(short, folder)
			r := boot(t, "FOB_DATA="+data, "FOB_SOCKETS="+filepath.Join(short, "s"), "FOB_POOL=python=1,node=0")
			info, err := os.Stat(filepath.Join(data, "control.sock"))
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the control socket is %v (%v)", info.Mode(), err)
			}
			id := r.gen("", "def callme(): return 1\n")
			if got := r.local("GET", "/api/stats", ""); got != `{"functions": ["`+id+`"]}` {
				t.Errorf("the answer was %s", got)
			}
			if got := mustCommand(t, data, "health"); got != "{\"status\": \"ready\"}\n" {
				t.Errorf("a command was answered %s", got)
			}
			r.terminate()
			refusedCommand(t, "no dispatcher runs on the data folder", data, "health")
			if got := mustCommand(t, data, "token", "list"); !strings.HasPrefix(got, "ID ") {
				t.Errorf("with none running the answer was %s", got)
			}
		})
	}
}

// An address that somebody has is refused in words that help.
func TestBusyAddress(t *testing.T) {
	t.Parallel()
	r := boot(t, "FOB_POOL=python=0,node=0")
	said := bootUnready(t, "FOB_ADDR="+r.Addr()).refuses()
	if !strings.Contains(said, "in use") || !strings.Contains(said, "FOB_ADDR") {
		t.Errorf("a busy address: %s", said)
	}
}

// Quotes around a setting are told of where the setting cannot be used.
func TestQuotedSettingsAreTold(t *testing.T) {
	t.Parallel()
	for name, env := range map[string]string{"FOB_ADDR": `FOB_ADDR="127.0.0.1:1"`, "FOB_MAX_BODY": `FOB_MAX_BODY="6MB"`} {
		if _, complaints, ok := command(t, []string{env, "FOB_DATA=" + shortDir(t)}, "serve"); ok || !strings.Contains(complaints, name+" has quotes around its value") {
			t.Errorf("%s: %v %s", env, ok, complaints)
		}
	}
}

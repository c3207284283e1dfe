package main

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
)

// TestCommandLine: what is asked is answered, and what is not understood takes a
// line.
func TestCommandLine(t *testing.T) {
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
	r := boot(t, nil)
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
	data := "FOB_DATA=" + r.cfg.Data
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
	r.stop()
	refused("no dispatcher runs", data)
}

// TestHealthOfTheSilent: a dispatcher that does not answer is not ready.
func TestHealthOfTheSilent(t *testing.T) {
	release := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer silent.Close()
	defer close(release)
	if out, complaints, ok := command(t, []string{"FOB_URL=" + silent.URL}, "health", "--timeout", "50ms"); ok || !strings.Contains(complaints, "deadline") {
		t.Errorf("%v %s%s", ok, out, complaints)
	}
}

// TestRestoreFromStandardInput: a backup need not be a file here.
func TestRestoreFromStandardInput(t *testing.T) {
	data := shortDir(t)
	file := filepath.Join(t.TempDir(), "backup.db")
	mustCommand(t, data, "token", "create", "kept", "--grant", "admin")
	mustCommand(t, data, "backup", file)
	restore := func(from io.Reader, to string) (string, error) {
		cmd := exec.Command(os.Args[0], "restore", "-")
		cmd.Env = append(os.Environ(), "FOBTEST_MAIN=1", "FOB_DATA="+to)
		cmd.Stdin = from
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	backup, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other := shortDir(t)
	if out, err := restore(strings.NewReader(string(backup[:len(backup)/2])), other); err == nil || !strings.Contains(out, "standard input") {
		t.Errorf("half a backup: %v %s", err, out)
	}
	if out, err := restore(strings.NewReader(string(backup)), other); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if out := mustCommand(t, other, "token", "list"); !strings.Contains(out, "kept") {
		t.Errorf("token list says %s", out)
	}
}

// TestGreeting: the start says what README.md begins with, and, where the
// dispatcher is published elsewhere, for there.
func TestGreeting(t *testing.T) {
	var first string
	for _, b := range blocksOf(t, "README.md") {
		if b.runs() {
			first = b.text
			break
		}
	}
	var commands []string
	for line := range strings.Lines(greeting("http://127.0.0.1:9999")) {
		if command, is := strings.CutPrefix(line, "  "); is {
			commands = append(commands, command)
		}
	}
	if len(commands) != 2 || strings.Join(commands, "") != first {
		t.Errorf("README.md begins with\n%s\nand the greeting is\n%s", first, strings.Join(commands, ""))
	}
	if compose := readFile(t, "docker-compose.yml"); !strings.Contains(compose, `"127.0.0.1:${FOB_PORT:-9999}:9999"`) ||
		!strings.Contains(compose, "FOB_PUBLIC_URL=http://127.0.0.1:${FOB_PORT:-9999}\n") {
		t.Error("docker-compose.yml publishes it elsewhere than it says")
	}
	p := spawn(t, map[string]string{"FOB_ENGINE": "process", "FOB_DATA": shortDir(t), "FOB_PUBLIC_URL": "https://fob.example.com:8443"})
	eventually(t, time.Minute, "it greets", func() bool {
		return strings.Contains(p.output.String(), "curl 'https://fob.example.com:8443/api/call/hello?name=Ada'")
	})
}

package process_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/sandbox"
	"github.com/flockofbirds/fob/internal/sandbox/process"
	"github.com/flockofbirds/fob/internal/sandbox/sandboxtest"
)

// logBook keeps what sandboxes print, by sandbox.
type logBook struct {
	mu    sync.Mutex
	lines map[string][]string
}

func (b *logBook) Write(p []byte) (int, error) {
	var entry struct{ Sandbox, Message string }
	if err := json.Unmarshal(p, &entry); err != nil {
		return 0, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines[entry.Sandbox] = append(b.lines[entry.Sandbox], entry.Message)
	return len(p), nil
}

func (b *logBook) of(id string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.lines[id], "\n") + "\n"
}

// shortDir is a folder with a path that leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "fob")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func pidOf(t *testing.T, dir, folder string) string {
	t.Helper()
	pid, err := os.ReadFile(filepath.Join(dir, folder, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(pid))
}

func harness(t *testing.T) (sandboxtest.Harness, string) {
	dir := shortDir(t)
	book := &logBook{lines: map[string][]string{}}
	aviaryOf := func(inst sandbox.Instance) string {
		found, err := filepath.Glob(filepath.Join(dir, "*-"+inst.ID()))
		if err != nil || len(found) != 1 {
			t.Fatalf("folders of sandbox %s: %q, %v", inst.ID(), found, err)
		}
		return filepath.Base(found[0])
	}
	return sandboxtest.Harness{
		Open: func(t *testing.T, aviary string) sandbox.Engine {
			e, err := process.New(process.Config{Dir: dir, Aviary: aviary, Log: zerolog.New(book)})
			if err != nil {
				t.Fatal(err)
			}
			return e
		},
		Token: func(t *testing.T, inst sandbox.Instance) string {
			env, err := os.ReadFile("/proc/" + pidOf(t, dir, aviaryOf(inst)) + "/environ")
			if err != nil {
				t.Fatal(err)
			}
			for _, entry := range bytes.Split(env, []byte{0}) {
				if token, found := strings.CutPrefix(string(entry), "FOB_TOKEN="); found {
					return token
				}
			}
			t.Fatal("the driver has no token")
			return ""
		},
		Log: func(t *testing.T, inst sandbox.Instance) string { return book.of(inst.ID()) },
		Folder: func(t *testing.T, inst sandbox.Instance) (here, inside string) {
			folder := filepath.Join(dir, aviaryOf(inst))
			return folder, folder
		},
		Traces: func(t *testing.T, aviary string) []string {
			traces, err := filepath.Glob(filepath.Join(dir, aviary+"-*"))
			if err != nil {
				t.Fatal(err)
			}
			environments, err := filepath.Glob("/proc/[0-9]*/environ")
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range environments {
				env, _ := os.ReadFile(path) // a process may end at any time
				if bytes.Contains(env, []byte("FOB_SOCKET="+dir+"/"+aviary+"-")) {
					traces = append(traces, path)
				}
			}
			return traces
		},
	}, dir
}

// childDir, when set, makes the test binary a dispatcher that creates a
// sandbox in that folder and then waits to be killed.
const childDir = "FOB_TEST_DIR"

func TestMain(m *testing.M) {
	dir := os.Getenv(childDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	e, err := process.New(process.Config{Dir: dir, Aviary: "killed", Log: zerolog.Nop()})
	if err == nil {
		_, err = e.Create(context.Background(), sandboxtest.Spec("python"))
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("created")
	select {}
}

func TestConformance(t *testing.T) {
	h, _ := harness(t)
	sandboxtest.Run(t, h)
}

func open(t *testing.T, dir, aviary string, log zerolog.Logger) sandbox.Engine {
	t.Helper()
	e, err := process.New(process.Config{Dir: dir, Aviary: aviary, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Purge(context.Background()); err != nil {
			t.Errorf("Purge: %v", err)
		}
		if err := e.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return e
}

// The real thing, in place of the suite's second engine value.
func TestSurvivesKillOfTheDispatcher(t *testing.T) {
	dir := shortDir(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), self)
	child.Env = append(os.Environ(), childDir+"="+dir)
	output, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	said, err := bufio.NewReader(output).ReadString('\n')
	if err != nil || said != "created\n" {
		t.Fatalf("the child says %q, %v", said, err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	child.Wait()

	e := open(t, dir, "killed", zerolog.Nop())
	listed, err := e.List(t.Context())
	if err != nil || len(listed) != 1 {
		t.Fatalf("List: %v, %v", listed, err)
	}
	inst := listed[0]
	sandboxtest.Load(t, inst, "def callme():\n    print('nobody reads this')\n    return 42\n")
	for range 3 {
		var result int
		if sandboxtest.Call(t, inst, nil, &result); result != 42 {
			t.Errorf("result %d", result)
		}
	}
	pid := pidOf(t, dir, "killed-"+inst.ID())
	if err := inst.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if exit, err := inst.Exit(t.Context()); err != nil || !exit.Removed {
		t.Errorf("Exit is %+v, %v", exit, err)
	}
	sandboxtest.Eventually(t, "the process is gone", func() bool { return gone(pid) })
}

// gone reports whether there is no such process, or only its exit status,
// which it is for others to collect.
func gone(pid string) bool {
	status, err := os.ReadFile("/proc/" + pid + "/stat")
	return err != nil || bytes.Contains(status, []byte(") Z "))
}

func TestLeavesNoChildOfAFunction(t *testing.T) {
	e := open(t, shortDir(t), "children", zerolog.Nop())
	const spawn = "import subprocess\ndef callme():\n    return str(subprocess.Popen(['sleep', '1000']).pid)\n"
	for name, end := range map[string]func(sandbox.Instance) error{
		"removed": func(inst sandbox.Instance) error { return inst.Remove(t.Context()) },
		"purged":  func(inst sandbox.Instance) error { return e.Purge(t.Context()) },
	} {
		inst := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
		sandboxtest.Load(t, inst, spawn)
		var pid string
		sandboxtest.Call(t, inst, nil, &pid)
		if err := end(inst); err != nil {
			t.Fatal(err)
		}
		sandboxtest.Eventually(t, name+": what the function started is gone", func() bool { return gone(pid) })
	}
	inst := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	sandboxtest.Load(t, inst, "import os, subprocess\ndef callme():\n    print(subprocess.Popen(['sleep', '1001']).pid, flush=True)\n    os._exit(5)\n")
	if exit := sandboxtest.End(t, inst); exit.Code != 5 {
		t.Errorf("Exit is %+v", exit)
	}
	sandboxtest.Eventually(t, "died: what the function started is gone", func() bool { return !running("1001") })
}

// running reports whether some process sleeps for that long.
func running(seconds string) bool {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		line, _ := os.ReadFile(path)
		if string(line) == "sleep\x00"+seconds+"\x00" {
			return true
		}
	}
	return false
}

func TestDriverSeesNothingOfOurEnvironment(t *testing.T) {
	t.Setenv("FOB_MASTER_KEY", "secret")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	dir := shortDir(t)
	inst := sandboxtest.Create(t, open(t, dir, "env", zerolog.Nop()), sandboxtest.Spec("python"))
	env, err := os.ReadFile("/proc/" + pidOf(t, dir, "env-"+inst.ID()) + "/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range strings.Split(strings.TrimSuffix(string(env), "\x00"), "\x00") {
		// An interpreter may be a wrapper that adds some of its own.
		name, value, _ := strings.Cut(entry, "=")
		ours := slices.Contains([]string{"FOB_SOCKET", "FOB_TOKEN", "FOB_TCP", "FOB_SECRETS"}, name)
		if value == "secret" || strings.HasPrefix(name, "FOB_") && !ours {
			t.Errorf("it has %s", name)
		}
	}
}

// The files with secrets are the user's alone, and go with the sandbox.
func TestSecretFiles(t *testing.T) {
	dir := shortDir(t)
	inst := sandboxtest.Create(t, open(t, dir, "env", zerolog.Nop()), sandboxtest.Spec("python"))
	conn := sandbox.NewConn(inst, 1<<20, nil)
	defer conn.Close()
	load := sandbox.Load{Code: "def callme(): pass\n", Secrets: sandbox.Values{"KEY": []byte("swordfish")}}
	if _, err := conn.Load(t.Context(), load); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "env-"+inst.ID(), "secrets")
	value, err := os.ReadFile(filepath.Join(folder, "KEY"))
	if err != nil || string(value) != "swordfish" {
		t.Errorf("the file has %q, %v", value, err)
	}
	if info, err := os.Stat(folder); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", info.Mode(), err)
	}
	if err := inst.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
}

func TestLogLinesAreBounded(t *testing.T) {
	book := &logBook{lines: map[string][]string{}}
	inst := sandboxtest.Create(t, open(t, shortDir(t), "log", zerolog.New(book)), sandboxtest.Spec("python"))
	sandboxtest.Load(t, inst, "def callme():\n    print('x' * 50000)\n    print('after')\n")
	sandboxtest.Call(t, inst, nil, nil)
	sandboxtest.Eventually(t, "both lines are logged", func() bool { return strings.Contains(book.of(inst.ID()), "\nafter\n") })
	for _, line := range strings.Split(book.of(inst.ID()), "\n") {
		if len(line) > 10_000 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	dir := shortDir(t)
	for name, c := range map[string]struct {
		config process.Config
		want   string
	}{
		"long path": {process.Config{Dir: filepath.Join(dir, strings.Repeat("x", 80)), Aviary: "a"}, "FOB_SOCKETS"},
		"no folder": {process.Config{Dir: "/proc/sandboxes", Aviary: "a"}, "FOB_SOCKETS"},
		"aviary":    {process.Config{Dir: dir, Aviary: "../a"}, "FOB_AVIARY"},
	} {
		e, err := process.New(c.config)
		if err == nil {
			e.Close()
			t.Errorf("%s: New took it", name)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v: does not name %s", name, err, c.want)
		}
	}
	e := open(t, dir, "path", zerolog.Nop())
	t.Setenv("PATH", dir)
	if err := e.Prepare(t.Context(), "node"); err == nil || !strings.Contains(err.Error(), "install") {
		t.Errorf("without an interpreter: %v", err)
	}
	// One that does not start shows what it printed.
	if err := os.WriteFile(filepath.Join(dir, "python3"), []byte("#!/bin/sh\necho no such thing >&2; exit 9\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Create(t.Context(), sandboxtest.Spec("python")); err == nil || !strings.Contains(err.Error(), "status 9") || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("with a broken interpreter: %v", err)
	}
}

// The sandboxes' folder may go at any time. What runs is still known, and can be ended,
// also when an earlier engine value has started it; and what is new finds its place.
func TestFolderRemoved(t *testing.T) {
	dir := filepath.Join(shortDir(t), "s")
	first := open(t, dir, "folder", zerolog.Nop())
	early := sandboxtest.Create(t, first, sandboxtest.Spec("python"))
	pids := map[string]string{"adopted": pidOf(t, dir, "folder-"+early.ID())}
	e := open(t, dir, "folder", zerolog.Nop())
	listed, err := e.List(t.Context())
	if err != nil || len(listed) != 1 {
		t.Fatalf("List: %v, %v", listed, err)
	}
	own := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	pids["own"] = pidOf(t, dir, "folder-"+own.ID())
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := e.Check(t.Context()); err != nil {
		t.Error(err)
	}
	inst := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	if state := sandboxtest.State(t, inst); state != "blank" {
		t.Errorf("it is %q", state)
	}
	select {
	case <-listed[0].Done():
		t.Error("one that lives counts as dead, for its folder is gone")
	default:
	}
	for name, inst := range map[string]sandbox.Instance{"adopted": listed[0], "own": own} {
		if err := inst.Remove(t.Context()); err != nil {
			t.Error(err)
		}
		sandboxtest.Eventually(t, "the "+name+" process is gone", func() bool { return gone(pids[name]) })
	}
}

// One that an earlier dispatcher made with another driver, or did not say with which, is
// outdated.
func TestOutdated(t *testing.T) {
	dir := shortDir(t)
	first := open(t, dir, "old", zerolog.Nop())
	made := sandboxtest.Create(t, first, sandboxtest.Spec("python"))
	path := filepath.Join(dir, "old-"+made.ID(), "sandbox.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var record map[string]any
	if err := json.Unmarshal(text, &record); err != nil {
		t.Fatal(err)
	}
	today, _ := record["recipe"].(string)
	for recipe, want := range map[string]bool{today: false, "": true, "x" + today: true} {
		record["recipe"] = recipe
		text, err := json.Marshal(record)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := process.New(process.Config{Dir: dir, Aviary: "old", Log: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		listed, err := e.List(t.Context())
		if err != nil || len(listed) != 1 {
			t.Fatalf("List: %v, %v", listed, err)
		}
		if outdated, err := listed[0].Outdated(t.Context()); err != nil || outdated != want {
			t.Errorf("%q: outdated: %v, %v", recipe, outdated, err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
}

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/api"
)

// shellOf is somebody who uses the program by its short name, in a folder.
type shellOf struct {
	t   *testing.T
	dir string   // where they work, and where their contexts are
	env []string // FOB_URL=…, for example
}

// shellFor is somebody who works with the dispatcher of a data folder.
func shellFor(t *testing.T, env ...string) *shellOf {
	return &shellOf{t: t, dir: t.TempDir(), env: env}
}

// write writes a file in their folder.
func (s *shellOf) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shellOf) command(args ...string) *exec.Cmd {
	cmd := commandOf(append([]string{"XDG_CONFIG_HOME=" + filepath.Join(s.dir, "config")}, s.env...), args...)
	cmd.Path = filepath.Join(filepath.Dir(program), "fob")
	cmd.Args[0] = cmd.Path
	cmd.Dir = s.dir
	return cmd
}

// fob runs a command, and returns what it printed and its status.
func (s *shellOf) fob(args ...string) (stdout, stderr string, status int) {
	s.t.Helper()
	cmd := s.command(args...)
	var out, complaints strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err := cmd.Run()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		s.t.Fatalf("fob %v: %v", args, err)
	}
	return out.String(), complaints.String(), cmd.ProcessState.ExitCode()
}

// does runs a command that succeeds, and returns what it printed.
func (s *shellOf) does(args ...string) string {
	s.t.Helper()
	out, complaints, status := s.fob(args...)
	if status != 0 {
		s.t.Fatalf("fob %v ended with %d: %s%s", args, status, out, complaints)
	}
	return out
}

// fails runs a command that ends with a status and says all of that.
func (s *shellOf) fails(status int, args []string, says ...string) {
	s.t.Helper()
	out, complaints, got := s.fob(args...)
	if got != status {
		s.t.Errorf("fob %v ended with %d, want %d: %s%s", args, got, status, out, complaints)
	}
	for _, want := range says {
		if !strings.Contains(complaints, want) {
			s.t.Errorf("fob %v said\n%s%s, want\n%s", args, out, complaints, want)
		}
	}
}

// TestFunctionsByCommand: what a function goes through, by commands alone.
func TestFunctionsByCommand(t *testing.T) {
	t.Parallel()
	r := boot(t)
	s := shellFor(t, "FOB_DATA="+r.Data)
	s.write("hello.py", "def callme(name=\"x\"):\n\treturn f\"hi {name}\"\n")
	s.write("div.js", "exports.callme = (a, b) => {\n  if (!b) throw new RangeError('by zero')\n  return a / b\n}\n")
	if out := s.does("deploy", "hello.py", "div.js", "--timeout", "5s"); !regexp.MustCompile(`(?m)^hello +created +1 +hello.py$`).MatchString(out) || !regexp.MustCompile(`(?m)^div +created +1 +div.js$`).MatchString(out) {
		t.Errorf("deploy printed\n%s", out)
	}
	if out := s.does("list"); !strings.Contains(out, "hello  python  1") || !strings.Contains(out, "div    node    1") {
		t.Errorf("list printed\n%s", out)
	}
	if out := s.does("list", "hel", "--json"); strings.Count(out, "\n") != 1 || !json.Valid([]byte(out)) || !strings.Contains(out, `"name":"hello"`) {
		t.Errorf("list hel --json printed\n%s", out)
	}
	if out := s.does("deploy", "hello.py", "--memory", "200MB", "--public", "--description", "Greets you."); !strings.Contains(out, "changed  2") {
		t.Errorf("deploy printed\n%s", out)
	}
	for _, want := range []string{"hello\n", "memory=200MB", "timeout=5s", "public=true", "description=Greets you.", "version     2,", "live=2", "\n1  "} {
		if out := s.does("show", "hello"); !strings.Contains(out, want) {
			t.Errorf("show printed\n%s, want %s", out, want)
		}
	}
	var shown api.ShownFunction
	if err := json.Unmarshal([]byte(s.does("show", "hello@1", "--json")), &shown); err != nil || shown.Version.Number != 1 || len(shown.Versions) != 2 {
		t.Errorf("show --json: %v, %+v", err, shown)
	}
	if out := s.does("code", "hello"); out != "def callme(name=\"x\"):\n\treturn f\"hi {name}\"\n" {
		t.Errorf("code printed %q", out)
	}
	if out := s.does("call", "hello", "name=Ada"); out != `{"result": "hi Ada"}` {
		t.Errorf("call printed %q", out)
	}
	s.fails(3, []string{"call", "div", "a:=1", "b:=0"}, "RangeError: by zero", "div@1, line 2:", "\n    if (!b) throw new RangeError('by zero')\n", "    at ", "try: fob calls --call ")
	s.fails(3, []string{"call", "div", "c=1"}, "c", "(404)")
	s.fails(1, []string{"call", "none"}, "there is no function none", "try: fob list")
	s.fails(80, []string{"cal", "none"}, `"call"`, "see fob --help")
	if out := s.does("delete", "hello", "div"); out != "hello is deleted\ndiv is deleted\n" {
		t.Errorf("delete printed %q", out)
	}
	s.fails(1, []string{"delete", "hello", "div"}, "there is no function hello", "there is no function div", "try: fob list")
	if out := s.does("list"); strings.Count(out, "\n") != 1 {
		t.Errorf("list printed\n%s", out)
	}
	r.terminate()
	s.fails(1, []string{"list"}, "no dispatcher runs on the data folder")
}

// TestCallsByCommand: a failed call is found with its traceback, and its place in the
// code.
func TestCallsByCommand(t *testing.T) {
	t.Parallel()
	r := boot(t)
	s := shellFor(t, "FOB_DATA="+r.Data)
	s.write("pick.py", "def callme(key):\n    table = {}\n    return table[key]\n")
	s.does("deploy", "pick.py")
	s.fails(3, []string{"call", "pick", "key=secret", "X-Call-Id:the-call"}, "KeyError")
	var listed string
	eventually(t, time.Minute, "the call is in the history", func() bool {
		listed = s.does("calls", "pick")
		return strings.Contains(listed, "the-call")
	})
	if !regexp.MustCompile(`pick@1 +function_raised +[0-9.]+ms +the-call +'secret'`).MatchString(listed) {
		t.Errorf("calls printed\n%s", listed)
	}
	for _, args := range [][]string{{"calls", "--failed", "--since", "1h"}, {"calls", "--call", "the-call"}} {
		if out := s.does(args...); !strings.Contains(out, "Traceback (most recent call last)") || !strings.Contains(out, "KeyError: 'secret'") {
			t.Errorf("%v printed\n%s", args, out)
		}
	}
	if out := s.does("calls", "--call", "the-call"); !strings.Contains(out, "pick@1, line 3:\n      return table[key]\n             ~~~~~^^^^^\n") {
		t.Errorf("calls --call printed\n%s", out)
	}
	if out := s.does("calls", "--json", "--text", "KeyError"); strings.Count(out, "\n") != 1 || !json.Valid([]byte(out)) {
		t.Errorf("calls --json printed\n%s", out)
	}
	s.fails(1, []string{"calls", "--call", "none"}, "there is no call", "try: fob calls")
	s.fails(1, []string{"calls", "--since", "someday"}, "since is a time")
}

// TestStreamsAsTheyCome: a piece of an answer, and a call that ended, are shown before what
// comes after them.
func TestStreamsAsTheyCome(t *testing.T) {
	t.Parallel()
	r := boot(t)
	s := shellFor(t, "FOB_DATA="+r.Data)
	s.write("slow.py", fmt.Sprintf("import os, time\ndef callme():\n    yield 'first\\n'\n    while not os.path.exists(%q): time.sleep(0.01)\n    yield 'last'\n", filepath.Join(s.dir, "go")))
	s.does("deploy", "slow.py")
	ended := runIn(t, s.command("calls", "-f"), 120)
	out, err := os.Create(filepath.Join(s.dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := s.command("call", "slow")
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	got := func() string {
		text, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	eventually(t, time.Minute, "the first piece is there", func() bool { return got() == "first\n" })
	s.write("go", "")
	if err := cmd.Wait(); err != nil || got() != "first\nlast" {
		t.Errorf("%v: %q", err, got())
	}
	eventually(t, time.Minute, "a call that ends is shown", func() bool {
		s.does("call", "slow")
		return strings.Contains(ended.text(), "slow@1")
	})
}

// TestRenameByCommand: a function that is renamed keeps its ID, its versions and what
// became of its calls.
func TestRenameByCommand(t *testing.T) {
	t.Parallel()
	r := boot(t)
	s := shellFor(t, "FOB_DATA="+r.Data)
	s.write("one.py", "def callme(): return 1\n")
	s.write("two.py", "def callme(): return 2\n")
	s.does("deploy", "one.py", "two.py")
	s.does("call", "one", "X-Call-Id:early")
	id := s.deploys(0, "one.py")["one"].ID
	s.fails(1, []string{"rename", "one", "two"}, "a function called two exists")
	s.fails(1, []string{"rename", "one", "no name"}, "is not a function name")
	if out := s.does("rename", "one", "uno"); out != "one is uno now\n" {
		t.Errorf("rename printed %q", out)
	}
	s.fails(1, []string{"call", "one"}, "there is no function one")
	if out := s.does("call", "uno", "X-Call-Id:late"); out != `{"result": 1}` {
		t.Errorf("it answers %s", out)
	}
	eventually(t, time.Minute, "the calls are in the history", func() bool {
		out := s.does("calls", "uno")
		return strings.Contains(out, "early") && strings.Contains(out, "late")
	})
	if again := s.deploys(0, "one.py", "two.py"); again["one"].Result != "created" || again["one"].ID == id {
		t.Errorf("its former name: %+v", again)
	}
	if out := s.does("show", id); !strings.HasPrefix(out, "uno\n") {
		t.Errorf("by its ID it is\n%s", out)
	}
	if out := s.does("audit", "--json"); !strings.Contains(out, `"action":"function.rename","id":"`+id+`","name":"uno"`) {
		t.Errorf("the audit log has\n%s", out)
	}
	r.kill()
	again := boot(t, "FOB_DATA="+r.Data)
	s.env = []string{"FOB_DATA=" + again.Data}
	if out := s.does("show", "uno"); !strings.Contains(out, id) {
		t.Errorf("after a restart it is\n%s", out)
	}
}

// TestCallItems: every kind of item gets to the function.
func TestCallItems(t *testing.T) {
	t.Parallel()
	r := boot(t)
	s := shellFor(t, "FOB_URL="+r.URL)
	s.write("echo.py", `def callme(request):
    form = request.form
    return {"method": request.method, "path": request.path, "query": dict(request.query), "x": request.headers.get("x-a"),
            "type": (request.headers.get("content-type") or "").split(";")[0],
            "body": None if form else request.body.decode(), "form": {n: str(v) for n, v in form.items()} if form else None,
            "files": {n: f.body.decode() for n, f in request.files.items()} if form else None}
`)
	s.write("body.json", `{"from": "a file"}`)
	s.write("text.txt", "some text")
	s.does("deploy", "echo.py")
	for _, c := range []struct {
		args []string
		want map[string]any // of what the function saw
	}{
		{nil, map[string]any{"method": "GET", "path": "/some/path", "body": "", "type": ""}},
		{
			[]string{"a=1", "b:=[2]", "c=@text.txt", "d:=@body.json"},
			map[string]any{"method": "POST", "type": "application/json", "body": `{"a":"1","b":[2],"c":"some text","d":{"from": "a file"}}`},
		},
		{[]string{"-X", "put", "q==1", "X-A:yes", "v:=null"}, map[string]any{"method": "PUT", "query": map[string]any{"q": "1"}, "x": "yes", "body": `{"v":null}`}},
		{[]string{"@body.json"}, map[string]any{"method": "POST", "type": "application/json", "body": `{"from": "a file"}`}},
		{[]string{"@text.txt", "Content-Type:text/x-mine"}, map[string]any{"type": "text/x-mine", "body": "some text"}},
		{[]string{"doc@text.txt", "a=1"}, map[string]any{"type": "multipart/form-data", "form": map[string]any{"a": "1"}, "files": map[string]any{"doc": "some text"}}},
	} {
		out := s.does(append([]string{"call", "echo/some/path"}, c.args...)...)
		var got struct{ Result map[string]any }
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("%v: %v: %s", c.args, err, out)
		}
		for name, want := range c.want {
			if !reflect.DeepEqual(got.Result[name], want) {
				t.Errorf("%v: the function saw the %s %v, want %v", c.args, name, got.Result[name], want)
			}
		}
	}
	s.fails(1, []string{"call", "echo", "@none"}, "no such file")
	s.fails(1, []string{"call", "echo", "@."}, "is a folder")
	s.fails(1, []string{"call", "echo", "@text.txt", "a=1"}, "whole body")
	s.fails(1, []string{"call", "echo", "a:=x"}, "not JSON")
}

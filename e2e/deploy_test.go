package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// deployedLine is a line of deploy --json.
type deployedLine struct {
	File, Name, ID, Result string
	Version                int
	Error                  *struct {
		Detail, Code string
		Line         int
	}
}

// deploys runs deploy --json, and returns what became of each file, by name.
func (s *shellOf) deploys(status int, args ...string) map[string]deployedLine {
	s.t.Helper()
	out, complaints, got := s.fob(append([]string{"deploy", "--json"}, args...)...)
	if got != status {
		s.t.Fatalf("deploy %v ended with %d, want %d: %s%s", args, got, status, out, complaints)
	}
	all := map[string]deployedLine{}
	for line := range strings.Lines(out) {
		var d deployedLine
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			s.t.Fatalf("%v: %s", err, line)
		}
		all[d.Name] = d
	}
	return all
}

// TestDeployFolder: a folder of many functions is deployed with few sandboxes, and again
// without a new version of anything but what was changed.
func TestDeployFolder(t *testing.T) {
	t.Parallel()
	r := boot(t, "FOB_MAX_SANDBOXES=6", "FOB_POOL=python=2,node=0")
	s := shellFor(t, "FOB_DATA="+r.Data)
	const n = 40
	for i := range n {
		s.write(fmt.Sprintf("all/fn-%02d.py", i), fmt.Sprintf("def callme(): return %d\n", i))
	}
	s.write("all/README.md", "no code")
	s.write("all/.hidden.py", "no code")
	s.write("all/_shared.py", "no code")
	s.write("all/deeper/more.py", "no code")
	results := func(all map[string]deployedLine) (counts map[string]int) {
		counts = map[string]int{}
		for _, d := range all {
			counts[d.Result]++
		}
		return counts
	}
	first := s.deploys(0, "all", "--timeout", "7s")
	if got := results(first); len(first) != n || got["created"] != n {
		t.Fatalf("the first time: %v", got)
	}
	for _, args := range [][]string{{"all"}, {"all", "--timeout", "7s"}} {
		again := s.deploys(0, args...)
		if got := results(again); got["unchanged"] != n || again["fn-07"].Version != 1 || again["fn-07"].ID != first["fn-07"].ID {
			t.Errorf("%v again: %v", args, got)
		}
	}
	s.write("all/fn-07.py", "def callme(): return 'seven'\n")
	if got := results(s.deploys(0, "all")); got["unchanged"] != n-1 || got["changed"] != 1 {
		t.Errorf("after a change: %v", got)
	}
	if got := s.does("call", "fn-07"); got != `{"result": "seven"}` {
		t.Errorf("it answers %s", got)
	}
	_, complaints, _ := s.fob("deploy", "all", "--memory", "200MB")
	if want := fmt.Sprintf("%d changed\n", n); !strings.HasSuffix(complaints, want) {
		t.Errorf("it said %q, want %q", complaints, want)
	}
}

// TestDeployFailures: what is wrong with a file is told at its line, and the other files
// are deployed.
func TestDeployFailures(t *testing.T) {
	t.Parallel()
	r := boot(t)
	s := shellFor(t, "FOB_DATA="+r.Data)
	s.write("good.py", "def callme(): return 1\n")
	s.write("bad.py", "def callme():\n    return 1 +\n")
	s.write("worse.js", "function callme() {\n  return 1 + ;\n}\n")
	s.write("lost.py", "import nosuchmodule\ndef callme(): pass\n")
	s.write("utf16.py", "\xff\xfed\x00e\x00f\x00")
	s.write("empty.py", "\n")
	out, complaints, status := s.fob("deploy", "good.py", "bad.py", "worse.js", "lost.py", "utf16.py", "empty.py")
	if status != 3 || strings.Count(out, "failed") != 5 || !strings.Contains(out, "good   created  1") {
		t.Errorf("it ended with %d and printed\n%s", status, out)
	}
	for _, want := range []string{
		"1 created, 5 failed\n",
		"error: bad.py: ", "bad.py, line 2:\n      return 1 +\n      ^^^^^^^^^^\n",
		"error: worse.js: ", "worse.js, line 2:\n    return 1 + ;\n               ^\n",
		"error: lost.py: ", "nosuchmodule",
		"error: utf16.py: ", "UTF-16",
		"error: empty.py: ", "there is no code",
	} {
		if !strings.Contains(complaints, want) {
			t.Errorf("it said\n%s\nwithout\n%s", complaints, want)
		}
	}
	all := s.deploys(3, "good.py", "bad.py")
	if d := all["bad"]; d.Result != "failed" || d.Error == nil || d.Error.Code != "does_not_compile" || d.Error.Line != 2 {
		t.Errorf("as JSON: %+v", d)
	}
	if d := all["good"]; d.Result != "unchanged" || d.Version != 1 {
		t.Errorf("as JSON: %+v", d)
	}
}

// TestDeployRefusals: what cannot be meant is refused before anything is deployed.
func TestDeployRefusals(t *testing.T) {
	t.Parallel()
	r := boot(t)
	s := shellFor(t, "FOB_DATA="+r.Data)
	for _, name := range []string{"a.py", "a.js", "b.py", "my fun.py", "c.txt", "none/readme.md"} {
		s.write(name, "def callme(): return 1\n")
	}
	if err := os.Mkdir(filepath.Join(s.dir, "folder.py"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		want string
	}{
		{"a.py a.js", "would both be the function a"},
		{"a.py b.py --name x", "--name=x is for one file, and there are 2"},
		{"c.txt", "give --lang"},
		{"none", "no files that end with"},
		{"folder.py", "no files that end with"},
		{"missing.py", "no such file"},
		{"-", "give --name"},
		{"a.py --timeout 5", "write 5s"},
		{"a.py --name a/b", "is not a function name"},
		{"b.py missing.py", "no such file"},
	} {
		s.fails(1, append([]string{"deploy"}, strings.Fields(c.args)...), c.want)
	}
	s.fails(1, []string{"deploy", "my fun.py"}, "--name gives another")
	s.fails(80, []string{"deploy", "a.py", "--timout", "5s"}, `"--timeout"`)
	if got := r.local("GET", "/api/stats", ""); got != `{"functions": []}` {
		t.Errorf("there are %s", got)
	}
	s.does("deploy", "c.txt", "--lang", "python", "--name", "cee", "--max_scale", "3", "--keep-versions", "4")
	if out := s.does("show", "cee"); !strings.Contains(out, "max_scale=3") || !strings.Contains(out, "keep_versions=4") {
		t.Errorf("it has\n%s", out)
	}
	cmd := s.command("deploy", "-", "--name", "piped", "--lang", "js")
	cmd.Stdin = strings.NewReader("exports.callme = () => 'piped'")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := s.does("call", "piped"); got != `{"result": "piped"}` {
		t.Errorf("it answers %s", got)
	}
}

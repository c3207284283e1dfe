package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/api"
)

// TestDockerWalkthrough is the original's walk-through, to the letter, with the
// real clients on a real engine.
func TestDockerWalkthrough(t *testing.T) {
	t.Parallel()
	aviary := testAviary(t)
	r := boot(t, "FOB_AVIARY="+aviary)

	dir := t.TempDir()
	write := func(name, code string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(code), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("helloworld.py", "def callme(): print(\"Hello serverless world!\"); return 42\n")
	write("add.py", "def callme(param1, param2):\n    if param1 and param2:\n        return int(param1) + int(param2)\n    return None\n")

	shell := func(command string) string {
		t.Helper()
		cmd := exec.Command("bash", "-o", "pipefail", "-c", command)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "FOB="+r.URL)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
		return string(out)
	}
	id := func(answer string) string {
		t.Helper()
		var made api.Registered
		if err := json.Unmarshal([]byte(answer), &made); err != nil {
			t.Fatalf("%q: %v", answer, err)
		}
		if want := `{"id": "` + made.ID + `"}`; answer != want {
			t.Fatalf("answered %q, want %q", answer, want)
		}
		return made.ID
	}
	same := func(got, want string) {
		t.Helper()
		if got != want {
			t.Fatalf("answered %q, want %q", got, want)
		}
	}

	hello := id(shell(`http POST $FOB/api/gen < helloworld.py`))
	same(shell(`http --ignore-stdin $FOB/api/stats`), `{"functions": ["`+hello+`"]}`)
	same(shell(`http --ignore-stdin $FOB/api/call/`+hello), `{"result": 42}`)

	add := id(shell(`curl -s --data-binary @add.py $FOB/api/gen`))
	same(shell(`http --ignore-stdin $FOB/api/stats`), `{"functions": ["`+hello+`", "`+add+`"]}`)
	same(shell(`http --ignore-stdin "$FOB/api/call/`+add+`?param1:1,param2:1"`), `{"result": 2}`)
	same(shell(`curl -s "$FOB/api/call/`+add+`?param1:1,param2:1"`), `{"result": 2}`)
	same(shell(`curl -s "$FOB/api/call/`+add+`?param1=20&param2=22"`), `{"result": 42}`)
	same(shell(`http --ignore-stdin "$FOB/api/call/`+add+`?param1:,param2:1"`), `{"result": null}`)
	same(shell(`http --ignore-stdin POST $FOB/api/call/`+add+` param1=3 param2:=4`), `{"result": 7}`)
	same(shell(`curl -s $FOB/api/cs/`+add), "def callme(param1, param2):\n    if param1 and param2:\n        return int(param1) + int(param2)\n    return None\n")

	for query, reason := range map[string]string{
		"":                             "param1",
		"?param1:1":                    "param2",
		"?param1:1,param2:1,param3:1":  "param3",
		"?param1:1,param2:one":         "one",
		"?param1=1&param2=1&surplus=1": "surplus",
	} {
		answer := shell(`curl -s -w '\n%{http_code}' "$FOB/api/call/` + add + query + `"`)
		if !strings.HasSuffix(answer, "\n404") || !strings.Contains(answer, reason) {
			t.Errorf("with %q it answered %q, want 404 and the reason, which names %s", query, answer, reason)
		}
	}

	var meta api.Whereabouts
	if err := json.Unmarshal([]byte(shell(`http --ignore-stdin $FOB/api/meta/`+add)), &meta); err != nil {
		t.Fatal(err)
	}
	if meta.Host == nil || *meta.Host == "" || meta.Port == nil || *meta.Port != 8080 || len(meta.Sandboxes) != 1 {
		t.Errorf("meta says %+v", meta)
	}
	if got := lines(dockerCLI(t, "ps", "--quiet", "--filter", "label=fob.sandbox="+meta.Sandboxes[0].ID)); len(got) != 1 {
		t.Errorf("the engine knows %v as sandbox %s", got, meta.Sandboxes[0].ID)
	}

	r.terminate()
	if left := containers(t, aviary); len(left) > 0 {
		t.Errorf("with --remove-sandboxes it leaves %v", left)
	}
}

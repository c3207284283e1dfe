package e2e

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const showKey = "import os, time\ndef callme(s: float = 0):\n    time.sleep(s)\n    return os.environ['KEY']\n"

// A secret that is set again reaches the next sandbox without a redeploy, while
// the old one goes on with the old value, after a failover too.
func TestDockerSecretSetAgain(t *testing.T) {
	t.Parallel()
	settings := []string{"FOB_DATA=" + shortDir(t), "FOB_AVIARY=" + testAviary(t), "FOB_POOL=python=1,node=0"}
	p := boot(t, settings...)
	p.do("PUT", "/api/secrets/KEY", "old")
	for _, name := range []string{"grows", "kept"} {
		if a := p.do("PUT", "/api/functions/"+name+"?secrets=KEY&stable_window=1s", showKey); a.Status != 201 {
			t.Fatal(a.Body)
		}
	}
	p.do("PUT", "/api/secrets/KEY", "new")
	p.do("GET", "/api/call/grows", "").wants(t, 200, `{"result": "old"}`)
	slow := make(chan answered, 1)
	go func() { slow <- p.do("GET", "/api/call/grows?s=12", "") }()
	eventually(t, time.Minute, "another sandbox has the new value", func() bool {
		return p.do("GET", "/api/call/grows", "").Body == `{"result": "new"}`
	})
	(<-slow).wants(t, 200, `{"result": "old"}`)

	p.kill()
	p = boot(t, settings...)
	p.do("GET", "/api/call/kept", "").wants(t, 200, `{"result": "old"}`)
	p.do("PATCH", "/api/functions/kept?timeout=10s", "")
	p.do("GET", "/api/call/kept", "").wants(t, 200, `{"result": "new"}`)
	p.terminate()
}

// The key file is refused when others may read it, and a lost one does not keep
// functions without secrets from running.
func TestKeyFile(t *testing.T) {
	t.Parallel()
	data := shortDir(t)
	key := filepath.Join(data, "secret.key")
	keep := "FOB_DATA=" + data
	r := boot(t, keep)
	r.do("PUT", "/api/secrets/KEY", "swordfish")
	r.gen("?name=plain", "def callme(): return 1\n")
	r.gen("?name=keyed&secrets=KEY", showKey)
	r.terminate()
	kept, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}

	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	said := bootUnready(t, keep).refuses()
	if !strings.Contains(said, "chmod 600 "+key) {
		t.Errorf("with a key that all may read it says %s", said)
	}

	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	r = boot(t, keep)
	r.do("GET", "/api/call/plain", "").wants(t, 200, `{"result": 1}`)
	if detail := r.do("GET", "/api/call/keyed", "").wantsProblem(t, 500, "internal").Detail; !strings.Contains(detail, "KEY") || strings.Contains(detail, data) {
		t.Errorf("without the key the answer is %s", detail)
	}
	r.do("PUT", "/api/secrets/OTHER", "x").wantsProblem(t, 500, "internal")
	if err := os.WriteFile(key, kept, 0o600); err != nil {
		t.Fatal(err)
	}
	r.do("GET", "/api/call/keyed", "").wants(t, 200, `{"result": "swordfish"}`)
}

// The commands do what the API does. A value comes from standard input or a file.
func TestSecretCommands(t *testing.T) {
	t.Parallel()
	r := boot(t)
	file := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(file, []byte("line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(stdin string, args ...string) (string, error) {
		cmd := commandOf([]string{"FOB_DATA=" + r.Data}, append([]string{"secret"}, args...)...)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		go func() { io.WriteString(in, stdin); in.Close() }()
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, c := range []struct {
		stdin, command, word string
		fails                bool
	}{
		{"one\n", "set KEY", "version 1", false},
		{"two\n", "set KEY --trim --functions keyed", "version 2", false},
		{"x", "set a-b", "not a name", true},
		{"", "set KEY", "no value", true},
		{"x", "set KEY --any --functions f", "leave one out", true},
		{"", "set FILE --file " + file, "version 1", false},
		{"", "list", "KEY   2        ", false},
		{"", "delete NONE", "no secret", true},
		{"", "rotate-key", "2 secrets", false},
	} {
		out, err := run(c.stdin, strings.Fields(c.command)...)
		if (err != nil) != c.fails || !strings.Contains(out, c.word) || strings.Contains(out, "two") {
			t.Errorf("secret %s: %v: %s", c.command, err, out)
		}
	}
	r.gen("?name=keyed&secrets=KEY,FILE", "import os\ndef callme(): return [os.environ['KEY'], os.environ['FILE']]\n")
	r.do("GET", "/api/call/keyed", "").wants(t, 200, `{"result": ["two", "line\n"]}`)
	if out, err := run("", "list"); err != nil || !strings.Contains(out, "keyed  keyed") {
		t.Errorf("secret list: %v: %s", err, out)
	}
	if out, err := run("", "delete", "KEY"); err == nil || !strings.Contains(out, "keyed") {
		t.Errorf("secret delete of one that is in use: %v: %s", err, out)
	}
	if out, err := run("three", "set", "KEY", "--any"); err != nil {
		t.Errorf("secret set --any: %v: %s", err, out)
	}
	if body := r.do("GET", "/api/secrets", "").Body; !strings.Contains(body, `"name": "KEY", "version": 3, "functions": []`) {
		t.Errorf("then there are %s", body)
	}
}

// Over HTTP, a token that may deploy one function cannot have it tell a secret
// that was not set for it, whichever way it comes to the function.
func TestLimitedTokenAndSecrets(t *testing.T) {
	t.Parallel()
	r := boot(t)
	r.do("PUT", "/api/secrets/KEY", "swordfish")
	r.do("PUT", "/api/secrets/MINE?functions=mine", "swordfish")
	r.gen("?name=theirs&secrets=KEY", showKey)
	some := r.token("deploy:mine", "deploy:theirs").Secret
	for _, request := range []struct{ method, path, body string }{
		{"POST", "/api/gen?name=mine&secrets=KEY", showKey},
		{"POST", "/api/gen?name=mine&secrets=GONE", showKey},
		{"PUT", "/api/functions/mine?secrets=MINE,KEY", showKey},
		{"PUT", "/api/functions/mine", `{"code": "def callme(): pass", "secrets": ["KEY"]}`},
		{"PUT", "/api/functions/theirs", showKey},
		{"PATCH", "/api/functions/theirs?public=true", ""},
	} {
		if got := r.as(some, request.method, request.path, request.body); got.Status != 403 || !strings.Contains(got.Body, `"code": "forbidden"`) {
			t.Errorf("%s %s: answered %d %s", request.method, request.path, got.Status, got.Body)
		}
	}
	if got := r.as(some, "PUT", "/api/functions/mine?secrets=MINE", showKey); got.Status != 201 {
		t.Errorf("answered %d %s", got.Status, got.Body)
	}
}

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/client"
)

// The commands work on the data folder of a dispatcher that runs, of one that
// does not, and on any dispatcher with a token.
func TestTokenCommands(t *testing.T) {
	t.Parallel()
	r := boot(t)
	data := "FOB_DATA=" + r.Data
	create := func(env string, args ...string) string {
		t.Helper()
		out, complaints, ok := command(t, strings.Fields(env), append([]string{"token", "create"}, args...)...)
		if !ok || !regexp.MustCompile(`^fob_[0-9a-f]{16}_[0-9a-f]{64}\n$`).MatchString(out) {
			t.Fatalf("token create %v: %q, %s", args, out, complaints)
		}
		return strings.TrimSpace(out)
	}
	ann := create(data, "ann", "--grant", "admin")
	r.as("", "GET", "/api/stats", "").wantsProblem(t, 401, "unauthorized")
	r.as(ann, "GET", "/api/stats", "").wants(t, 200, `{"functions": []}`)
	remote := "FOB_DATA=/nowhere FOB_URL=" + r.URL + " FOB_TOKEN="
	bob := create(remote+ann, "bob", "--grant", "read:hello", "--grant", "invoke", "--expires", "720h")
	r.as(bob, "GET", "/api/tokens", "").wantsProblem(t, 403, "forbidden")
	if _, complaints, ok := command(t, strings.Fields(remote+bob), "token", "list"); ok || !strings.Contains(complaints, "(403)") {
		t.Errorf("bob may list tokens, or hears %s", complaints)
	}
	for _, running := range []bool{true, false} {
		if !running {
			r.terminate()
		}
		out, complaints, ok := command(t, []string{data}, "token", "list")
		if !ok || !regexp.MustCompile(`^ID +NAME +GRANTS +CREATED +EXPIRES\n\w{16} +ann +admin +.* never\n\w{16} +bob +read:hello invoke +`).MatchString(out) || strings.Contains(out, ann) {
			t.Errorf("running is %v: listed %s %s", running, out, complaints)
		}
	}
	eve := create(data, "eve", "--grant", "invoke")
	for what, args := range map[string][]string{
		"is not a grant":    {"token", "create", "eve", "--grant", "fly"},
		"a time":            {"token", "create", "eve", "--grant", "read", "--expires", "yesterday"},
		"is not a name":     {"token", "create", "a b", "--grant", "read"},
		"there is no":       {"token", "revoke", "0123456789abcdef"},
		"--grant":           {"token", "create", "eve"},
		"there is no token": {"token", "revoke", "../functions/hello"},
	} {
		if _, complaints, ok := command(t, []string{data}, args...); ok || !strings.Contains(complaints, what) {
			t.Errorf("%v: %s", args, complaints)
		}
	}
	if _, complaints, ok := command(t, []string{data}, "token", "revoke", eve[4:20]); !ok {
		t.Error(complaints)
	}
	// What was done while none ran holds when one does.
	again := boot(t, "FOB_DATA="+r.Data)
	again.as(eve, "GET", "/api/call/hello", "").wantsProblem(t, 401, "unauthorized")
	again.as(bob, "GET", "/api/call/hello", "").wantsProblem(t, 404, "unknown_function")
	if out, _, ok := command(t, []string{"FOB_URL=" + again.URL}, "health"); !ok {
		t.Errorf("health needs a token: %s", out)
	}
}

// Beyond this machine it takes a token, and the last one stays.
func TestDockerExposed(t *testing.T) {
	t.Parallel()
	dir, aviary := shortDir(t), testAviary(t)
	settings := func(more ...string) []string {
		addr, err := client.FreeAddr()
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(addr)
		return append([]string{"FOB_ADDR=0.0.0.0:" + port, "FOB_DATA=" + dir, "FOB_AVIARY=" + aviary, "FOB_POOL=python=0,node=0"}, more...)
	}
	said := bootUnready(t, settings()...).refuses()
	m := regexp.MustCompile(`dispatcher (token create admin --grant admin --data "` + regexp.QuoteMeta(dir) + `")`).FindStringSubmatch(said)
	if m == nil || !strings.Contains(said, "FOB_ANONYMOUS=true") {
		t.Fatalf("it ended with %s", said)
	}
	// As it says.
	secret, complaints, ok := command(t, nil, strings.Fields(strings.ReplaceAll(m[1], `"`, ""))...)
	if secret = strings.TrimSpace(secret); !ok {
		t.Fatal(complaints)
	}
	p := boot(t, settings()...)
	p.as("", "GET", "/api/stats", "").wantsProblem(t, 401, "unauthorized")
	p.as(secret, "DELETE", "/api/tokens/"+secret[4:20], "").wantsProblem(t, 409, "last_token")
	p.as(secret, "GET", "/api/stats", "").wants(t, 200, `{"functions": []}`)
	p.kill()

	p = boot(t, settings("FOB_ANONYMOUS=true")...)
	p.as("", "GET", "/api/stats", "").wantsProblem(t, 401, "unauthorized")
	if a := p.as(secret, "DELETE", "/api/tokens/"+secret[4:20], ""); a.Status != 204 {
		t.Errorf("the last token: %d %s", a.Status, a.Body)
	}
	p.as("", "GET", "/api/stats", "").wants(t, 200, `{"functions": []}`)
}

// A real driver fetches its code with its sandbox's own token, where everybody
// else needs one of ours.
func TestDriverFetchesItsCode(t *testing.T) {
	t.Parallel()
	r := boot(t)
	r.gen("?name=hello", "def callme(): return 'fetched'\n")
	r.gen("?name=other", "def callme(): return 'other'\n")
	r.token("admin")
	own := r.sandboxToken("hello")
	fetch := func(ref, bearer string) (string, bool) {
		socket := filepath.Join(shortDir(t), "fob.sock")
		cmd := exec.Command("python3", filepath.Join(root, "drivers", "python", "driver.py"))
		cmd.Env = append(os.Environ(), "FOB_SOCKET="+socket, "FOB_TCP=127.0.0.1:0", "FOB_CODE_URL="+r.URL+"/api/cs/"+ref, "FOB_TOKEN="+bearer)
		var output client.Log
		cmd.Stdout, cmd.Stderr = &output, &output
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		defer func() { cmd.Process.Kill(); <-ended }()
		driver := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}}}
		for {
			if answer, err := driver.Post("http://fob/", "application/json", strings.NewReader("{}")); err == nil {
				defer answer.Body.Close()
				body, err := io.ReadAll(answer.Body)
				if err != nil {
					t.Fatal(err)
				}
				return string(body), answer.StatusCode == http.StatusOK
			}
			select {
			case <-ended:
				return output.String(), false
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	for _, ref := range []string{"hello", "hello@1", "hello:live"} {
		if got, ok := fetch(ref, own); !ok || !strings.Contains(got, "fetched") {
			t.Errorf("%s: %s", ref, got)
		}
	}
	for ref, bearer := range map[string]string{"other": own, "hello": strings.Repeat("0", 64), "nobody": own, "hello@2": own} {
		if got, ok := fetch(ref, bearer); ok || !strings.Contains(got, "401") {
			t.Errorf("%s with %.8s: %s", ref, bearer, got)
		}
	}
	// With the sandbox its token ends.
	id := r.sandboxIDs("hello")
	if _, err := r.owner.Ask("DELETE", "/api/functions/hello", ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "sandbox "+id+" is gone", func() bool {
		return r.as(own, "GET", "/api/cs/hello", "").Status == 401
	})
}

// TestStrangersLearnNothing: strangers who call a public function see nothing of
// its code in any error, and who may read it does.
func TestStrangersLearnNothing(t *testing.T) {
	t.Parallel()
	p := boot(t)
	broken := filepath.Join(shortDir(t), "broken")
	admin, reader, caller := p.token("admin"), p.token("read:hush", "read:hush-node", "read:cold"), p.token("invoke")
	put := func(path, code string) {
		p.as(admin.Secret, "PUT", "/api/functions/"+path, code).wantsStatus(t, 201)
	}
	put("hush?public=true", `
import os, json
def callme(how="", n: int = 0, key="WORD-OF-THE-CODE"):
    secret = "WORD-OF-THE-CODE"
    if how == "raise": raise RuntimeError(secret)
    if how == "exit": raise SystemExit(secret)
    if how == "value": raise ValueError(secret)
    if how == "deep": json.loads(secret)
    if how == "result": return type(secret, (), {})()
    if how == "die": os._exit(3)
    return how
`)
	put("hush-node?public=true&lang=node", `
function callme(how = '', n = 0) {
  if (how === 'raise') throw new RangeError('WORD-OF-THE-CODE');
  if (how === 'result') return new (class { toJSON() { throw new Error('WORD-OF-THE-CODE') } })();
  if (how === 'die') process.exit(3);
  return how;
}
`)
	put("cold?public=true&idle_timeout=1s", fmt.Sprintf("import os\nif os.path.exists(%q): raise ImportError('WORD-OF-THE-CODE')\ndef callme(): os._exit(1)\n", broken))
	// It loads no more once its first sandbox is gone.
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.do("GET", "/api/call/cold", "").wantsProblem(t, 502, "sandbox_died")

	for _, c := range []struct {
		call   string
		status int
		code   string
		shows  string // to who may read it
	}{
		{"hush?how=raise", 500, "function_raised", "RuntimeError: WORD-OF-THE-CODE"},
		{"hush?how=exit", 500, "function_raised", "SystemExit"},
		{"hush?how=value", 404, "bad_arguments", "WORD-OF-THE-CODE"},
		{"hush?how=deep", 500, "function_raised", "JSONDecodeError"},
		{"hush?how=result", 500, "bad_result", "WORD-OF-THE-CODE"},
		{"hush?how=die", 502, "sandbox_died", "code 3"},
		{"hush-node?how=raise", 500, "function_raised", "RangeError"},
		{"hush-node?how=result", 500, "bad_result", "WORD-OF-THE-CODE"},
		{"hush-node?how=die", 502, "sandbox_died", "code 3"},
		{"cold", 500, "function_raised", "ImportError: WORD-OF-THE-CODE"},
	} {
		for who, bearer := range map[string]string{"a stranger": "", "who may call": caller.Secret, "an unknown token": "fob_nothing"} {
			got := p.as(bearer, "GET", "/api/call/"+c.call, "")
			said := got.wantsProblem(t, c.status, c.code)
			if strings.Contains(got.Body, c.shows) || strings.Contains(got.Body, "WORD-OF") || said.Error != nil {
				t.Errorf("%s: %s sees %s", c.call, who, got.Body)
			}
			if said.CallID == "" || said.CallID != got.Header.Get("X-Call-Id") || !strings.Contains(said.Detail, "log") {
				t.Errorf("%s: %s is not told where to look: %s", c.call, who, got.Body)
			}
		}
		for who, bearer := range map[string]string{"who may read": reader.Secret, "an admin": admin.Secret} {
			if got := p.as(bearer, "GET", "/api/call/"+c.call, ""); !strings.Contains(got.Body, c.shows) || got.Status != c.status {
				t.Errorf("%s: %s sees %s", c.call, who, got.Body)
			}
		}
		if got, err := p.owner.Ask("GET", "/api/call/"+c.call, ""); !strings.Contains(got+fmt.Sprint(err), c.shows) {
			t.Errorf("%s: over the control socket there is %s, %v", c.call, got, err)
		}
	}
	// What a caller did wrong it is told.
	for call, shows := range map[string]string{"hush?n=many": "n: ", "hush?other=1": "callme(", "hush-node?other=1": "callme("} {
		if said := p.do("GET", "/api/call/"+call, "").wantsProblem(t, 404, "bad_arguments"); !strings.Contains(said.Detail, shows) || strings.Contains(said.Detail, "WORD") {
			t.Errorf("%s: the caller is told %q", call, said.Detail)
		}
	}
}

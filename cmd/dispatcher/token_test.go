package main

import (
	"bytes"
	"context"
	"encoding/json"
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

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// madeToken is one that a test has made.
type madeToken struct{ ID, Name, Token string }

// header is what shows it.
func (t madeToken) header() map[string]string {
	if t.Token == "" {
		return nil
	}
	return map[string]string{"Authorization": "Bearer " + t.Token}
}

// token makes a token with grants, in a way that is always allowed.
func (r *running) token(t *testing.T, grants ...string) madeToken {
	t.Helper()
	return r.makeToken(t, `{"name": "test", "grants": ["`+strings.Join(grants, `", "`)+`"]}`)
}

func (r *running) makeToken(t *testing.T, body string) (made madeToken) {
	t.Helper()
	var text string
	text, err := tryLocal(r.cfg.Data, "POST", "/api/tokens", body)
	if err == nil {
		err = json.Unmarshal([]byte(text), &made)
	}
	if err != nil || made.Token == "" {
		t.Fatalf("making a token: %s, %v", text, err)
	}
	return made
}

// tokenBy makes a token as somebody who shows another one.
func (a *asker) tokenBy(t *testing.T, by madeToken, grants ...string) (made madeToken) {
	t.Helper()
	got := a.ask(t, ask{request: "POST /api/tokens", body: `{"name": "test", "grants": ["` + strings.Join(grants, `", "`) + `"]}`, header: by.header(), status: 201})
	if err := json.Unmarshal([]byte(got.Body), &made); err != nil {
		t.Fatal(err)
	}
	return made
}

// as makes a request with a token, or with whatever is to go for one.
func (r *running) as(t *testing.T, bearer, method, path, body string) answered {
	t.Helper()
	request, err := http.NewRequest(method, r.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answered{response.StatusCode, response.Header, string(content)}
}

// command runs a command of the program's, as a process of its own.
func command(t *testing.T, env []string, args ...string) (stdout, stderr string, ok bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(append(os.Environ(), "FOBTEST_MAIN=1"), env...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err := cmd.Run()
	return out.String(), complaints.String(), err == nil
}

// The commands work on the data folder of a dispatcher that runs, of one that
// does not, and on any dispatcher with a token.
func TestTokenCommands(t *testing.T) {
	r := boot(t, nil)
	data := "FOB_DATA=" + r.cfg.Data
	create := func(env string, args ...string) string {
		t.Helper()
		out, complaints, ok := command(t, strings.Fields(env), append([]string{"token", "create"}, args...)...)
		if !ok || !regexp.MustCompile(`^fob_[0-9a-f]{16}_[0-9a-f]{64}\n$`).MatchString(out) {
			t.Fatalf("token create %v: %q, %s", args, out, complaints)
		}
		return strings.TrimSpace(out)
	}
	ann := create(data, "ann", "--grant", "admin")
	r.as(t, "", "GET", "/api/stats", "").wantsProblem(t, 401, "unauthorized")
	r.as(t, ann, "GET", "/api/stats", "").wants(t, 200, `{"functions": []}`)
	remote := "FOB_DATA=/nowhere FOB_URL=" + r.URL + " FOB_TOKEN="
	bob := create(remote+ann, "bob", "--grant", "read:hello", "--grant", "invoke", "--expires", "720h")
	r.as(t, bob, "GET", "/api/tokens", "").wantsProblem(t, 403, "forbidden")
	if _, complaints, ok := command(t, strings.Fields(remote+bob), "token", "list"); ok || !strings.Contains(complaints, "(403)") {
		t.Errorf("bob may list tokens, or hears %s", complaints)
	}
	for _, running := range []bool{true, false} {
		if !running {
			r.stop()
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
	again := boot(t, func(c *Config) { c.Data, c.Sockets = r.cfg.Data, r.cfg.Sockets })
	again.as(t, eve, "GET", "/api/call/hello", "").wantsProblem(t, 401, "unauthorized")
	again.as(t, bob, "GET", "/api/call/hello", "").wantsProblem(t, 404, "unknown_function")
	if out, _, ok := command(t, []string{"FOB_URL=" + again.URL}, "health"); !ok {
		t.Errorf("health needs a token: %s", out)
	}
}

// Beyond this machine it takes a token, and the last one stays.
func TestDockerExposed(t *testing.T) {
	dir, aviary := shortDir(t), testAviary(t)
	settings := func(more ...string) map[string]string {
		_, port, _ := net.SplitHostPort(freeAddr(t))
		all := map[string]string{"FOB_ADDR": "0.0.0.0:" + port, "FOB_DATA": dir, "FOB_AVIARY": aviary, "FOB_POOL": "python=0,node=0"}
		for _, entry := range more {
			name, value, _ := strings.Cut(entry, "=")
			all[name] = value
		}
		return all
	}
	refused := spawn(t, settings())
	refused.awaitEnd(t)
	m := regexp.MustCompile(`dispatcher (token create admin --grant admin --data "` + regexp.QuoteMeta(dir) + `")`).FindStringSubmatch(refused.output.String())
	if m == nil || !strings.Contains(refused.output.String(), "FOB_ANONYMOUS=true") {
		t.Fatalf("it ended with %s", refused.output.String())
	}
	// As it says.
	secret, complaints, ok := command(t, nil, strings.Fields(strings.ReplaceAll(m[1], `"`, ""))...)
	if secret = strings.TrimSpace(secret); !ok {
		t.Fatal(complaints)
	}
	p := spawn(t, settings())
	p.URL = strings.Replace(p.URL, "0.0.0.0", "127.0.0.1", 1)
	p.awaitReady(3 * time.Minute)
	p.as(t, "", "GET", "/api/stats", "").wantsProblem(t, 401, "unauthorized")
	p.as(t, secret, "DELETE", "/api/tokens/"+secret[4:20], "").wantsProblem(t, 409, "last_token")
	p.as(t, secret, "GET", "/api/stats", "").wants(t, 200, `{"functions": []}`)
	p.kill()
	<-p.ended

	p = spawn(t, settings("FOB_ANONYMOUS=true"))
	p.URL = strings.Replace(p.URL, "0.0.0.0", "127.0.0.1", 1)
	p.awaitReady(3 * time.Minute)
	p.as(t, "", "GET", "/api/stats", "").wantsProblem(t, 401, "unauthorized")
	if a := p.as(t, secret, "DELETE", "/api/tokens/"+secret[4:20], ""); a.Status != 204 {
		t.Errorf("the last token: %d %s", a.Status, a.Body)
	}
	p.as(t, "", "GET", "/api/stats", "").wants(t, 200, `{"functions": []}`)
}

// awaitEnd waits until the process has ended.
func (p *dispatcherProcess) awaitEnd(t *testing.T) {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
}

// A real driver fetches its code with its sandbox's own token, where everybody
// else needs one of ours.
func TestDriverFetchesItsCode(t *testing.T) {
	r := boot(t, func(c *Config) { c.Pool = map[string]int{"python": 1} })
	r.gen("?name=hello", "def callme(): return 'fetched'\n")
	r.gen("?name=other", "def callme(): return 'other'\n")
	r.token(t, "admin")
	own := r.sandboxOf(t, "hello").Token()
	fetch := func(ref, bearer string) (string, bool) {
		socket := filepath.Join(shortDir(t), "fob.sock")
		cmd := exec.Command("python3", filepath.Join(root, "drivers", "python", "driver.py"))
		cmd.Env = append(os.Environ(), "FOB_SOCKET="+socket, "FOB_TCP=127.0.0.1:0", "FOB_CODE_URL="+r.URL+"/api/cs/"+ref, "FOB_TOKEN="+bearer)
		output := &lockedBuffer{}
		cmd.Stdout, cmd.Stderr = output, output
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		defer func() { cmd.Process.Kill(); <-ended }()
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}}}
		for {
			if answer, err := client.Post("http://fob/", "application/json", strings.NewReader("{}")); err == nil {
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
	id := r.sandboxOf(t, "hello").ID()
	if _, err := tryLocal(r.cfg.Data, "DELETE", "/api/functions/hello", ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "sandbox "+id+" is gone", func() bool {
		return r.as(t, own, "GET", "/api/cs/hello", "").Status == 401
	})
}

// sandboxOf returns the sandbox of a function.
func (r *running) sandboxOf(t *testing.T, name string) sandbox.Instance {
	t.Helper()
	_, v, err := r.catalogue.Resolve(t.Context(), faas.Ref{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	infos, err := r.dispatcher.Sandboxes(t.Context(), v)
	if err != nil || len(infos) == 0 {
		t.Fatalf("%s has the sandboxes %v, %v", name, infos, err)
	}
	all, err := r.engine.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, inst := range all {
		if inst.ID() == infos[0].ID {
			return inst
		}
	}
	t.Fatalf("the engine does not know sandbox %s", infos[0].ID)
	return nil
}

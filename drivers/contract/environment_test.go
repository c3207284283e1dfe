package contract

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// What is no environment is refused before anything is loaded.
func TestMalformedEnvironment(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		client := boot(t, lang).Client(t)
		for _, more := range []string{
			`"env": []`, `"env": "A=1"`, `"env": {"A": 1}`, `"env": {"A": null}`,
			`"secrets": ["A"]`, `"secrets": {"A": 1}`, `"secrets": {"A": "not base64"}`, `"secrets": {"A": "QQ"}`, `"secrets": {"A": "QQ==QQ=="}`,
		} {
			status, header, body := client.Do(t, newRequest(t, http.MethodPut, "/_fob/function", `{"code": "x", `+more+`}`))
			if status != 400 || header.Get("Fob-Error") != "bad_request" {
				t.Errorf("%s: %d %s", more, status, body)
			}
		}
		if h := client.health(t); h.State != "blank" {
			t.Errorf("%+v, want blank", h)
		}
		nothing := map[string]any{"code": echoes[lang], "env": nil, "secrets": map[string][]byte{"EMPTY": {}}}
		if status, _, body := client.load(t, nothing); status != 200 {
			t.Errorf("%d %s", status, body)
		}
	})
}

// Secrets that cannot be written are not left out.
func TestNoFolderForSecrets(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		for folder, want := range map[string]struct {
			status int
			code   string
		}{"": {400, "bad_request"}, "/nowhere": {422, "load_failed"}} {
			client := boot(t, lang, "FOB_SECRETS="+folder).Client(t)
			status, header, body := client.load(t, map[string]any{"code": echoes[lang], "secrets": map[string][]byte{"KEY": []byte("swordfish")}})
			if status != want.status || header.Get("Fob-Error") != want.code || strings.Contains(string(body), "swordfish") {
				t.Errorf("FOB_SECRETS=%s: %d %s", folder, status, body)
			}
			if status, _, _ := client.Do(t, newRequest(t, http.MethodPost, "/", "")); status != 409 {
				t.Errorf("FOB_SECRETS=%s: a call answered %d, want 409", folder, status)
			}
		}
	})
}

// A line that is written before it has ended, for it is long, may be cut at any
// byte, but not within a secret.
func TestSecretsInLongLines(t *testing.T) {
	const secret = "swordfish-and-chips"
	codes := map[string]string{
		"python": "import os, sys\ndef callme(before):\n    sys.stdout.write('y' * before + os.environ['KEY']); sys.stdout.write(' it was\\n')\n",
		"node":   "function callme(before) { process.stdout.write('y'.repeat(before) + process.env.KEY); process.stdout.write(' it was\\n'); }",
	}
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang)
		client := p.Client(t)
		if status, _, body := client.load(t, map[string]any{"code": codes[lang], "secrets": map[string][]byte{"KEY": []byte(secret)}}); status != 200 {
			t.Fatalf("%d %s", status, body)
		}
		calls := 0
		for before := 64<<10 - len(secret) - 3; before <= 64<<10+3; before++ {
			if status, _, body := client.Do(t, newRequest(t, http.MethodPost, "/", fmt.Sprintf(`{"before": %d}`, before))); status != 200 {
				t.Fatalf("%d %s", status, body)
			}
			calls++
			Eventually(t, "the line is in the log", func() bool { return strings.Count(p.Log(), " it was\n") == calls })
		}
		if log := p.Log(); strings.Contains(log, secret) || strings.Contains(log, "sword") || strings.Count(log, "y*** it was\n") != calls {
			t.Errorf("the secret is in the log, or something is missing: of %d lines %d are as they should be", calls, strings.Count(log, "y*** it was\n"))
		}
	})
}

// What a function has flushed is in the log whatever ends it, but no secret that
// comes in pieces is.
func TestFlushedLineOutlivesTheProcess(t *testing.T) {
	codes := map[string]string{
		"python": `
import os, signal, sys
def callme(how):
    for piece in ("at work", " with sword", "fish ", "and passw", "ord123 and pass"):
        print(piece, end="", flush=True)
    sys.stderr.buffer.write(b"an error")
    sys.stderr.buffer.flush()
    if how == "exit": os._exit(3)
    if how == "kill": os.kill(os.getpid(), signal.SIGKILL)
    while True: pass
`,
		"node": `
function callme(how) {
  for (const piece of ['at work', ' with sword', 'fish ', 'and passw', 'ord123 and pass']) process.stdout.write(piece);
  process.stderr.write(Buffer.from('an error'));
  if (how === 'exit') process.reallyExit(3);
  if (how === 'kill') process.kill(process.pid, 'SIGKILL');
  for (;;);
}
`,
	}
	secrets := map[string][]byte{"A": []byte("swordfish"), "B": []byte("password"), "C": []byte("password123")}
	each(t, func(t *testing.T, lang string) {
		for _, how := range []string{"exit", "kill", "timeout"} {
			p := boot(t, lang)
			client := p.Client(t)
			if status, _, body := client.load(t, map[string]any{"code": codes[lang], "secrets": secrets}); status != 200 {
				t.Fatalf("%d %s", status, body)
			}
			request := newRequest(t, http.MethodPost, "/", `{"how": "`+how+`"}`)
			go func() { _, _, _, _ = client.Try(request) }() // there is no answer
			if how == "timeout" {
				Eventually(t, "the line is in the log", func() bool { return strings.Contains(p.Log(), "an error") })
				_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
			}
			<-p.exited
			if log := p.Log(); log != "at work with *** and *** and an error" {
				t.Errorf("%s: the log is %q", how, log)
			}
		}
	})
}

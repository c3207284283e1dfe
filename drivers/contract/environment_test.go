package contract

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
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

// An authority of the function's own is trusted beside all others, by whatever
// client it uses, and only where no other is named.
func TestExtraAuthority(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are refused
	server.StartTLS()
	t.Cleanup(server.Close)
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	codes := map[string]string{
		"python": `
import urllib.request
def callme(url, how=""):
    try:
        return urllib.request.urlopen(url).read().decode()
    except OSError as e:
        return type(e.reason).__name__
`,
		"node": `
const https = require('https');
const tls = require('tls');
async function callme(url, how = 'fetch') {
  try {
    if (how === 'fetch') return await (await fetch(url)).text();
    const { hostname: host, port } = new URL(url);
    if (how === 'tls') return await new Promise((done, failed) => { const c = tls.connect({ host, port, servername: 'example.com' }, () => { done('hello'); c.destroy(); }).on('error', failed); });
    const options = how === 'other' ? { ca: tls.rootCertificates[0] } : how === 'ciphers' ? { ciphers: 'DEFAULT' } : { agent: how === 'agent' ? new https.Agent() : undefined };
    return await new Promise((done, failed) => https.get(url, options, (r) => { r.setEncoding('utf8').on('data', done); }).on('error', failed));
  } catch (e) {
    return String((e.cause ?? e).code);
  }
}
`,
	}
	ways := map[string][]string{"python": {""}, "node": {"fetch", "https", "agent", "ciphers", "tls", "fetch"}}
	variable := map[string]string{"python": "SSL_CERT_FILE", "node": "NODE_EXTRA_CA_CERTS"}
	refused := map[string]string{"python": "SSLCertVerificationError", "node": "DEPTH_ZERO_SELF_SIGNED_CERT"}
	each(t, func(t *testing.T, lang string) {
		for _, trusted := range []bool{true, false} {
			p := boot(t, lang)
			file := filepath.Join(filepath.Dir(p.socket), "secrets", "AUTHORITY")
			load := map[string]any{"code": codes[lang], "secrets": map[string][]byte{"AUTHORITY": authority}, "env": map[string]string{}}
			want := refused[lang]
			if trusted {
				load["env"] = map[string]string{variable[lang]: file}
				want = "hello"
			}
			client := p.Client(t)
			if status, _, body := client.load(t, load); status != 200 {
				t.Fatalf("%d %s", status, body)
			}
			for _, how := range ways[lang] {
				_, _, body := client.Do(t, newRequest(t, http.MethodPost, "/", `{"url": "`+server.URL+`", "how": "`+how+`"}`))
				if string(body) != `{"result": "`+want+`"}` {
					t.Errorf("trusted=%v, by %q: %s, want %s", trusted, how, body, want)
				}
			}
			if lang == "node" {
				_, _, body := client.Do(t, newRequest(t, http.MethodPost, "/", `{"url": "`+server.URL+`", "how": "other"}`))
				if string(body) != `{"result": "`+refused[lang]+`"}` {
					t.Errorf("trusted=%v, with an authority of the call's own: %s", trusted, body)
				}
			}
		}
	})
}

// A file of authorities that is not there is said, and ends nothing.
func TestExtraAuthorityIsMissing(t *testing.T) {
	p := boot(t, "node")
	client := p.Client(t)
	load := map[string]any{"code": echoes["node"], "env": map[string]string{"NODE_EXTRA_CA_CERTS": "/nowhere/ca.pem"}}
	if status, _, body := client.load(t, load); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	Eventually(t, "the log says so", func() bool { return strings.Contains(p.Log(), "Ignoring extra certs from `/nowhere/ca.pem`") })
}

// The size of Node's pool of threads counts also in a sandbox that has been blank
// for so long that it is warm.
func TestThreadPoolOfAWarmSandbox(t *testing.T) {
	p := boot(t, "node")
	client := p.Client(t)
	time.Sleep(300 * time.Millisecond)
	code := `
const fs = require('fs');
const tasks = () => fs.readdirSync('/proc/self/task').length;
async function callme() {
  const before = tasks();
  await fs.promises.readFile('/proc/self/stat');
  return tasks() - before;
}
`
	if status, _, body := client.load(t, map[string]any{"code": code, "env": map[string]string{"UV_THREADPOOL_SIZE": "11"}}); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	if _, _, body := client.Do(t, newRequest(t, http.MethodPost, "/", "")); string(body) != `{"result": 11}` {
		t.Errorf("the pool has begun with another size: %s", body)
	}
}

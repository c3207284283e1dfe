package contract

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// fakeProxy is a proxy on a Unix socket, by which every host but evil.example is
// one of two servers of the test's: at port 443 one with TLS, else a plain one.
type fakeProxy struct {
	mu   sync.Mutex
	seen []string
}

func startProxy(t *testing.T, socket string) (proxy *fakeProxy, certificate string) {
	t.Helper()
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %d", r.Host, len(body))
	})
	plain, secure := httptest.NewServer(answer), httptest.NewTLSServer(answer)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	proxy = &fakeProxy{}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxy.mu.Lock()
		proxy.seen = append(proxy.seen, r.Method+" "+r.RequestURI)
		proxy.mu.Unlock()
		if r.Method != http.MethodConnect {
			answer(w, r)
			return
		}
		client, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = client.Close() }()
		if strings.HasPrefix(r.Host, "evil.example") {
			_, _ = io.WriteString(client, "HTTP/1.1 403 not evil\r\nContent-Length: 0\r\n\r\n")
			return
		}
		to := plain
		if strings.HasSuffix(r.Host, ":443") {
			to = secure
		}
		remote, err := net.Dial("tcp", to.Listener.Addr().String())
		if err != nil {
			return
		}
		defer func() { _ = remote.Close() }()
		_, _ = io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n")
		go func() { _, _ = io.Copy(remote, client); _ = remote.(*net.TCPConn).CloseWrite() }()
		_, _ = io.Copy(client, remote)
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close(); plain.Close(); secure.Close() })

	certificate = filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	if err := os.WriteFile(certificate, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return proxy, certificate
}

func (p *fakeProxy) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.seen
	p.seen = nil
	return seen
}

var fetchers = map[string]string{
	"python": `
import os, subprocess, urllib.request
AT_IMPORT = urllib.request.urlopen("http://imported.example/").read().decode()
def callme(how, url="", size: int = 0):
    if how == "import":
        return AT_IMPORT
    if how == "env":
        return sorted(name for name in os.environ if "proxy" in name.lower())
    if how == "curl":
        return subprocess.run(["curl", "-s", url], capture_output=True, text=True, check=True).stdout
    try:
        return urllib.request.urlopen(url, b"x" * size if size else None).read().decode()
    except OSError as e:
        return str(e)
`,
	"node": `
const http = require('http');
const https = require('https');
const execFile = require('util').promisify(require('child_process').execFile);
const via = (module, options) => (url, size) => new Promise((done) => {
  const request = module.request(url, { method: size ? 'POST' : 'GET', ...options }, (answer) => {
    let text = '';
    answer.on('data', (data) => { text += data; }).on('end', () => done(text));
  });
  request.on('error', (e) => done(e.message)).end('x'.repeat(size));
});
const ways = {
  fetch: (url, size) => fetch(url, size ? { method: 'POST', body: 'x'.repeat(size) } : {}).then((a) => a.text(), (e) => e.cause.message),
  http: via(http, {}), https: via(https, {}),
  'http agent': via(http, { agent: new http.Agent({ keepAlive: true }) }), 'https agent': via(https, { agent: new https.Agent() }),
  'https none': via(https, { agent: false }),
};
const atImport = ways.http('http://imported.example/', 0);
exports.callme = async (how, url = '', size = 0) => {
  if (how === 'import') return atImport;
  if (how === 'env') return Object.keys(process.env).filter((name) => /proxy/i.test(name)).sort();
  if (how === 'curl') return (await execFile('curl', ['-s', url])).stdout;
  return ways[how](url, Number(size));
};
`,
}

// A sandbox without a network has the proxy's socket, and whatever a function
// uses for HTTP finds it.
func TestProxy(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		folder, err := os.MkdirTemp("/tmp", "fob")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(folder) })
		proxy, certificate := startProxy(t, filepath.Join(folder, "net.sock"))
		p := start(t, lang, nil, "FOB_SOCKET="+folder+"/s", "SSL_CERT_FILE="+certificate, "NODE_EXTRA_CA_CERTS="+certificate)
		p.socket = folder + "/s"
		p.ready(t)
		client := p.Client(t)
		document, err := json.Marshal(map[string]any{"code": fetchers[lang], "proxy": "net.sock"})
		if err != nil {
			t.Fatal(err)
		}
		if status, _, body := client.Do(t, newRequest(t, http.MethodPut, "/_fob/function", string(document))); status != 200 {
			t.Fatalf("loading answered %d %s", status, body)
		}
		ask := func(args map[string]any) string {
			t.Helper()
			body, err := json.Marshal(args)
			if err != nil {
				t.Fatal(err)
			}
			status, _, answer := client.Do(t, newRequest(t, http.MethodPost, "/", string(body)))
			var got struct{ Result any }
			if err := json.Unmarshal(answer, &got); status != 200 || err != nil {
				t.Fatalf("%v answered %d %s", args, status, answer)
			}
			return fmt.Sprint(got.Result)
		}
		if got := ask(map[string]any{"how": "import"}); got != "imported.example 0" {
			t.Errorf("at import: %s", got)
		}
		want := "[HTTPS_PROXY HTTP_PROXY NODE_USE_ENV_PROXY NO_PROXY http_proxy https_proxy no_proxy]"
		if got := ask(map[string]any{"how": "env"}); got != want {
			t.Errorf("the environment has %s", got)
		}
		if got := ask(map[string]any{"how": "curl", "url": "http://example.com/"}); got != "example.com 0" {
			t.Errorf("curl: %s", got)
		}
		ways := map[string][]string{"python": {"http", "https"}, "node": {"fetch", "http", "https", "http agent", "https agent", "https none"}}[lang]
		for _, how := range ways {
			schemes := []string{strings.Fields(how)[0]}
			if how == "fetch" {
				schemes = []string{"http", "https"}
			}
			for _, scheme := range schemes {
				proxy.take()
				for _, size := range []int{0, 3_000_000} {
					if got := ask(map[string]any{"how": how, "url": scheme + "://example.com/x", "size": size}); got != fmt.Sprintf("example.com %d", size) {
						t.Errorf("%s: %s", how, got)
					}
				}
				if seen := proxy.take(); len(seen) == 0 {
					t.Errorf("%s: the proxy saw nothing", how)
				}
				refused := ask(map[string]any{"how": how, "url": scheme + "://evil.example/"})
				if scheme == "https" || lang == "node" {
					if !strings.Contains(refused, "not evil") {
						t.Errorf("%s of what is refused: %s", how, refused)
					}
				}
			}
		}
		// What the function listens to itself is no matter of the proxy's.
		own := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "near") }))
		defer own.Close()
		proxy.take()
		for _, how := range ways {
			if !strings.HasPrefix(how, "https") {
				if got := ask(map[string]any{"how": how, "url": own.URL}); got != "near" {
					t.Errorf("%s to loopback: %s", how, got)
				}
			}
		}
		if seen := proxy.take(); len(seen) > 0 {
			t.Errorf("the proxy saw %q", seen)
		}
	})
}

// The port on loopback passes everything on, as it comes and to its end.
func TestProxyRelays(t *testing.T) {
	codes := map[string]string{
		"python": "import os\nPORT = int(os.environ['HTTP_PROXY'].rpartition(':')[2])\ndef callme(): return PORT",
		"node":   "const port = Number(process.env.HTTP_PROXY.split(':')[2]);\nfunction callme() { return port; }",
	}
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang)
		listener, err := net.Listen("unix", filepath.Join(filepath.Dir(p.socket), "n"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = listener.Close() }()
		document, err := json.Marshal(map[string]any{"code": codes[lang], "proxy": "n"})
		if err != nil {
			t.Fatal(err)
		}
		client := p.Client(t)
		if status, _, body := client.Do(t, newRequest(t, http.MethodPut, "/_fob/function", string(document))); status != 200 {
			t.Fatalf("loading answered %d %s", status, body)
		}
		_, _, answer := client.Do(t, newRequest(t, http.MethodPost, "/", ""))
		var port struct{ Result int }
		if err := json.Unmarshal(answer, &port); err != nil {
			t.Fatal(err)
		}
		connect := func() (near, far net.Conn) {
			near, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port.Result))
			if err != nil {
				t.Fatal(err)
			}
			if far, err = listener.Accept(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
			return near, far
		}
		// Both ways at once, with a half that ends before the other.
		big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
		var all sync.WaitGroup
		for range 4 {
			near, far := connect()
			all.Go(func() {
				go func() { _, _ = near.Write(big); _ = near.(*net.TCPConn).CloseWrite() }()
				got, err := io.ReadAll(far)
				if err != nil || !bytes.Equal(got, big) {
					t.Errorf("%d bytes came, %v", len(got), err)
				}
				go func() { _, _ = far.Write(big[:1<<20]); _ = far.Close() }()
				if got, err = io.ReadAll(near); err != nil || !bytes.Equal(got, big[:1<<20]) {
					t.Errorf("%d bytes came back, %v", len(got), err)
				}
			})
		}
		all.Wait()
		// An end that breaks is no end of the others.
		near, far := connect()
		other, otherFar := connect()
		_ = near.(*net.TCPConn).SetLinger(0)
		_ = near.Close()
		if _, err := far.Read(make([]byte, 1)); err == nil {
			t.Error("it goes on without its client")
		}
		_, _ = other.Write([]byte("x"))
		if n, err := otherFar.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("the other one: %d, %v", n, err)
		}
		// Without a dispatcher there is no way out, until there is one again.
		_ = listener.Close()
		if near, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port.Result)); err != nil {
			t.Fatal(err)
		}
		if n, err := near.Read(make([]byte, 1)); err == nil {
			t.Errorf("without a proxy %d bytes came", n)
		}
	})
}

func TestProxyMustBeBeside(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang)
		client := p.Client(t)
		for _, name := range []string{`""`, `"../n"`, `7`, `"/n"`} {
			body := `{"code": "x", "proxy": ` + name + `}`
			if status, header, answer := client.Do(t, newRequest(t, http.MethodPut, "/_fob/function", body)); status != 400 || !slices.Contains(header["Fob-Error"], "bad_request") {
				t.Errorf("proxy %s: %d %s", name, status, answer)
			}
		}
		load(t, client, echoes[lang]) // nothing was loaded yet
	})
}

package e2e

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/client"
	"github.com/flockofbirds/fob/internal/pages"
)

// recipe returns the example in docs/operate/proxy.md that is in that language.
func recipe(t *testing.T, lang string) string {
	t.Helper()
	_, rest, _ := strings.Cut(pages.Read(t, "docs/operate/proxy.md"), "\n```"+lang+"\n")
	text, _, found := strings.Cut(rest, "\n```\n")
	if !found {
		t.Fatalf("docs/operate/proxy.md has no %s", lang)
	}
	return text
}

// change replaces what a recipe must have.
func change(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("the recipe has no %q", pairs[i])
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

// TestProxies: the recipes of docs/operate/proxy.md do what they are for.
func TestProxies(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	pool := certify(t, dir)
	for name, start := range map[string]func(t *testing.T, dir, port, to string) *exec.Cmd{
		"nginx": func(t *testing.T, dir, port, to string) *exec.Cmd {
			site := change(t, recipe(t, "nginx"), "listen 443 ssl", "listen 127.0.0.1:"+port+" ssl", "http://127.0.0.1:9999", to,
				"/etc/ssl/fob.example.com.pem", dir+"/cert.pem", "/etc/ssl/fob.example.com.key", dir+"/key.pem")
			temporary := ""
			for _, what := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
				temporary += what + "_temp_path " + dir + "/" + what + ";\n"
			}
			conf := "daemon off;\nworker_processes 1;\npid " + dir + "/nginx.pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n" + temporary + site + "}\n"
			return exec.Command(findProgram(t, "nginx", "/usr/sbin/nginx"), "-c", write(t, dir, "nginx.conf", conf), "-p", dir)
		},
		"caddy": func(t *testing.T, dir, port, to string) *exec.Cmd {
			site := change(t, recipe(t, "caddy"), "fob.example.com {", "https://fob.example.com:"+port+" {\n\tbind 127.0.0.1\n\ttls "+dir+"/cert.pem "+dir+"/key.pem\n", "127.0.0.1:9999", strings.TrimPrefix(to, "http://"))
			conf := "{\n\tadmin off\n\tauto_https off\n\tstorage file_system " + dir + "\n}\n" + site + "\n"
			cmd := exec.Command(findProgram(t, "caddy", "/usr/bin/caddy"), "run", "--adapter", "caddyfile", "--config", write(t, dir, "Caddyfile", conf))
			cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
			return cmd
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := boot(t, "FOB_HOSTS=fob.example.com", "FOB_TRUSTED_PROXIES=127.0.0.1", "FOB_POOL=python=1,node=0")
			addr, err := client.FreeAddr()
			if err != nil {
				t.Fatal(err)
			}
			_, port, _ := net.SplitHostPort(addr)
			cmd := start(t, dir, port, p.URL)
			var said strings.Builder
			cmd.Stdout, cmd.Stderr = &said, &said
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			cmd.WaitDelay = 10 * time.Second
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
				cmd.Wait()
				if t.Failed() {
					t.Logf("%s said: %s", name, said.String())
				}
			})
			checkProxy(t, p, "fob.example.com:"+port, pool)
		})
	}
}

// checkProxy goes through a proxy at that host, as a client with an address that
// is not the proxy's.
func checkProxy(t *testing.T, p *dispatcher, host string, pool *x509.CertPool) {
	const me = "127.0.0.7"
	_, port, _ := net.SplitHostPort(host)
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(me)}}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, "127.0.0.1:"+port)
		},
	}
	defer transport.CloseIdleConnections()
	outside := &http.Client{Transport: transport, Timeout: time.Minute}
	open := func(method, path, body string, header ...string) *http.Response {
		t.Helper()
		request, err := http.NewRequest(method, "https://"+host+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			request.Header.Set(header[i], header[i+1])
		}
		answer, err := outside.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { answer.Body.Close() })
		return answer
	}
	ask := func(method, path, body string, header ...string) answered {
		t.Helper()
		answer := open(method, path, body, header...)
		content, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answered{client.Answer{Status: answer.StatusCode, Header: answer.Header, Body: string(content)}}
	}
	eventually(t, time.Minute, "the proxy answers", func() bool {
		answer, err := outside.Get("https://" + host + "/readyz")
		if err == nil {
			answer.Body.Close()
		}
		return err == nil && answer.StatusCode == 200
	})

	// Whom the function, and the audit log, see.
	ask("PUT", "/api/functions/echo", "def callme(request):\n    return {'path': request.path, 'headers': request.headers, 'size': len(request.body)}\n", "X-Forwarded-For", "198.51.100.1").wantsStatus(t, 201)
	if log := p.do("GET", "/api/audit", "").Body; !strings.Contains(log, `"from":"`+me+`"`) || strings.Contains(log, "198.51.100.1") {
		t.Errorf("the audit log says %s", log)
	}
	echo := func(path, body string, header ...string) (got struct {
		Result struct {
			Path    string
			Headers map[string]string
			Size    int
		}
	}) {
		t.Helper()
		answer := ask("POST", "/api/call/echo"+path, body, header...)
		if err := json.Unmarshal([]byte(answer.Body), &got); err != nil || answer.Status != 200 {
			t.Fatalf("answered %d %s", answer.Status, answer.Body)
		}
		return got
	}
	seen := echo("", "", "X-Forwarded-For", "198.51.100.1", "X-Forwarded-Host", "evil.test", "X-Forwarded-Proto", "gopher", "Forwarded", "for=198.51.100.1", "X-Real-IP", "198.51.100.1").Result.Headers
	for name, want := range map[string]string{"x-forwarded-for": me, "x-forwarded-proto": "https", "x-forwarded-host": host, "forwarded": "", "x-real-ip": "", "host": host} {
		if got := seen[name]; got != want && !(name == "host" && got == "") {
			t.Errorf("through the proxy the function sees %s: %q, want %q", name, got, want)
		}
	}

	// Which pages may call.
	for origin, status := range map[string]int{"https://" + host: 200, "http://" + host: 403, "https://fob.example.com": 403, "https://evil.test": 403} {
		ask("POST", "/api/call/echo", "", "Origin", origin).wantsStatus(t, status)
	}

	// Paths, large bodies, errors.
	if got := echo("/a%2Fb/c%20d?x=%41", "").Result.Path; got != "/a/b/c d" {
		t.Errorf("the function sees the path %q", got)
	}
	if got := echo("", strings.Repeat("x", 3<<20), "Content-Type", "application/octet-stream").Result.Size; got != 3<<20 {
		t.Errorf("of 3 MB there came %d bytes", got)
	}
	ask("GET", "/api/call/nothing", "").wantsProblem(t, 404, "unknown_function")
	for _, inside := range []string{"/metrics", "/api/audit", "/api/backup"} {
		if got := ask("GET", inside, ""); got.Status != 404 || got.Header.Get("Fob-Error") != "" {
			t.Errorf("%s is answered %d", inside, got.Status)
		}
	}

	// What streams comes as it is made.
	flag := filepath.Join(shortDir(t), "go")
	for kind, mediaType := range map[string]string{"events": "text/event-stream", "text": "text/plain"} {
		ask("PUT", "/api/functions/"+kind, fmt.Sprintf(`
import fob, os, time
def callme():
    def items():
        yield "data: one\n\n"
        while not os.path.exists(%q): time.sleep(0.01)
        yield "data: two\n\n"
    return fob.Response(items(), headers={"Content-Type": %q})
`, flag+kind, mediaType)).wantsStatus(t, 201)
		body := bufio.NewReader(open("GET", "/api/call/"+kind, "").Body)
		if line, err := body.ReadString('\n'); line != "data: one\n" {
			t.Errorf("the stream begins with %q, %v", line, err)
		}
		write(t, filepath.Dir(flag), filepath.Base(flag)+kind, "")
		if rest, err := io.ReadAll(body); string(rest) != "\ndata: two\n\n" || err != nil {
			t.Errorf("the stream goes on with %q, %v", rest, err)
		}
	}
}

// findProgram finds a program that is nobody's to do without.
func findProgram(t *testing.T, name, path string) string {
	t.Helper()
	if found, err := exec.LookPath(name); err == nil {
		return found
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("there is no %s: scripts/setup test brings it", name)
	}
	return path
}

func write(t *testing.T, dir, name, text string) (path string) {
	t.Helper()
	path = filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// certify writes a certificate and its key for fob.example.com, and returns who
// trusts it.
func certify(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fob.example.com"}, DNSNames: []string{"fob.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	write(t, dir, "cert.pem", string(cert))
	write(t, dir, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return pool
}

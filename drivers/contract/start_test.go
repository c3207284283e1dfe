package contract

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func (p *process) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(Patience):
		t.Fatal("the driver does not end")
		return -1
	}
}

func TestNothingToListenOn(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		p := start(t, lang, nil, "FOB_SOCKET=")
		if code := p.exit(t); code != 2 || !strings.Contains(p.Log(), "FOB_SOCKET") {
			t.Errorf("exit %d, log %q", code, p.Log())
		}
	})
}

func TestCodeURL(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		var authorization string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			authorization = r.Header.Get("Authorization")
			switch r.URL.Path {
			case "/good":
				_, _ = io.WriteString(w, echoes[lang])
			case "/raises":
				_, _ = io.WriteString(w, map[string]string{"python": "1 / 0", "node": "null.x"}[lang])
			default:
				http.NotFound(w, r)
			}
		}))
		defer server.Close()
		p := boot(t, lang, "FOB_CODE_URL="+server.URL+"/good", "FOB_TOKEN=secret", "FOB_TCP=127.0.0.1:0")
		client := p.Client(t)
		if h := client.health(t); h.State != "loaded" {
			t.Errorf("%+v, want loaded", h)
		}
		if authorization != "Bearer secret" {
			t.Errorf("fetched with Authorization %q", authorization)
		}
		if _, _, body := client.Do(t, newRequest(t, http.MethodPost, "/", `{"x": 1}`)); string(body) != `{"result": 1}` {
			t.Errorf("a call answered %s", body)
		}
		if status, _, _ := client.Load(t, echoes[lang]); status != 409 {
			t.Errorf("another load answered %d, want 409", status)
		}
		for path, why := range map[string]string{"/missing": "404", "/raises": "Error"} {
			p := start(t, lang, nil, "FOB_CODE_URL="+server.URL+path)
			if code := p.exit(t); code != 1 || !strings.Contains(p.Log(), why) {
				t.Errorf("%s: exit %d, log %q, want 1 and %s", path, code, p.Log(), why)
			}
		}
	})
}

// printers print much: lines of 7 MB, or one of 20 MB, of which a driver holds 4.
var printers = map[string]string{
	"python": `
import sys
def callme(what):
    if what == "birds":
        print("x" + "🐦" * 100000)
    elif what == "lines":
        line = "x" * 99
        for i in range(70000):
            print(line)
    elif what == "line":
        print("y" * 20000000)
    elif what == "partial":
        sys.stdout.write("partial")
        sys.stderr.write("begun")
    return what
`,
	"node": `
function callme(what) {
  if (what === 'birds') console.log('x' + '🐦'.repeat(100000));
  if (what === 'lines') {
    const line = 'x'.repeat(99);
    for (let i = 0; i < 70000; i++) console.log(line);
  } else if (what === 'line') {
    console.log('y'.repeat(20000000));
  } else if (what === 'partial') {
    process.stdout.write('partial');
    process.stderr.write('begun');
  }
  return what;
}
`,
}

// pipe gives the driver a pipe for its standard output and error that nobody
// reads until the test does.
func pipe(t *testing.T, lang string) (*process, *os.File) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reader.Close() })
	p := start(t, lang, func(cmd *exec.Cmd) { cmd.Stdout, cmd.Stderr = writer, writer })
	_ = writer.Close()
	p.ready(t)
	return p, reader
}

func call(t *testing.T, client *Client, what string) {
	t.Helper()
	status, _, body := client.Do(t, newRequest(t, http.MethodPost, "/", `{"what": "`+what+`"}`))
	if status != 200 || string(body) != `{"result": "`+what+`"}` {
		t.Errorf("answered %d %s", status, show(body))
	}
}

func TestNobodyReadsTheLog(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		for _, what := range []string{"lines", "line"} {
			p, reader := pipe(t, lang)
			client := p.Client(t)
			load(t, client, printers[lang])
			call(t, client, what)
			call(t, client, "nothing")

			// Once somebody reads, what was held comes, and how much was not.
			found := make(chan bool)
			go func() {
				var seen []byte
				chunk := make([]byte, 1<<16)
				for {
					n, err := reader.Read(chunk)
					seen = append(seen, chunk[:n]...)
					last := seen[max(0, len(seen)-n-100):] // and what came before, if the note is in two pieces
					if bytes.Contains(last, []byte("bytes of log dropped]\n")) || err != nil {
						at := bytes.LastIndex(seen, []byte("\n[fob: "))
						found <- err == nil && at >= 0 && len(seen) > 3<<20 && len(seen) < 6<<20
						return
					}
				}
			}()
			select {
			case ok := <-found:
				if !ok {
					t.Errorf("%s: the log is not what was held and a note of what was not", what)
				}
			case <-time.After(Patience):
				t.Errorf("%s: the log never says that something was dropped", what)
			}
		}
	})
}

func TestReaderOfTheLogHasGone(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		p, reader := pipe(t, lang)
		_ = reader.Close()
		client := p.Client(t)
		load(t, client, printers[lang])
		call(t, client, "line")
		call(t, client, "partial")
	})
}

func TestHugeLineIsRead(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang)
		client := p.Client(t)
		load(t, client, printers[lang])
		call(t, client, "line")
		Eventually(t, "what came after the line is in the log", func() bool {
			call(t, client, "partial") // dropped as long as the line is in the way
			return strings.Contains(p.Log(), "partial")
		})
		if !strings.HasPrefix(p.Log(), "yyyy") {
			t.Error("the line is not in the log")
		}
	})
}

// Long texts are taken piece by piece, but never within a character.
func TestLongTextStaysWhole(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang)
		client := p.Client(t)
		load(t, client, printers[lang])
		call(t, client, "birds")
		want := "x" + strings.Repeat("🐦", 100000) + "\n"
		Eventually(t, "all of the line is in the log", func() bool { return len(p.Log()) >= len(want) })
		if p.Log() != want {
			t.Error("the line has changed on its way")
		}
	})
}

// A call that has begun a line and does not end leaves the line to SIGTERM.
func TestTerminate(t *testing.T) {
	codes := map[string]string{
		"python": `
import sys, time
def callme(begun):
    sys.stdout.write("out begun")
    open(begun, "w").close()
    while True:
        time.sleep(0.01)
`,
		"node": `
function callme(begun) {
  process.stdout.write('out begun');
  require('fs').writeFileSync(begun, '');
  return new Promise(() => setInterval(() => {}, 1000));
}
`,
	}
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang)
		client := p.Client(t)
		load(t, client, codes[lang])
		begun := t.TempDir() + "/begun"
		request := newRequest(t, http.MethodPost, "/", `{"begun": "`+begun+`"}`)
		ended := make(chan error, 1)
		go func() {
			_, _, _, err := client.Try(request)
			ended <- err
		}()
		Eventually(t, "the call runs", func() bool { return exists(begun) })
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if code := p.exit(t); code != 0 {
			t.Errorf("exit %d, want 0", code)
		}
		if err := <-ended; err == nil {
			t.Error("the call was answered")
		}
		if log := p.Log(); log != "out begun" {
			t.Errorf("the log is %q", log)
		}
	})
}

func TestTerminateWithAFullPipe(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		p, _ := pipe(t, lang)
		client := p.Client(t)
		load(t, client, printers[lang])
		call(t, client, "line")
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if code := p.exit(t); code != 0 {
			t.Errorf("exit %d, want 0", code)
		}
	})
}

// What a function prints last is in the log although it ends the process.
func TestFunctionEndsTheProcess(t *testing.T) {
	codes := map[string]string{
		"python": "import os\ndef callme():\n    print('last words')\n    os._exit(3)",
		"node":   "function callme() { console.log('last words'); process.exit(3); }",
	}
	each(t, func(t *testing.T, lang string) {
		p := boot(t, lang)
		client := p.Client(t)
		load(t, client, codes[lang])
		if status, _, _, err := client.Try(newRequest(t, http.MethodPost, "/", "")); err == nil {
			t.Errorf("the call answered %d", status)
		}
		if code := p.exit(t); code != 3 || p.Log() != "last words\n" {
			t.Errorf("exit %d, log %q", code, p.Log())
		}
	})
}

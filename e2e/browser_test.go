package e2e

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// browser opens a page in a real browser until the test ends, or close is
// called. Names below .test lead to this machine there.
func browser(t *testing.T, url string) (close func()) {
	t.Helper()
	_, close = launch(t, url)
	return close
}

// launch runs a browser, and returns the folder with its profile.
func launch(t *testing.T, url string) (profile string, close func()) {
	t.Helper()
	var program string
	for _, name := range []string{"chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		t.Fatal("there is no Chromium: scripts/setup test brings one")
	}
	profile, err := os.MkdirTemp("/tmp", "fobbrowser")
	if err != nil {
		t.Fatal(err)
	}
	// The port keeps it open, and tabs opens pages there.
	cmd := exec.Command(program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0",
		"--host-resolver-rules=MAP *.test 127.0.0.1", "--user-data-dir="+profile, url)
	var said strings.Builder
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // with all the processes that it starts
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	close = sync.OnceFunc(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		os.RemoveAll(profile)
		if t.Failed() {
			t.Logf("the browser said: %s", said.String())
		}
	})
	t.Cleanup(close)
	return profile, close
}

// tabs is a browser that opens one page after the other.
type tabs struct {
	t        *testing.T
	devtools string // URL
}

func newTabs(t *testing.T) *tabs {
	t.Helper()
	profile, _ := launch(t, "about:blank")
	b := &tabs{t: t}
	eventually(t, time.Minute, "the browser says its port", func() bool {
		said, err := os.ReadFile(filepath.Join(profile, "DevToolsActivePort"))
		port, _, whole := strings.Cut(string(said), "\n")
		b.devtools = "http://127.0.0.1:" + port
		return err == nil && whole
	})
	return b
}

// open opens a page as a user does who types its address, and returns what closes it.
func (b *tabs) open(page string) (close func()) {
	b.t.Helper()
	tab := b.openTab(page)
	return func() { b.closeTab(tab) }
}

// openTab returns the ID of a new tab.
func (b *tabs) openTab(page string) string {
	b.t.Helper()
	request, err := http.NewRequest("PUT", b.devtools+"/json/new?"+url.QueryEscape(page), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		b.t.Fatal(err)
	}
	defer answer.Body.Close()
	var tab struct{ ID string }
	if err := json.NewDecoder(answer.Body).Decode(&tab); err != nil || tab.ID == "" {
		b.t.Fatalf("opening %s: %d, %v", page, answer.StatusCode, err)
	}
	return tab.ID
}

func (b *tabs) closeTab(id string) {
	if answer, err := http.Get(b.devtools + "/json/close/" + id); err == nil {
		answer.Body.Close()
	}
}

// A page that a function serves listens to the events that another streams.
func TestDockerEventSource(t *testing.T) {
	t.Parallel()
	p := boot(t, "FOB_AVIARY="+testAviary(t))
	// The page has an origin of its own, so that what it calls has to let it.
	p.gen("?cors=*&name=heard", "heard = []\ndef callme(what=None):\n    if what: heard.append(what)\n    return heard\n")
	for lang, code := range map[string]string{
		"python": `
import time, fob
def callme():
    def ticks():
        for n in range(3):
            yield f"data: python {n}\n\n"
            time.sleep(0.1)
    return fob.Response(ticks(), headers={"Content-Type": "text/event-stream"})
`,
		"node": `
async function* ticks() {
  for (let n = 0; n < 3; n++) {
    yield new TextEncoder().encode('data: node ' + n + '\n\n');
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
function callme() {
  return new Response(ticks(), { headers: { 'Content-Type': 'text/event-stream' } });
}
`,
	} {
		p.gen("?cors=*&lang="+lang+"&name=ticks-"+lang, code)
	}
	p.gen("?name=page", `
import fob
def callme():
    return fob.Response("""<!doctype html><script>
for (const lang of ['python', 'node']) {
  const source = new EventSource('/api/call/ticks-' + lang);
  source.onmessage = async (event) => {
    if (event.data.endsWith('2')) source.close();
    await fetch('/api/call/heard?what=' + encodeURIComponent(event.data));
  };
}
</script>""", headers={"Content-Type": "text/html"})
`)
	browser(t, p.URL+"/api/call/page")
	eventually(t, time.Minute, "the page has heard all", func() bool {
		heard := p.do("GET", "/api/call/heard", "").Body
		for _, event := range []string{"python 0", "python 1", "python 2", "node 0", "node 1", "node 2"} {
			if strings.Count(heard, event) != 1 {
				return false
			}
		}
		return true
	})
}

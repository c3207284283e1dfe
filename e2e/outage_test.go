package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/sandbox/sandboxtest"
)

// While the engine is away the dispatcher serves what runs, says that it is not ready,
// and one line of its log says why; when the engine is back, another does. A folder for
// sockets that somebody removes is made again.
func TestDockerOutage(t *testing.T) {
	t.Parallel()
	aviary := testAviary(t)
	socket, local := strings.CutPrefix(strings.TrimSpace(dockerCLI(t, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")), "unix://")
	if !local {
		t.Fatalf("this test needs the engine's socket on this machine, and it is at %q", socket)
	}
	cable := &sandboxtest.Cable{Path: filepath.Join(shortDir(t), "d.sock"), Target: socket}
	cable.Join(t)
	t.Cleanup(cable.Cut)
	data := shortDir(t)
	p := boot(t, "FOB_DATA="+data, "FOB_AVIARY="+aviary, "FOB_POOL=python=1,node=1", "DOCKER_HOST=unix://"+cable.Path)
	p.do("PUT", "/api/functions/warm?min_scale=1", "def callme(): return 'warm'")
	p.do("PUT", "/api/functions/cold?idle_timeout=100ms", "def callme(): return 'cold'")
	eventually(t, time.Minute, "the cold function has no sandbox", func() bool {
		return len(p.meta("cold").Sandboxes) == 0
	})
	eventually(t, time.Minute, "the pools are full", func() bool {
		return strings.Contains(p.do("GET", "/metrics", "").Body, "fob_sandboxes{state=\"blank\"} 2\n") && len(containers(t, aviary)) == 3
	})

	before := p.Log.String()
	cable.Cut()
	eventually(t, time.Minute, "it says that it is not ready", func() bool { return p.do("GET", "/readyz", "").Status == 503 })
	// What makes it need the engine: removals, starts, and looks at what there is.
	p.do("PUT", "/api/functions/warm?min_scale=1", "def callme(): return 'warmer'")
	for range 40 {
		p.do("GET", "/api/call/warm", "").wantsStatus(t, 200)
		p.do("GET", "/api/call/cold?x=1", "") // perhaps in a sandbox of the pool's
		p.do("GET", "/healthz", "").wants(t, 200, `{"status": "ok"}`)
		if why := p.do("GET", "/readyz", "").wantsProblem(t, 503, "no_capacity"); !strings.Contains(why.Detail, "cannot be reached") {
			t.Fatalf("it says %s", why.Detail)
		}
		time.Sleep(100 * time.Millisecond)
	}
	cable.Join(t)
	p.awaitReady(time.Minute)
	p.do("GET", "/api/call/cold", "").wants(t, 200, `{"result": "cold"}`)
	if said := troubles(p, before); len(said) != 2 || !strings.Contains(said[0], "no sandbox can be started") || !strings.Contains(said[1], "can be started again") {
		t.Errorf("of the engine's absence the log says\n%s", strings.Join(said, "\n"))
	}

	eventually(t, time.Minute, "no sandbox comes or goes", func() bool { return p.blank() == 2 && len(containers(t, aviary)) == 3 })
	before = p.Log.String()
	if err := os.RemoveAll(filepath.Join(data, "sockets")); err != nil {
		t.Fatal(err)
	}
	p.do("PUT", "/api/functions/new?memory=64MB&network=none", "def callme(): return 'new'") // which no pool has
	p.do("GET", "/api/call/new", "").wants(t, 200, `{"result": "new"}`)
	p.do("GET", "/api/call/warm", "").wantsStatus(t, 200)
	p.do("GET", "/readyz", "").wantsStatus(t, 200)
	if said := troubles(p, before); len(said) == 0 || !strings.Contains(said[0], "somebody removed the folder for sockets") {
		t.Errorf("of the folder the log says\n%s", strings.Join(said, "\n"))
	}
	p.terminate()
	if left := containers(t, aviary); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
}

// A dispatcher that starts before its engine waits for it: not ready, and with one line
// of the log that says what to do. It can be ended meanwhile.
func TestDockerAwaitsEngine(t *testing.T) {
	t.Parallel()
	socket, _ := strings.CutPrefix(strings.TrimSpace(dockerCLI(t, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")), "unix://")
	cable := &sandboxtest.Cable{Path: filepath.Join(shortDir(t), "d.sock"), Target: socket}
	settings := []string{"FOB_DATA=" + shortDir(t), "FOB_AVIARY=" + testAviary(t), "FOB_POOL=python=0,node=0", "DOCKER_HOST=unix://" + cable.Path}
	waiting := func() *dispatcher {
		p := bootUnready(t, settings...)
		eventually(t, time.Minute, "it waits for the engine", func() bool {
			a, err := p.try("GET", "/readyz", "")
			return err == nil && a.Status == 503 && strings.Contains(a.Body, "waits for it")
		})
		p.do("GET", "/healthz", "").wantsStatus(t, 200)
		return p
	}
	waiting().terminate()
	p := waiting()
	time.Sleep(2 * time.Second) // it looks each second
	if said := troubles(p, ""); len(said) != 1 || !strings.Contains(said[0], "start Docker, or set DOCKER_HOST") {
		t.Errorf("the log says\n%s", strings.Join(said, "\n"))
	}
	cable.Join(t)
	t.Cleanup(cable.Cut)
	p.awaitReady(3 * time.Minute)
	p.do("GET", "/api/stats", "").wantsStatus(t, 200)
	p.terminate()
}

// troubles returns the lines of the log since then that are warnings or errors, or tell
// of an outage's end. A sandbox that the engine was making when it went away, and that comes
// up later, is no trouble, and calls that fail have lines of their own.
func troubles(p *dispatcher, since string) (all []string) {
	for line := range strings.Lines(strings.TrimPrefix(p.Log.String(), since)) {
		if strings.Contains(line, "came up for an earlier start") || strings.Contains(line, "a call failed") || strings.Contains(line, "more calls failed") {
			continue
		}
		if strings.Contains(line, `"warn"`) || strings.Contains(line, `"error"`) || strings.Contains(line, "can be started again") {
			all = append(all, strings.TrimSpace(line))
		}
	}
	return all
}

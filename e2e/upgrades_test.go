package e2e

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flockofbirds/fob/drivers"
)

// TestDockerDeployUnderLoad puts 10 versions while 200 calls a second come in.
func TestDockerDeployUnderLoad(t *testing.T) {
	const versions = 10
	aviary := testAviary(t)
	r := boot(t, "FOB_AVIARY="+aviary, "FOB_POOL=python=2,node=0")
	code := func(n int) string { return fmt.Sprintf("import time\ndef callme(): time.sleep(.002); return %d", n) }
	r.do("PUT", "/api/functions/f?idle_timeout=1s&stable_window=1s", code(0))

	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	var mu sync.Mutex
	answers := map[string]int{}
	var calls sync.WaitGroup
	stop := make(chan struct{})
	inFlight := make(chan struct{}, 100)
	var pacer sync.WaitGroup
	pacer.Go(func() {
		ticker := time.NewTicker(time.Second / 200)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
			}
			select { // a machine that is too busy gets fewer calls, not a long line of them
			case inFlight <- struct{}{}:
			default:
				continue
			}
			calls.Go(func() {
				defer func() { <-inFlight }()
				response, err := client.Get(r.URL + "/api/call/f")
				outcome := fmt.Sprint(err)
				if err == nil {
					outcome = response.Status
					response.Body.Close()
				}
				mu.Lock()
				answers[outcome]++
				mu.Unlock()
			})
		}
	})
	for n := 1; n <= versions; n++ {
		if a := r.do("PUT", "/api/functions/f", code(n)); a.Status != 200 {
			t.Fatalf("PUT of version %d: %d %s", n+1, a.Status, a.Body)
		}
	}
	close(stop)
	pacer.Wait()
	calls.Wait()
	t.Logf("answers: %v", answers)
	if len(answers) != 1 || answers["200 OK"] == 0 {
		t.Errorf("some calls failed: %v", answers)
	}
	r.do("GET", "/api/call/f", "").wants(t, 200, fmt.Sprintf(`{"result": %d}`, versions))
	if a := r.do("GET", "/api/call/f", ""); a.Header.Get("Fob-Version") != fmt.Sprint(versions+1) {
		t.Errorf("version %s is live, want %d", a.Header.Get("Fob-Version"), versions+1)
	}
	r.do("GET", "/api/call/f@1", "").wants(t, 200, `{"result": 0}`)
	eventually(t, 2*time.Minute, "the replaced versions' sandboxes are gone", func() bool {
		for n := 2; n <= versions; n++ {
			if a := r.do("GET", fmt.Sprintf("/api/meta/f@%d", n), ""); a.Body != `{"host": null, "port": null, "sandboxes": []}` {
				return false
			}
		}
		return true
	})
}

// After a restart with another base image what runs is adopted, serves, and is
// replaced: no call fails, and a stream that has begun goes on to its end.
func TestDockerUpgrade(t *testing.T) {
	t.Parallel()
	aviary := testAviary(t)
	base := func() string {
		raw := make([]byte, 4)
		rand.Read(raw)
		name := "fob-test-base:" + hex.EncodeToString(raw)
		dockerCLI(t, "tag", "debian:trixie-slim", name)
		t.Cleanup(func() {
			for _, image := range []string{name, "fob-python:" + drivers.Digest("python", name), "fob-node:" + drivers.Digest("node", name)} {
				exec.Command("docker", "rmi", "--force", image).Run()
			}
		})
		return name
	}
	settings := []string{"FOB_DATA=" + shortDir(t), "FOB_AVIARY=" + aviary, "FOB_POOL=python=0,node=0", "FOB_REMOVE_SANDBOXES=false", "FOB_BASE_IMAGE=" + base()}
	images := func() map[string]bool {
		all := map[string]bool{}
		for _, id := range containers(t, aviary) {
			// One may go before it is looked at.
			if out, err := exec.Command("docker", "inspect", "--format", "{{.Image}}", id).Output(); err == nil {
				all[strings.TrimSpace(string(out))] = true
			}
		}
		return all
	}
	p := boot(t, settings...)
	p.do("PUT", "/api/functions/warm?min_scale=2&max_scale=2", "def callme(): return 'warm'")
	p.do("PUT", "/api/functions/ticks?min_scale=1&timeout=1m", "import time\ndef callme(n):\n    for i in range(int(n)):\n        yield str(i) + '\\n'\n        time.sleep(.1)\n")
	eventually(t, time.Minute, "min_scale is kept", func() bool { return len(containers(t, aviary)) == 3 })
	before := images()
	p.terminate()

	settings = append(settings, "FOB_BASE_IMAGE="+base())
	settings = append(settings, "FOB_REMOVE_SANDBOXES=true")
	p = bootUnready(t, settings...)
	eventually(t, time.Minute, "it answers", func() bool { a, err := p.try("GET", "/api/call/warm", ""); return err == nil && a.Status == 200 })
	stream, err := http.Get(p.URL + "/api/call/ticks?n=100")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	ticks := make(chan int, 1)
	go func() {
		n := 0
		for lines := bufio.NewScanner(stream.Body); lines.Scan(); n++ {
		}
		ticks <- n
	}()
	calls := 0
	for deadline := time.Now().Add(2 * time.Minute); ; calls++ {
		p.do("GET", "/api/call/warm", "").wants(t, 200, `{"result": "warm"}`)
		if calls%20 == 0 {
			now := images()
			for image := range before {
				delete(now, image)
			}
			if len(now) == 1 && len(images()) == 1 {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %d calls the sandboxes are of %v, and were of %v", calls, images(), before)
		}
	}
	if n := <-ticks; n != 100 {
		t.Errorf("the stream had %d ticks of 100", n)
	}
	t.Logf("%d calls, and none failed", calls)
	p.terminate()
}

package main

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/drivers"
)

// After a restart with another base image what runs is adopted, serves, and is
// replaced: no call fails, and a stream that has begun goes on to its end.
func TestDockerUpgrade(t *testing.T) {
	aviary := testAviary(t)
	base := func() string {
		raw := make([]byte, 4)
		rand.Read(raw)
		name := "fob-test-base:" + hex.EncodeToString(raw)
		dockerCLI(t, "tag", testConfig(t).BaseImage, name)
		t.Cleanup(func() {
			for _, image := range []string{name, "fob-python:" + drivers.Digest("python", name), "fob-node:" + drivers.Digest("node", name)} {
				exec.Command("docker", "rmi", "--force", image).Run()
			}
		})
		return name
	}
	settings := map[string]string{"FOB_DATA": shortDir(t), "FOB_AVIARY": aviary, "FOB_POOL": "python=0,node=0", "FOB_BASE_IMAGE": base()}
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
	p := spawn(t, settings)
	p.awaitReady(3 * time.Minute)
	p.do("PUT", "/api/functions/warm?min_scale=2&max_scale=2", "def callme(): return 'warm'")
	p.do("PUT", "/api/functions/ticks?min_scale=1&timeout=1m", "import time\ndef callme(n):\n    for i in range(int(n)):\n        yield str(i) + '\\n'\n        time.sleep(.1)\n")
	eventually(t, time.Minute, "min_scale is kept", func() bool { return len(containers(t, aviary)) == 3 })
	before := images()
	p.terminate()

	settings["FOB_BASE_IMAGE"] = base()
	settings["FOB_REMOVE_SANDBOXES"] = "true"
	p = spawn(t, settings)
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

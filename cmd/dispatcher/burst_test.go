package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// statesOf counts the sandboxes of a function's live version by state.
func (r *running) statesOf(ref string) map[string]int {
	r.t.Helper()
	var where struct {
		Sandboxes []struct {
			State string `json:"state"`
		} `json:"sandboxes"`
	}
	a := r.do("GET", "/api/meta/"+ref, "")
	if err := json.Unmarshal([]byte(a.Body), &where); err != nil || a.Status != 200 {
		r.t.Fatalf("meta of %s is %d %s", ref, a.Status, a.Body)
	}
	states := map[string]int{}
	for _, s := range where.Sandboxes {
		states[s.State]++
	}
	return states
}

// TestDockerBurst has 64 clients come at once and leave again: only 200s, and
// sandboxes from one to max_scale and back to none.
func TestDockerBurst(t *testing.T) {
	const clients, most = 64, 16
	aviary := testAviary(t)
	r := boot(t, func(c *Config) {
		c.Engine, c.Aviary, c.Pool = "docker", aviary, map[string]int{"python": 2, "node": 1}
	})
	r.do("PUT", fmt.Sprintf("/api/functions/burst?max_scale=%d&memory=64MB&stable_window=5s&idle_timeout=15s", most),
		"import time\ndef callme(): time.sleep(.1); return 1")

	begun := time.Now()
	last := -1
	look := func() int {
		states := r.statesOf("burst")
		n := states["ready"] + states["busy"]
		if n != last {
			t.Logf("%6.2f s: %2d sandboxes %v", time.Since(begun).Seconds(), n, states)
			last = n
		}
		return n
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	defer client.CloseIdleConnections()
	answers := map[int]int{}
	var slowest time.Duration
	var mu sync.Mutex
	var all sync.WaitGroup
	stop := make(chan struct{})
	for range clients {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				sent := time.Now()
				response, err := client.Get(r.URL + "/api/call/burst")
				if err != nil {
					t.Error(err)
					return
				}
				response.Body.Close()
				mu.Lock()
				answers[response.StatusCode]++
				slowest = max(slowest, time.Since(sent))
				mu.Unlock()
			}
		})
	}
	eventually(t, time.Minute, "all the sandboxes that may be are there", func() bool { return look() == most })
	for hold := time.Now().Add(5 * time.Second); time.Now().Before(hold); time.Sleep(100 * time.Millisecond) {
		if n := look(); n != most {
			t.Errorf("%d sandboxes under full load, and max_scale is %d", n, most)
		}
	}
	close(stop)
	all.Wait()
	ended := time.Since(begun)
	t.Logf("%6.2f s: the clients are gone; answers by status: %v, the slowest after %v", ended.Seconds(), answers, slowest.Round(time.Millisecond))
	if len(answers) != 1 || answers[200] == 0 {
		t.Errorf("not all answers are 200: %v", answers)
	}
	eventually(t, time.Minute, "no sandbox is left", func() bool { return look() == 0 && len(r.statesOf("burst")) == 0 })
	t.Logf("%6.2f s: back to none, %v after the last call", time.Since(begun).Seconds(), (time.Since(begun) - ended).Round(100*time.Millisecond))
	r.do("GET", "/api/call/burst", "").wants(t, 200, `{"result": 1}`)
}

// TestDockerPauseAndResume pauses a sandbox, over a restart of the dispatcher too.
func TestDockerPauseAndResume(t *testing.T) {
	aviary, data := testAviary(t), shortDir(t)
	program := func(remove bool) *running {
		return boot(t, func(c *Config) {
			c.Engine, c.Aviary, c.Data, c.Pool, c.RemoveSandboxes = "docker", aviary, data, map[string]int{"python": 0}, remove
		})
	}
	paused := func() int {
		return len(lines(dockerCLI(t, "ps", "--quiet", "--filter", "label=fob.aviary="+aviary, "--filter", "status=paused")))
	}
	r := program(false)
	r.do("PUT", "/api/functions/nap?pause_after=500ms", "calls = 0\ndef callme():\n    global calls\n    calls += 1\n    return calls")
	for n := 1; n <= 3; n++ {
		sent := time.Now()
		r.do("GET", "/api/call/nap", "").wants(t, 200, fmt.Sprintf(`{"result": %d}`, n))
		t.Logf("call %d took %v", n, time.Since(sent).Round(100*time.Microsecond))
		eventually(t, time.Minute, "the sandbox is paused", func() bool { return r.statesOf("nap")["paused"] == 1 && paused() == 1 })
	}
	if metrics := r.do("GET", "/metrics", "").Body; !strings.Contains(metrics, `fob_cold_starts_total{kind="resumed"} 2`) {
		t.Error("the metrics do not say that it was resumed twice")
	}
	r.stop()
	if paused() != 1 {
		t.Fatal("the paused sandbox did not stay")
	}
	r = program(true)
	if n := paused(); n != 0 {
		t.Errorf("%d sandboxes are paused after the start", n)
	}
	// It is the same one: it has gone on counting.
	r.do("GET", "/api/call/nap", "").wants(t, 200, `{"result": 4}`)
}

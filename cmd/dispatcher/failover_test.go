package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// After kill -9 and a new start: the same functions, served by the same
// containers, and no other container left.
func TestDockerKillAndRestart(t *testing.T) {
	aviary := testAviary(t)
	settings := map[string]string{"FOB_DATA": shortDir(t), "FOB_AVIARY": aviary, "FOB_POOL": "python=1,node=1"}
	p := spawn(t, settings)
	p.awaitReady(3 * time.Minute)
	counting := p.gen("?name=counting", "n = 0\ndef callme():\n    global n\n    n += 1\n    return n\n")
	slow := p.gen("?timeout=20s", "import time\ndef callme(s): time.sleep(float(s)); return 'slept'\n")
	p.gen("?lang=node", "function callme() { return 'node' }\n")
	for n := 1; n <= 3; n++ {
		p.do("GET", "/api/call/counting", "").wants(t, 200, fmt.Sprintf(`{"result": %d}`, n))
	}
	// This one still runs when the dispatcher dies: its sandbox is adopted
	// once it is through, and no second call is let in before.
	go p.try("GET", "/api/call/"+slow+"?s=1", "")
	eventually(t, time.Minute, "the slow function runs", func() bool {
		return strings.Contains(p.do("GET", "/api/meta/"+slow, "").Body, `"busy"`)
	})
	sandboxOf := func(ref string) string {
		var meta struct{ Sandboxes []struct{ ID string } }
		json.Unmarshal([]byte(p.do("GET", "/api/meta/"+ref, "").Body), &meta)
		if len(meta.Sandboxes) == 0 {
			return ""
		}
		return meta.Sandboxes[0].ID
	}
	before := p.do("GET", "/api/stats", "").Body
	countingBefore, slowBefore := sandboxOf(counting), sandboxOf(slow)

	p.kill()
	killed := time.Now()
	p = spawn(t, settings)
	p.awaitReady(time.Minute)
	t.Logf("ready %v after the kill, the process's start included", time.Since(killed).Round(time.Millisecond))
	p.do("GET", "/api/stats", "").wants(t, 200, before)
	if after := sandboxOf(counting); after != countingBefore {
		t.Errorf("the function ran in %s, and now in %q", countingBefore, after)
	}
	// It still counts: the same process in the same container.
	p.do("GET", "/api/call/counting", "").wants(t, 200, `{"result": 4}`)
	eventually(t, time.Minute, "the slow function's sandbox is adopted", func() bool { return sandboxOf(slow) == slowBefore })
	p.do("GET", "/api/call/"+slow+"?s=0", "").wants(t, 200, `{"result": "slept"}`)
	eventually(t, time.Minute, "three functions' sandboxes and two blank ones are left", func() bool {
		return len(containers(t, aviary)) == 5
	})

	// SIGTERM leaves the functions' sandboxes, and removes the blank ones.
	p.terminate()
	if left := containers(t, aviary); len(left) != 3 {
		t.Errorf("SIGTERM left %d containers, want 3", len(left))
	}
	p = spawn(t, settings)
	p.awaitReady(time.Minute)
	p.do("GET", "/api/call/counting", "").wants(t, 200, `{"result": 5}`)
	p.terminate()
	settings["FOB_REMOVE_SANDBOXES"] = "true"
	p = spawn(t, settings)
	p.awaitReady(time.Minute)
	p.terminate()
	if left := containers(t, aviary); len(left) != 0 {
		t.Errorf("with FOB_REMOVE_SANDBOXES, SIGTERM left %v", left)
	}
}

// TestDockerRegistrationsSurviveKills registers, kills the dispatcher at a
// random moment and starts it again, round after round. FOBTEST_ROUNDS says
// how many; 40 when it is not set, for make faults does the same at every
// failpoint. The seed of a failure is printed, and FOBTEST_SEED takes it.
func TestDockerRegistrationsSurviveKills(t *testing.T) {
	rounds, seed := envInt("FOBTEST_ROUNDS", 40), envInt("FOBTEST_SEED", int(time.Now().UnixNano()))
	t.Logf("FOBTEST_ROUNDS=%d FOBTEST_SEED=%d", rounds, seed)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	aviary := testAviary(t)
	settings := map[string]string{"FOB_DATA": shortDir(t), "FOB_AVIARY": aviary, "FOB_POOL": "python=1,node=0"}

	var mu sync.Mutex
	acknowledged := map[string]string{} // by name: the version's result
	for round := range rounds {
		p := spawn(t, settings)
		p.awaitReady(3 * time.Minute)
		var clients sync.WaitGroup
		for client := range 3 {
			clients.Go(func() {
				// New functions, and new versions of one function.
				for n := 0; ; n++ {
					name := fmt.Sprintf("f%d-%d-%d", round, client, n)
					if client == 0 {
						name = "same"
					}
					result := fmt.Sprintf("%d/%d/%d", round, client, n)
					a, err := p.try("PUT", "/api/functions/"+name+"?idle_timeout=100ms", fmt.Sprintf("def callme(): return %q", result))
					if err != nil {
						return // killed
					}
					if a.Status/100 == 2 {
						mu.Lock()
						acknowledged[name] = result
						mu.Unlock()
					}
				}
			})
		}
		if round%2 == 0 { // else it may come before anything is acknowledged
			mu.Lock()
			before := len(acknowledged)
			mu.Unlock()
			eventually(t, time.Minute, "something new is acknowledged", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return len(acknowledged) > before
			})
		}
		time.Sleep(time.Duration(random.IntN(int(1500 * time.Millisecond))))
		p.kill()
		clients.Wait()
	}

	p := spawn(t, settings)
	p.awaitReady(time.Minute)
	for name, result := range acknowledged {
		a := p.do("GET", "/api/cs/"+name, "")
		want := fmt.Sprintf("def callme(): return %q", result)
		// A version of "same" that was stored but not acknowledged any more
		// may be the newest.
		if a.Status != 200 || (a.Body != want && name != "same") {
			t.Errorf("%s was acknowledged with %q, and is now %d %q", name, want, a.Status, a.Body)
		}
		if name == "same" && a.Body < want && len(a.Body) == len(want) {
			t.Errorf("same went back from %q to %q", want, a.Body)
		}
	}
	if len(acknowledged) < rounds/4 {
		t.Errorf("only %d registrations were acknowledged in %d rounds: that tests little", len(acknowledged), rounds)
	}
	for name := range acknowledged {
		if name != "same" {
			a := p.do("GET", "/api/call/"+name, "")
			a.wants(t, 200, fmt.Sprintf(`{"result": %q}`, acknowledged[name]))
			break
		}
	}

	// What is left is what was adopted or started since, to the container.
	eventually(t, time.Minute, "only adopted containers, and then the pool's alone, are left", func() bool {
		return len(containers(t, aviary)) == 1+sandboxes(p)
	})
	t.Logf("%d registrations were acknowledged in %d rounds, and none is lost", len(acknowledged), rounds)
	settings["FOB_REMOVE_SANDBOXES"] = "1"
	p.terminate()
}

// sandboxes counts those that functions have.
func sandboxes(p *dispatcherProcess) int {
	n := 0
	for _, line := range strings.Split(p.do("GET", "/metrics", "").Body, "\n") {
		if count, ok := strings.CutPrefix(line, "fob_sandboxes{state="); ok && !strings.HasPrefix(count, `"blank"`) {
			_, text, _ := strings.Cut(count, "} ")
			v, _ := strconv.ParseFloat(text, 64)
			n += int(v)
		}
	}
	return n
}

// A standby serves when the active dispatcher is killed.
func TestDockerStandby(t *testing.T) {
	aviary := testAviary(t)
	data := shortDir(t)
	active := spawn(t, map[string]string{"FOB_DATA": data, "FOB_AVIARY": aviary, "FOB_POOL": "python=1,node=0"})
	active.awaitReady(3 * time.Minute)
	active.do("PUT", "/api/functions/f", "def callme(): return 1")
	standby := spawn(t, map[string]string{"FOB_DATA": data, "FOB_AVIARY": aviary, "FOB_POOL": "python=1,node=0", "FOB_STANDBY": "true"})
	eventually(t, time.Minute, "the standby listens", func() bool { _, err := standby.try("GET", "/healthz", ""); return err == nil })
	standby.do("GET", "/healthz", "").wants(t, 200, `{"status": "ok"}`)
	for _, path := range []string{"/readyz", "/api/call/f", "/api/stats"} {
		a := standby.do("GET", path, "")
		a.wantsProblem(t, 503, "standby")
		if a.Header.Get("Retry-After") == "" {
			t.Errorf("%s on standby has no Retry-After", path)
		}
	}
	active.do("GET", "/api/call/f", "").wants(t, 200, `{"result": 1}`)
	active.kill()
	killed := time.Now()
	eventually(t, time.Minute, "the standby serves", func() bool {
		a, err := standby.try("GET", "/api/call/f", "")
		return err == nil && a.Status == 200
	})
	t.Logf("the standby served %v after the kill", time.Since(killed).Round(time.Millisecond))
}

// SIGTERM lets the calls in flight finish.
func TestDockerDrain(t *testing.T) {
	aviary := testAviary(t)
	p := spawn(t, map[string]string{"FOB_DATA": shortDir(t), "FOB_AVIARY": aviary, "FOB_POOL": "python=1,node=0", "FOB_REMOVE_SANDBOXES": "true"})
	p.awaitReady(3 * time.Minute)
	p.do("PUT", "/api/functions/slow?concurrency=4", "import time\ndef callme(): time.sleep(1); return 'done'")
	answers := make(chan string, 4)
	for range cap(answers) {
		go func() {
			a, err := p.try("GET", "/api/call/slow", "")
			answers <- fmt.Sprint(a.Status, a.Body, err)
		}()
	}
	eventually(t, time.Minute, "four calls run", func() bool {
		return strings.Contains(p.do("GET", "/api/meta/slow", "").Body, `"in_flight": 4`)
	})
	p.terminate()
	for range cap(answers) {
		if answer := <-answers; answer != `200{"result": "done"}<nil>` {
			t.Errorf("a call in flight was answered %s", answer)
		}
	}
	if left := containers(t, aviary); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
}

// TestDockerDeployUnderLoad puts 20 versions while 200 calls a second come in.
func TestDockerDeployUnderLoad(t *testing.T) {
	aviary := testAviary(t)
	r := boot(t, func(c *Config) { c.Engine, c.Aviary, c.Pool = "docker", aviary, map[string]int{"python": 2} })
	code := func(n int) string { return fmt.Sprintf("import time\ndef callme(): time.sleep(.002); return %d", n) }
	r.do("PUT", "/api/functions/f", code(0))

	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	var mu sync.Mutex
	answers := map[string]int{}
	var calls sync.WaitGroup
	stop := make(chan struct{})
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
			calls.Go(func() {
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
	for n := 1; n <= 20; n++ {
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
	r.do("GET", "/api/call/f", "").wants(t, 200, `{"result": 20}`)
	if a := r.do("GET", "/api/call/f", ""); a.Header.Get("Fob-Version") != "21" {
		t.Errorf("version %s is live, want 21", a.Header.Get("Fob-Version"))
	}
	r.do("GET", "/api/call/f@1", "").wants(t, 200, `{"result": 0}`)
	eventually(t, 2*time.Minute, "the replaced versions' sandboxes are gone", func() bool {
		for n := 2; n <= 20; n++ {
			if a := r.do("GET", fmt.Sprintf("/api/meta/f@%d", n), ""); a.Body != `{"host": null, "port": null, "sandboxes": []}` {
				return false
			}
		}
		return true
	})
}

// A sandbox that is too busy to say that it lives is adopted, once it does.
func TestDockerBusyIsAdopted(t *testing.T) {
	aviary := testAviary(t)
	settings := map[string]string{"FOB_DATA": shortDir(t), "FOB_AVIARY": aviary, "FOB_POOL": "python=0,node=1"}
	p := spawn(t, settings)
	p.awaitReady(3 * time.Minute)
	p.do("PUT", "/api/functions/busy?lang=node&timeout=1m", "let n = 0; function callme(ms) { const end = Date.now() + Number(ms); while (Date.now() < end); return ++n }")
	p.do("GET", "/api/call/busy?ms=0", "").wants(t, 200, `{"result": 1}`)
	go p.try("GET", "/api/call/busy?ms=4000", "")
	eventually(t, time.Minute, "the call runs", func() bool {
		return strings.Contains(p.do("GET", "/api/meta/busy", "").Body, `"busy"`)
	})
	p.kill()
	p = spawn(t, settings)
	p.awaitReady(time.Minute)
	eventually(t, time.Minute, "the busy sandbox is adopted", func() bool {
		return strings.Contains(p.do("GET", "/api/meta/busy", "").Body, `"ready"`)
	})
	p.do("GET", "/api/call/busy?ms=0", "").wants(t, 200, `{"result": 3}`)
}

// envInt reads a number from the environment.
func envInt(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// After kill -9 and a new start: the same functions, served by the same
// containers, and no other container left.
func TestDockerKillAndRestart(t *testing.T) {
	t.Parallel()
	aviary := testAviary(t)
	settings := []string{"FOB_DATA=" + shortDir(t), "FOB_AVIARY=" + aviary, "FOB_POOL=python=1,node=1", "FOB_REMOVE_SANDBOXES=false"}
	p := boot(t, settings...)
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
		return p.statesOf(slow)["busy"] == 1
	})
	before := p.do("GET", "/api/stats", "").Body
	countingBefore, slowBefore := p.sandboxIDs(counting), p.sandboxIDs(slow)

	p.kill()
	killed := time.Now()
	p = boot(t, settings...)
	t.Logf("ready %v after the kill, the process's start included", time.Since(killed).Round(time.Millisecond))
	p.do("GET", "/api/stats", "").wants(t, 200, before)
	if after := p.sandboxIDs(counting); after != countingBefore {
		t.Errorf("the function ran in %s, and now in %q", countingBefore, after)
	}
	// It still counts: the same process in the same container.
	p.do("GET", "/api/call/counting", "").wants(t, 200, `{"result": 4}`)
	eventually(t, time.Minute, "the slow function's sandbox is adopted", func() bool { return p.sandboxIDs(slow) == slowBefore })
	p.do("GET", "/api/call/"+slow+"?s=0", "").wants(t, 200, `{"result": "slept"}`)
	eventually(t, time.Minute, "three functions' sandboxes and two blank ones are left", func() bool {
		return len(containers(t, aviary)) == 5
	})

	// SIGTERM leaves the functions' sandboxes, and removes the blank ones.
	p.terminate()
	if left := containers(t, aviary); len(left) != 3 {
		t.Errorf("SIGTERM left %d containers, want 3", len(left))
	}
	p = boot(t, settings...)
	p.do("GET", "/api/call/counting", "").wants(t, 200, `{"result": 5}`)
	p.terminate()
	settings = append(settings, "FOB_REMOVE_SANDBOXES=true")
	p = boot(t, settings...)
	p.terminate()
	if left := containers(t, aviary); len(left) != 0 {
		t.Errorf("with FOB_REMOVE_SANDBOXES, SIGTERM left %v", left)
	}
}

// TestDockerRegistrationsSurviveKills registers, kills the dispatcher at a
// random moment and starts it again, round after round. FOBTEST_ROUNDS says
// how many; 24 when it is not set, for make faults does the same at every
// failpoint. The seed of a failure is printed, and FOBTEST_SEED takes it.
func TestDockerRegistrationsSurviveKills(t *testing.T) {
	t.Parallel()
	rounds, seed := envInt("FOBTEST_ROUNDS", 24), envInt("FOBTEST_SEED", int(time.Now().UnixNano()))
	t.Logf("FOBTEST_ROUNDS=%d FOBTEST_SEED=%d", rounds, seed)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	aviary := testAviary(t)
	settings := []string{"FOB_DATA=" + shortDir(t), "FOB_AVIARY=" + aviary, "FOB_POOL=python=1,node=0"}

	var mu sync.Mutex
	acknowledged := map[string]string{} // by name: the version's result
	for round := range rounds {
		p := boot(t, settings...)
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

	p := boot(t, settings...)
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
		_, used := p.metrics().Sandboxes()
		return len(containers(t, aviary)) == 1+used
	})
	t.Logf("%d registrations were acknowledged in %d rounds, and none is lost", len(acknowledged), rounds)
	p.terminate()
}

// A standby serves when the active dispatcher is killed.
func TestDockerStandby(t *testing.T) {
	t.Parallel()
	aviary := testAviary(t)
	data := shortDir(t)
	active := boot(t, "FOB_DATA="+data, "FOB_AVIARY="+aviary, "FOB_POOL=python=1,node=0")
	active.do("PUT", "/api/functions/f", "def callme(): return 1")
	standby := bootUnready(t, "FOB_DATA="+data, "FOB_AVIARY="+aviary, "FOB_POOL=python=1,node=0", "FOB_STANDBY=true")
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
	t.Parallel()
	aviary := testAviary(t)
	p := boot(t, "FOB_AVIARY="+aviary, "FOB_POOL=python=1,node=0")
	p.do("PUT", "/api/functions/slow?concurrency=4", "import time\ndef callme(): time.sleep(1); return 'done'")
	answers := make(chan string, 4)
	for range cap(answers) {
		go func() {
			a, err := p.try("GET", "/api/call/slow", "")
			answers <- fmt.Sprint(a.Status, a.Body, err)
		}()
	}
	eventually(t, time.Minute, "four calls run", func() bool {
		return p.inFlight("slow") == 4
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

// A sandbox that is too busy to say that it lives is adopted, once it does.
func TestDockerBusyIsAdopted(t *testing.T) {
	t.Parallel()
	aviary := testAviary(t)
	settings := []string{"FOB_DATA=" + shortDir(t), "FOB_AVIARY=" + aviary, "FOB_POOL=python=0,node=1"}
	p := boot(t, settings...)
	p.do("PUT", "/api/functions/busy?lang=node&timeout=1m", "let n = 0; function callme(ms) { const end = Date.now() + Number(ms); while (Date.now() < end); return ++n }")
	p.do("GET", "/api/call/busy?ms=0", "").wants(t, 200, `{"result": 1}`)
	go p.try("GET", "/api/call/busy?ms=4000", "")
	eventually(t, time.Minute, "the call runs", func() bool {
		return p.statesOf("busy")["busy"] == 1
	})
	p.kill()
	p = boot(t, settings...)
	eventually(t, time.Minute, "the busy sandbox is adopted", func() bool {
		return p.statesOf("busy")["ready"] == 1
	})
	p.do("GET", "/api/call/busy?ms=0", "").wants(t, 200, `{"result": 3}`)
}

func TestStandbyTakesOver(t *testing.T) {
	t.Parallel()
	first := boot(t)
	data := first.Data
	id := first.gen("?name=greet", "def callme(): return 1")

	second := bootUnready(t, "FOB_DATA="+data, "FOB_STANDBY=true")
	second.awaitStandby()
	second.do("GET", "/healthz", "").wants(t, 200, `{"status": "ok"}`)
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/readyz", ""},
		{"GET", "/api/call/" + id, ""},
		{"POST", "/api/call/" + id, "{}"},
		{"POST", "/api/gen", "def callme(): return 2"},
		{"PUT", "/api/functions/greet", "def callme(): return 2"},
		{"DELETE", "/api/functions/greet", ""},
		{"GET", "/api/stats", ""},
		{"GET", "/api/functions", ""},
		{"GET", "/api/meta/" + id, ""},
		{"GET", "/api/cs/" + id, ""},
	} {
		a := second.do(c.method, c.path, c.body)
		p := a.wantsProblem(t, 503, "standby")
		if a.Header.Get("Retry-After") == "" || a.Header.Get("Fob-Error") != "platform" || !p.Retryable {
			t.Errorf("%s %s: %v %s", c.method, c.path, a.Header, a.Body)
		}
	}
	for _, path := range []string{"/metrics", "/api/version", "/api/openapi.yaml"} {
		if a := second.do("GET", path, ""); a.Status != http.StatusOK {
			t.Errorf("%s on standby: %d %s", path, a.Status, a.Body)
		}
	}
	first.do("GET", "/api/call/greet", "").wants(t, 200, `{"result": 1}`) // undisturbed

	first.terminate()
	second.awaitReady(time.Minute)
	second.do("GET", "/api/call/greet", "").wants(t, 200, `{"result": 1}`)
	second.do("GET", "/api/stats", "").wants(t, 200, `{"functions": ["`+id+`"]}`)
	if other := second.gen("", "def callme(): return 2"); other == id {
		t.Error("an ID was given twice")
	}
}

func TestTwoWithoutStandby(t *testing.T) {
	t.Parallel()
	first := boot(t)
	said := bootUnready(t, "FOB_DATA="+first.Data).refuses()
	for _, word := range []string{"another dispatcher", "--standby", "FOB_DATA", first.Data} {
		if !strings.Contains(said, word) {
			t.Errorf("%q does not mention %s", said, word)
		}
	}
	if strings.Contains(said, "is ready") {
		t.Errorf("the second one says that it is ready: %s", said)
	}
	first.gen("", "def callme(): return 1")
}

// One that is stopped while it waits has nothing to clear up, and ends well.
func TestStandbyIsStopped(t *testing.T) {
	t.Parallel()
	first := boot(t)
	second := bootUnready(t, "FOB_DATA="+first.Data, "FOB_STANDBY=true")
	second.awaitStandby()
	second.terminate()
	first.gen("", "def callme(): return 1")
}

// Stopped programs leave no sandbox's folder behind.
func TestStopRemovesSandboxes(t *testing.T) {
	t.Parallel()
	r := boot(t)
	r.gen("", "def callme(): return 1")
	sandboxes := func() (found []string) {
		all, err := filepath.Glob(filepath.Join(r.sockets(), "*", "sandbox.json"))
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	if len(sandboxes()) == 0 {
		t.Fatal("there is no sandbox's folder to begin with")
	}
	r.terminate()
	if left := sandboxes(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

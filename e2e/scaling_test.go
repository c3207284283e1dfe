package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestDockerBurst has 64 clients come at once and leave again: only 200s, and
// sandboxes from one to max_scale and back to none.
func TestDockerBurst(t *testing.T) {
	const clients, most = 64, 16
	aviary := testAviary(t)
	r := boot(t, "FOB_AVIARY="+aviary, "FOB_POOL=python=2,node=1")
	r.do("PUT", fmt.Sprintf("/api/functions/burst?max_scale=%d&memory=64MB&stable_window=2s&idle_timeout=3s", most),
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
	for hold := time.Now().Add(3 * time.Second); time.Now().Before(hold); time.Sleep(100 * time.Millisecond) {
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
	t.Parallel()
	aviary, data := testAviary(t), shortDir(t)
	program := func(remove bool) *dispatcher {
		return boot(t, "FOB_AVIARY="+aviary, "FOB_DATA="+data, "FOB_POOL=python=0,node=0", fmt.Sprint("FOB_REMOVE_SANDBOXES=", remove))
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
	r.terminate()
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

// 24 functions called at random with room for 6 sandboxes: every call is
// answered.
func TestDockerEviction(t *testing.T) {
	t.Parallel()
	const functions, callers, calls, most = 24, 4, 12, 6
	aviary := testAviary(t)
	r := boot(t, "FOB_AVIARY="+aviary, "FOB_POOL=python=1,node=0", fmt.Sprint("FOB_MAX_SANDBOXES=", most))
	for n := range functions {
		r.gen(fmt.Sprintf("?name=f%d&memory=64MB", n), fmt.Sprintf("def callme(): return %d\n", n))
	}
	done := make(chan struct{})
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range calls {
				n := rand.IntN(functions)
				a, err := r.try("GET", fmt.Sprintf("/api/call/f%d", n), "")
				if err != nil || a.Status != 200 || a.Body != fmt.Sprintf(`{"result": %d}`, n) {
					t.Errorf("a call of f%d: %d %s, %v", n, a.Status, a.Body, err)
				}
			}
		})
	}
	go func() {
		all.Wait()
		close(done)
	}()
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		case <-time.After(100 * time.Millisecond):
		}
		if n := len(containers(t, aviary)); n > most {
			t.Errorf("there are %d containers, and there may be %d", n, most)
		}
	}
	if n := r.metric("fob_evictions_total"); n < functions-most {
		t.Errorf("%v evictions for %d functions with room for %d", n, functions, most)
	}
	if n := r.metric("fob_sandboxes_limit"); n != most {
		t.Errorf("the metrics say that there may be %v sandboxes", n)
	}
}

// 500 simultaneous first calls of one function without a pool start one
// sandbox, and no other before that has loaded.
func TestDockerFirstCallsShareAStart(t *testing.T) {
	aviary := testAviary(t)
	r := boot(t, "FOB_AVIARY="+aviary, "FOB_POOL=python=0,node=0")
	id := r.gen("?idle_timeout=100ms&max_scale=3", "import time\ntime.sleep(2)\ndef callme(): return 1\n")
	eventually(t, time.Minute, "the idle sandbox is removed", func() bool { return len(containers(t, aviary)) == 0 })
	const creates = `fob_engine_call_seconds_count{call="create"}`
	before := r.metric(creates)

	answered := make(chan error, 500)
	for range cap(answered) {
		go func() {
			a, err := r.try("GET", "/api/call/"+id, "")
			if err == nil && (a.Status != 200 || a.Body != `{"result": 1}`) {
				err = fmt.Errorf("%d %s", a.Status, a.Body)
			}
			answered <- err
		}()
	}
	most := 0
	for len(answered) == 0 { // the load takes 2 s, and further starts would show
		n := len(containers(t, aviary))
		if created := r.metric(creates) - before; len(answered) == 0 {
			most = max(most, n, int(created))
		}
	}
	if most != 1 {
		t.Errorf("%d sandboxes were started before the first call was answered, want 1", most)
	}
	for range cap(answered) {
		if err := <-answered; err != nil {
			t.Error(err)
		}
	}
	t.Logf("%v sandboxes were created for %d calls", r.metric(creates)-before, cap(answered))
}

// Twice as many calls as can be served come in, whether or not answers go out.
// What is served is nearly as much as at the peak, and not late; the rest is
// refused, and told when to come again.
func TestDockerOverload(t *testing.T) {
	p := boot(t, "FOB_AVIARY="+testAviary(t), "FOB_POOL=python=2,node=0")
	const (
		sandboxes = 4
		run       = 50 * time.Millisecond
		wait      = 500 * time.Millisecond
		peak      = int(sandboxes * time.Second / run) // calls a second
		seconds   = 6
	)
	p.gen("?name=nap&queue=1000&max_scale="+strconv.Itoa(sandboxes)+"&min_scale="+strconv.Itoa(sandboxes)+"&queue_timeout="+wait.String(),
		"import time\ndef callme(): time.sleep(0.05)\n")
	eventually(t, time.Minute, "all sandboxes are there", func() bool {
		return p.statesOf("nap")["ready"] == sandboxes
	})
	type outcome struct {
		status int
		retry  string
		took   time.Duration
	}
	var mu sync.Mutex
	var outcomes []outcome
	var calls sync.WaitGroup
	var failed atomic.Int64
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2000}}
	ticker := time.NewTicker(time.Second / time.Duration(2*peak))
	defer ticker.Stop()
	for range 2 * peak * seconds {
		<-ticker.C
		calls.Go(func() {
			begun := time.Now()
			response, err := client.Get(p.URL + "/api/call/nap")
			if err != nil {
				failed.Add(1)
				return
			}
			response.Body.Close()
			mu.Lock()
			defer mu.Unlock()
			outcomes = append(outcomes, outcome{response.StatusCode, response.Header.Get("Retry-After"), time.Since(begun)})
		})
	}
	calls.Wait()
	client.CloseIdleConnections()
	var served []time.Duration
	refused := 0
	for _, o := range outcomes {
		switch {
		case o.status == http.StatusOK:
			served = append(served, o.took)
		case (o.status == http.StatusTooManyRequests || o.status == http.StatusServiceUnavailable) && o.retry != "":
			refused++
		default:
			t.Fatalf("answered %d with Retry-After %q", o.status, o.retry)
		}
	}
	slices.Sort(served)
	goodput := float64(len(served)) / float64(peak*seconds)
	t.Logf("%d served (%.0f %% of the peak), %d refused; p50 %v, p99 %v, max %v", len(served), 100*goodput, refused,
		served[len(served)/2], served[len(served)*99/100], served[len(served)-1])
	if failed.Load() > 0 || refused == 0 || goodput < 0.8 {
		t.Errorf("%d calls failed, %d were refused, and the goodput is %.2f of the peak", failed.Load(), refused, goodput)
	}
	// Generous, for the machine is as busy as can be.
	if p99 := served[len(served)*99/100]; p99 > wait+run+time.Second {
		t.Errorf("p99 is %v, with calls that wait %v and run %v at most", p99, wait, run)
	}
}

// A sandbox's limit of processes and threads leaves room for all the calls that
// concurrency lets in.
func TestDockerConcurrency(t *testing.T) {
	t.Parallel()
	const calls = 100
	aviary := testAviary(t)
	r := boot(t, "FOB_AVIARY="+aviary)
	r.do("PUT", fmt.Sprintf("/api/functions/f?concurrency=%d&max_scale=1", calls), `
import threading
together = threading.Barrier(100)
def callme(): return together.wait(60) >= 0
`)
	answers := make(chan string, calls)
	for range calls {
		go func() {
			a, err := r.try("GET", "/api/call/f", "")
			answers <- fmt.Sprint(a.Status, a.Body, err)
		}()
	}
	for range calls {
		if answer := <-answers; answer != `200{"result": true}<nil>` {
			t.Fatalf("answered %s", answer)
		}
	}
}

// A sandbox from the pool gives a function all the memory that it asked for,
// whatever the sandbox had when its interpreter started.
func TestDockerPooledMemory(t *testing.T) {
	t.Parallel()
	aviary := testAviary(t)
	r := boot(t, "FOB_AVIARY="+aviary)
	eventually(t, time.Minute, "the pools are full", func() bool {
		return r.blank() == 2
	})
	for lang, code := range map[string]string{
		"python": "def callme(): return len([float(n) for n in range(10_000_000)])",
		"node":   "function callme() { const all = []; for (let i = 0; i < 100; i++) all.push(new Array(500_000).fill(i + .5)); return all.length }",
	} {
		r.do("PUT", "/api/functions/"+lang+"?memory=1GB&lang="+lang, code)
		if a := r.do("GET", "/api/call/"+lang, ""); a.Status != 200 {
			t.Errorf("%s with 1 GB: %d %s", lang, a.Status, a.Body)
		}
	}
	if got := r.do("GET", "/metrics", "").Body; !strings.Contains(got, `fob_cold_starts_total{kind="pooled"} 2`) {
		t.Error("the sandboxes were not from the pool")
	}
}

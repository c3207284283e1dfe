package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// metric returns the value of one line of /metrics, 0 when there is none.
func (r *running) metric(name string) float64 {
	r.t.Helper()
	for line := range strings.Lines(r.do("GET", "/metrics", "").Body) {
		if text, found := strings.CutPrefix(line, name+" "); found {
			value, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				r.t.Fatalf("%s: %v", line, err)
			}
			return value
		}
	}
	return 0
}

// 40 functions called at random with room for 8 sandboxes: every call is
// answered.
func TestDockerEviction(t *testing.T) {
	const functions, callers, calls, most = 40, 4, 12, 8
	aviary := testAviary(t)
	r := boot(t, func(c *Config) {
		c.Engine, c.Aviary = "docker", aviary
		c.Pool = map[string]int{"python": 1}
		c.MaxSandboxes = most
	})
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
	r := boot(t, func(c *Config) {
		c.Engine, c.Aviary = "docker", aviary
		c.Pool = map[string]int{"python": 0}
	})
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

package main

import (
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Twice as many calls as can be served come in, whether or not answers go out.
// What is served is nearly as much as at the peak, and not late; the rest is
// refused, and told when to come again.
func TestDockerOverload(t *testing.T) {
	p := boot(t, func(c *Config) {
		c.Engine = "docker"
		c.Pool = map[string]int{"python": 2}
	})
	const (
		sandboxes = 4
		run       = 50 * time.Millisecond
		wait      = 500 * time.Millisecond
		peak      = int(sandboxes * time.Second / run) // calls a second
		seconds   = 10
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

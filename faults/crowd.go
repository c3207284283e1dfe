package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// crowd has many come at once, deploys under load, and calls at the moments when
// sandboxes go.
func crowd(t *trial) error {
	d, err := t.prepare(t.program, "c", "FOB_POOL=python=2,node=0")
	if err != nil {
		return err
	}
	defer d.remove(t.engine)
	d.client.Transport = &http.Transport{MaxIdleConnsPerHost: 600}
	if err := d.boot(); err != nil {
		return err
	}
	for _, part := range []func(*trial, *dispatcher) error{firstCalls, deploys, scaleDown} {
		if err := part(t, d); err != nil {
			return err
		}
	}
	return d.stop()
}

// starts is how many sandboxes have come to take calls.
func starts(d *dispatcher) (int, error) {
	metrics, err := d.metrics()
	return int(sum(metrics, "fob_cold_starts_total{")), err
}

// firstCalls has 500 clients call a function that has no sandbox.
func firstCalls(t *trial, d *dispatcher) error {
	const clients = 500
	for _, c := range []struct {
		name, code string
		bound      int // max_scale
	}{{"short", "def callme(): return 1", 4}, {"slow", "import time\ndef callme(): time.sleep(.02); return 1", 4}} {
		most := 0
		for range pick(t.faults, 5, 1) {
			path := fmt.Sprintf("/api/functions/%s?max_scale=%d&idle_timeout=100ms&stable_window=1s&start_timeout=2m&queue_timeout=2m", c.name, c.bound)
			if _, err := d.ask("PUT", path, c.code); err != nil {
				return err
			}
			if err := d.await(time.Minute, "it has no sandbox", func() bool {
				ids, err := d.running(c.name)
				return err == nil && len(ids) == 0
			}); err != nil {
				return err
			}
			before, err := starts(d)
			if err != nil {
				return err
			}
			var mu sync.Mutex
			outcomes := map[string]int{}
			var all sync.WaitGroup
			begin := make(chan struct{})
			for range clients {
				all.Go(func() {
					<-begin
					a, err := d.do("GET", "/api/call/"+c.name, "")
					mu.Lock()
					defer mu.Unlock()
					if ok(a, err) {
						outcomes["200"]++
					} else {
						outcomes[fmt.Sprintf("%d %.200s %v", a.Status, a.Body, err)]++
					}
				})
			}
			close(begin)
			all.Wait()
			after, err := starts(d)
			if err != nil {
				return err
			}
			t.history.note("crowd", "function", c.name, "outcomes", outcomes, "starts", after-before)
			if outcomes["200"] != clients {
				t.violate("%d first calls of the %s function: %v", clients, c.name, outcomes)
			}
			if most = max(most, after-before); after-before > c.bound {
				t.violate("%d first calls of the %s function started %d sandboxes, and max_scale is %d", clients, c.name, after-before, c.bound)
			}
		}
		t.figure("%d first calls of a %s function started at most %d sandboxes (bound: max_scale, %d)", clients, c.name, most, c.bound)
	}
	return nil
}

// deploys puts new versions while 200 calls a second come in.
func deploys(t *trial, d *dispatcher) error {
	code := func(n int) string { return fmt.Sprintf("import time\ndef callme(): time.sleep(.002); return %d", n) }
	const path = "/api/functions/deployed"
	if _, err := d.ask("PUT", path, code(0)); err != nil {
		return err
	}
	load := d.steadily("/api/call/deployed", time.Second/200, ok)
	versions := pick(t.faults, 40, 8)
	for n := 1; n <= versions; n++ {
		if _, err := d.ask("PUT", path, code(n)); err != nil {
			t.violate("%v", err)
		}
	}
	total := load.stop("deploys under load")
	t.figure("%d calls answered 200 during %d deploys", total, versions)
	_, err := d.ask("DELETE", path, "")
	return err
}

// scaleDown calls a function at any moment around those when its sandboxes go.
func scaleDown(t *trial, d *dispatcher) error {
	const most = 4
	path := fmt.Sprintf("/api/functions/leaving?max_scale=%d&idle_timeout=50ms&stable_window=1s", most)
	if _, err := d.ask("PUT", path, "import time\ndef callme(): time.sleep(.01); return 1"); err != nil {
		return err
	}
	before, err := starts(d)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	calls := 0
	until := time.Now().Add(pick(t.faults, time.Minute, 8*time.Second))
	var all sync.WaitGroup
	for range 3 {
		pauses := make([]time.Duration, 0, 1000) // the randomness is one goroutine's
		for range cap(pauses) {
			pauses = append(pauses, time.Duration(t.random.IntN(1500))*time.Millisecond)
		}
		all.Go(func() {
			for n := 0; time.Now().Before(until); n++ {
				time.Sleep(pauses[n%len(pauses)])
				a, err := d.do("GET", "/api/call/leaving", "")
				if !ok(a, err) {
					t.violate("scale-down: %d %s %v", a.Status, a.Body, err)
				}
				mu.Lock()
				calls++
				mu.Unlock()
			}
		})
	}
	peak := 0
	for time.Now().Before(until) {
		text, err := d.ask("GET", "/api/meta/leaving", "")
		if err == nil {
			peak = max(peak, strings.Count(text, `"id"`)-strings.Count(text, `"draining"`))
		}
		time.Sleep(20 * time.Millisecond)
	}
	all.Wait()
	after, err := starts(d)
	if err != nil {
		return err
	}
	t.figure("%d calls answered 200 while sandboxes went and %d came, %d at a time at most (bound: max_scale, %d)", calls, after-before, peak, most)
	if peak > most {
		t.violate("there were %d sandboxes, and max_scale is %d", peak, most)
	}
	return nil
}

package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// crowding is the state of the row crowd.
type crowding struct {
	*trial
	d *dispatcher

	sent, good atomic.Int64
	told       atomic.Int64 // calls that went wrong; the first ten are reported
}

// crowd has many calls come at once: to a function without a sandbox, during deploys,
// and at the moments when idle sandboxes are removed. It tries the last with plain
// processes, too.
func crowd(t *trial) error {
	if err := t.tests("./internal/dispatch", "^TestRealChurn$", `(\d+ sandboxes were loaded)`, fmt.Sprintf("FOBTEST_CALLS=%d", pick(t.faults, 10_000, 500))); err != nil {
		return err
	}
	d, err := t.prepare(t.program, "c", "FOB_POOL=python=2,node=0", "FOB_MAX_SANDBOXES=60", "FOB_REMOVE_SANDBOXES=true")
	if err != nil {
		return err
	}
	defer d.remove(t.engine)
	// Each call of a crowd may need a connection.
	d.HTTP = &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 512}}
	if err := d.boot(); err != nil {
		return err
	}
	c := &crowding{trial: t, d: d}
	for _, part := range []func() error{c.firstCalls, c.deploys, c.scaleDowns} {
		if err := part(); err != nil {
			return err
		}
	}
	if err := c.end(); err != nil {
		return err
	}
	t.figure("%d calls in all, %d of them dropped or not answered 200", c.sent.Load(), c.sent.Load()-c.good.Load())
	return nil
}

// call makes a call that must be answered 200, and returns the answer's body.
func (c *crowding) call(what, path string) (string, bool) {
	c.sent.Add(1)
	a, err := c.d.Do("GET", path, "")
	if err == nil && a.Status == 200 {
		c.good.Add(1)
		return a.Body, true
	}
	c.wrong("%s: GET %s is answered %d %.300s, %v", what, path, a.Status, a.Body, err)
	return "", false
}

// wrong reports a call that went wrong.
func (c *crowding) wrong(format string, args ...any) {
	if c.told.Add(1) <= 10 {
		c.violate(format, args...)
	}
}

// firstCalls sends 500 calls at once to a function without a sandbox.
func (c *crowding) firstCalls() error {
	const calls, most = 500, 8 // calls of 50 ms; the function would like to have more sandboxes
	settings := fmt.Sprintf("?max_scale=%d&memory=64MB&idle_timeout=500ms", most)
	if err := c.d.Put("first"+settings, "import time\ndef callme(n): time.sleep(.05); return n"); err != nil {
		return err
	}
	rounds := pick(c.faults, 10, 1)
	highest, slowest := 0.0, time.Duration(0)
	for range rounds {
		if err := c.awaitNone("first"); err != nil {
			return err
		}
		before, err := c.d.Metrics()
		if err != nil {
			return err
		}
		begun := time.Now()
		gate := make(chan struct{})
		var all sync.WaitGroup
		for n := range calls {
			all.Go(func() {
				<-gate
				body, ok := c.call("first calls", fmt.Sprintf("/api/call/first?n=%d", n))
				if want := fmt.Sprintf(`{"result": "%d"}`, n); ok && body != want {
					c.wrong("first calls: call %d is answered %s", n, body)
				}
			})
		}
		close(gate)
		all.Wait()
		slowest = max(slowest, time.Since(begun))
		after, err := c.d.Metrics()
		if err != nil {
			return err
		}
		// Each start takes a sandbox from the pool or creates one, and the pool makes
		// one for each that was taken.
		started := after.Sum("fob_cold_starts_total") - before.Sum("fob_cold_starts_total")
		creates := after[engineCreates] - before[engineCreates]
		c.history.note("first calls", "started", started, "creates", creates, "ms", time.Since(begun).Milliseconds())
		if started < 1 || started > most {
			c.violate("first calls: %v sandboxes came to take %d calls, and max_scale is %d", started, calls, most)
		}
		if creates > most {
			c.violate("first calls: the engine created %v sandboxes, and max_scale is %d", creates, most)
		}
		highest = max(highest, started)
	}
	c.figure("%d × %d simultaneous first calls: all answered within %.1f s, at most %.0f sandboxes started with max_scale=%d", rounds, calls, slowest.Seconds(), highest, most)
	return nil
}

const engineCreates = `fob_engine_call_seconds_count{call="create"}`

// awaitNone waits until a function has no sandbox and the pool is full.
func (c *crowding) awaitNone(ref string) error {
	return c.d.Await(time.Minute, ref+" has no sandbox, and the pool is full", func() bool {
		ids, err := c.d.Running(ref)
		if err != nil || len(ids) > 0 {
			return false
		}
		m, err := c.d.Metrics()
		return err == nil && m.Sum("fob_pool_size") == m.Sum("fob_pool_target") && m.Sum("fob_sandboxes{") == m.Sum("fob_pool_size")
	})
}

// deploys puts versions under 200 calls a second. Each call must be answered by a
// version that was live while the call was made.
func (c *crowding) deploys() error {
	const every = time.Second / 200
	put := func(version int) error {
		err := c.d.Put("changing?memory=64MB&idle_timeout=500ms", fmt.Sprintf("def callme(): return %d", version))
		return err
	}
	if err := put(1); err != nil {
		return err
	}
	var asked, live atomic.Int64 // the newest version that may be live, and the newest that must be
	asked.Store(1)
	live.Store(1)
	over := make(chan struct{})
	var calls, late int
	var clients sync.WaitGroup
	clients.Go(func() {
		var all sync.WaitGroup
		defer all.Wait()
		begun := time.Now()
		for {
			if wait := time.Until(begun.Add(time.Duration(calls) * every)); wait > 0 {
				select {
				case <-over:
					return
				case <-time.After(wait):
				}
			} else if wait < -time.Second/4 {
				// The machine did not let us run. Do not send everything that was
				// missed at once.
				begun, late = begun.Add(-wait), late+1
			}
			select {
			case <-over:
				return
			default:
			}
			calls++
			all.Go(func() {
				oldest := live.Load()
				body, ok := c.call("deploys", "/api/call/changing")
				newest := asked.Load()
				var version int64
				if _, err := fmt.Sscanf(body, `{"result": %d}`, &version); ok && (err != nil || version < oldest || version > newest) {
					c.wrong("deploys: a call is answered %s, and the versions %d to %d were live during it", body, oldest, newest)
				}
			})
		}
	})
	begun := time.Now()
	versions := pick(c.faults, 20, 5)
	var failed error
	for version := 2; version <= versions+1 && failed == nil; version++ {
		time.Sleep(500*time.Millisecond + time.Duration(c.random.IntN(500))*time.Millisecond)
		asked.Store(int64(version))
		if failed = put(version); failed == nil {
			live.Store(int64(version))
		}
	}
	time.Sleep(500 * time.Millisecond)
	close(over)
	clients.Wait()
	took := time.Since(begun)
	c.history.note("deploys", "versions", versions, "calls", calls, "late", late)
	c.figure("%d deploys under %.0f calls/s: %d calls, each answered by a version that was live", versions, float64(calls)/took.Seconds(), calls)
	return failed
}

// scaleDowns calls functions at random moments. Their sandboxes are removed as soon as
// the scaler finds them idle.
func (c *crowding) scaleDowns() error {
	const functions, clients = 6, 2 // clients for each function
	for n := range functions {
		if err := c.d.Put(fmt.Sprintf("brief%d?memory=64MB&idle_timeout=1ms&max_scale=2", n), "def callme(n): return n"); err != nil {
			return err
		}
	}
	const stopDecisions = `fob_scaler_decisions_total{decision="stop"}`
	before, err := c.d.Metrics()
	if err != nil {
		return err
	}
	calls, stops := pick(c.faults, int64(5000), 500), pick(c.faults, 100.0, 10)
	begun := time.Now()
	var made atomic.Int64
	var enough atomic.Bool
	var all sync.WaitGroup
	for client := range functions * clients {
		random := rand.New(rand.NewPCG(c.random.Uint64(), 0))
		all.Go(func() {
			for !enough.Load() {
				n := made.Add(1)
				body, ok := c.call("scale-downs", fmt.Sprintf("/api/call/brief%d?n=%d", client%functions, n))
				if want := fmt.Sprintf(`{"result": "%d"}`, n); ok && body != want {
					c.wrong("scale-downs: call %d is answered %s", n, body)
				}
				time.Sleep(time.Duration(random.IntN(30_000)) * time.Microsecond)
			}
		})
	}
	var stopped float64
	for stopped < stops || made.Load() < calls {
		if time.Since(begun) > 5*time.Minute {
			c.violate("scale-downs: after 5 minutes only %v sandboxes were stopped and %d calls made: that tests little", stopped, made.Load())
			break
		}
		time.Sleep(100 * time.Millisecond)
		m, err := c.d.Metrics()
		if err != nil {
			c.violate("scale-downs: %v", err)
			break
		}
		stopped = m[stopDecisions] - before[stopDecisions]
	}
	enough.Store(true)
	all.Wait()
	c.history.note("scale-downs", "calls", made.Load(), "stopped", stopped)
	c.figure("idle_timeout=1ms: %d calls at random gaps while %.0f sandboxes went", made.Load(), stopped)
	return nil
}

// end checks that all sandboxes but the pool's are removed, and then the pool's, too.
func (c *crowding) end() error {
	var left []string
	if err := c.d.Await(time.Minute, "only the pool is left", func() bool {
		m, err := c.d.Metrics()
		if err != nil {
			return false
		}
		left, err = c.engine.sandboxes(c.d.aviary)
		return err == nil && len(left) == int(m.Sum("fob_pool_target")) && int(m.Sum("fob_pool_size")) == len(left)
	}); err != nil {
		c.violate("the sandboxes %v are left: %v", left, err)
	}
	if err := c.d.stop(); err != nil {
		return err
	}
	blank := len(left)
	left, err := c.engine.sandboxes(c.d.aviary)
	if err == nil && len(left) > 0 {
		c.violate("after the end the sandboxes %v are left", left)
	}
	c.figure("left at the end: the %d of the pool, and none once it has ended", blank)
	return err
}

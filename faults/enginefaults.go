package main

import (
	"fmt"
	"syscall"
	"time"

	"github.com/flockofbirds/fob/internal/client"
)

// engineFaults harms an engine of our own: it is killed, restarted, stopped, and
// restarted in such a way that its sandboxes end with it.
func engineFaults(t *trial) error {
	o, err := t.startOwn()
	if err != nil {
		return err
	}
	d, err := t.prepare(t.program, "e", "DOCKER_HOST="+o.host, "FOB_POOL=python=0,node=0")
	if err != nil {
		return err
	}
	defer d.remove(o.engine)
	if err := d.boot(); err != nil {
		return err
	}
	if err := d.Put("warm?min_scale=1&concurrency=20", "def callme(): return 'warm'"); err != nil {
		return err
	}
	down := pick(t.faults, 4*time.Second, 1500*time.Millisecond)
	calls, refusals, slowest := 0, 0, time.Duration(0)
	for round := range pick(t.faults, 4, 1) {
		for _, f := range []struct {
			name  string
			lives bool // the sandboxes survive
			harm  func() error
			mend  func() error
		}{
			{"killed", true, func() error { o.kill(); return nil }, func() error { return o.up() }},
			{"restarted", true, o.stop, func() error { return o.up() }},
			{"stopped", true, func() error { return o.cmd.Process.Signal(syscall.SIGSTOP) }, func() error { return o.cmd.Process.Signal(syscall.SIGCONT) }},
			{"restarted, and its sandboxes with it", false, func() error {
				// The engine reads at its start whether to take them with it.
				if err := o.stop(); err != nil {
					return err
				}
				if err := o.up(stopsThem); err != nil {
					return err
				}
				return o.stop()
			}, func() error { return o.up() }},
		} {
			what := fmt.Sprintf("the engine is %s, round %d", f.name, round)
			progress("engine: %s", what)
			// This one will need a new sandbox.
			if err := d.Put("cold?idle_timeout=100ms&start_timeout=1s", fmt.Sprintf("def callme(): return %d", round)); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			if err := d.Await(time.Minute, "the cold function has no sandbox", func() bool {
				ids, err := d.Running("cold")
				return err == nil && len(ids) == 0
			}); err != nil {
				return err
			}
			// This one is deleted meanwhile.
			if err := d.Put("doomed", "def callme(): return 1"); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			fine := ok
			if !f.lives { // calls that were in a sandbox when it ended get 502
				fine = func(a client.Answer, err error) bool {
					return ok(a, err) || refused(a, err) || err == nil && a.Status == 502
				}
			}
			warm := d.steadily("/api/call/warm", 20*time.Millisecond, fine)
			t.history.note("harm", "what", what)
			if err := f.harm(); err != nil {
				return err
			}
			if a, err := d.Do("DELETE", "/api/functions/doomed", ""); err != nil || a.Status != 204 {
				t.violate("%s: a deletion is answered %d %s, %v", what, a.Status, a.Body, err)
			}
			if f.name != "stopped" { // a stopped engine cannot be told from a slow one at once
				if err := d.Await(10*time.Second, "/readyz is 503", func() bool { return refused(d.Do("GET", "/readyz", "")) }); err != nil {
					t.violate("%s: %v", what, err)
				}
			}
			for begun := time.Now(); time.Since(begun) < down; time.Sleep(100 * time.Millisecond) {
				a, err := d.Do("GET", "/api/call/cold", "")
				t.history.note("cold call", "status", a.Status, "body", a.Body, "error", err)
				if !refused(a, err) {
					t.violate("%s: what needs a new sandbox is answered %d %s, %v", what, a.Status, a.Body, err)
				}
				refusals++
				if f.name == "stopped" { // a registration would wait as long as its client does
					continue
				}
				a, err = d.Do("PUT", "/api/functions/more", "def callme(): return 'more'")
				t.history.note("registration", "status", a.Status, "body", a.Body, "error", err)
				if !refused(a, err) {
					t.violate("%s: a registration is answered %d %s, %v", what, a.Status, a.Body, err)
				}
				refusals++
			}
			if err := f.mend(); err != nil {
				return err
			}
			t.history.note("mended", "what", what)
			mended := time.Now()
			for _, path := range []string{"/api/call/warm", "/api/call/cold", "/readyz"} {
				if err := d.Await(reconcilePatience-time.Since(mended), path+" is 200", func() bool { return ok(d.Do("GET", path, "")) }); err != nil {
					t.violate("%s: %v", what, err)
				}
			}
			if _, err := d.reconciled(o.engine, "warm", "cold"); err != nil {
				t.violate("%s: %v", what, err)
			}
			took := time.Since(mended)
			if took > reconcilePatience {
				t.violate("%s: reconciled only after %v", what, took)
			}
			slowest = max(slowest, took)
			calls += warm.stop(what)
			// The function is new in each round, to keep its versions few.
			if err := d.Delete("cold"); err != nil {
				return err
			}
		}
	}
	t.figure("%d refusals with Retry-After, %d calls of a living sandbox", refusals, calls)
	t.figure("reconciled at most %.1f s after the engine was back", slowest.Seconds())
	return d.stop()
}

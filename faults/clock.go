package main

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"
)

// clock moves the machine's wall clock by an hour, forward and back, for a
// moment each, while functions are called, wait and are idle.
func clock(t *trial) error {
	d, err := t.prepare(t.program, "t", "FOB_POOL=python=2,node=0")
	if err != nil {
		return err
	}
	defer d.remove(t.engine)
	if err := d.boot(); err != nil {
		return err
	}
	for _, f := range []struct{ name, settings, code string }{
		{"warm", "concurrency=20", "def callme(): return 1"},
		{"idle", "idle_timeout=10m&stable_window=10m", "def callme(): return 1"},
		{"paused", "pause_after=10m", "def callme(): return 1"},
		{"queue", "max_scale=1&queue_timeout=1m&timeout=1m", "import time\ndef callme(): time.sleep(.2); return 1"},
	} {
		if _, err := d.ask("PUT", "/api/functions/"+f.name+"?"+f.settings, f.code); err != nil {
			return err
		}
	}
	refs := []string{"warm", "idle", "paused", "queue"}
	if _, err := d.reconciled(t.engine, refs...); err != nil {
		return err
	}
	before, err := t.engine.sandboxes(d.aviary)
	if err != nil {
		return err
	}
	first, err := d.metrics()
	if err != nil {
		return err
	}
	load := []*steady{
		d.steadily("/api/call/warm", 10*time.Millisecond, func(a answer, err error) bool {
			return ok(a, err) && !strings.Contains(a.Header.Get("Server-Timing"), "=-")
		}),
		d.steadily("/api/call/queue", 250*time.Millisecond, ok), // some wait
	}
	hold := pick(t.faults, 3*time.Second, 1500*time.Millisecond) // the dispatcher looks at what is idle each second
	rounds := pick(t.faults, 3, 1)
	for range rounds {
		for _, by := range []time.Duration{time.Hour, -time.Hour} {
			time.Sleep(hold)
			t.history.note("jump", "by", by.String())
			if err := jumped(by, hold); err != nil {
				return err
			}
			t.history.note("jumped back")
		}
	}
	time.Sleep(hold)
	calls := 0
	for _, s := range load {
		calls += s.stop("the clock jumped")
	}
	if _, err := d.reconciled(t.engine, refs...); err != nil {
		t.violate("%v", err)
	}
	after, err := t.engine.sandboxes(d.aviary)
	if err != nil {
		return err
	}
	if !slices.Equal(before, after) {
		t.violate("the sandboxes were %v, and are %v", before, after)
	}
	last, err := d.metrics()
	if err != nil {
		return err
	}
	for name, value := range last {
		family, _, _ := strings.Cut(name, "{")
		switch {
		case value < 0:
			t.violate("%s is %v", name, value)
		case value < first[name] && (strings.HasSuffix(family, "_total") || strings.HasSuffix(family, "_sum") || strings.HasSuffix(family, "_count")):
			t.violate("%s was %v, and is %v", name, first[name], value)
		}
	}
	for _, prefix := range []string{"fob_evictions_total", "fob_cold_starts_total{", "fob_scaler_decisions_total{", "fob_calls_throttled_total{"} {
		if was, is := sum(first, prefix), sum(last, prefix); was != is {
			t.violate("%s went from %v to %v", prefix, was, is)
		}
	}
	t.figure("%d jumps of an hour, %d calls, %d sandboxes before and %d after", 2*rounds, calls, len(before), len(after))
	return d.stop()
}

// jumped has the wall clock be wrong for that long. The monotonic clock, which
// nobody can set, says what to set it back to.
func jumped(by, hold time.Duration) (err error) {
	begun := time.Now()
	set := func(now time.Time) error {
		tv := syscall.NsecToTimeval(now.UnixNano())
		if err := syscall.Settimeofday(&tv); err != nil {
			return fmt.Errorf("setting the clock: %w (this row takes root, and a machine whose clock may be set; choose the others with -only)", err)
		}
		return nil
	}
	right := func() time.Time { return begun.Add(time.Since(begun)) }
	if err := set(right().Add(by)); err != nil {
		return err
	}
	defer func() { err = set(right()) }()
	time.Sleep(hold)
	return nil
}

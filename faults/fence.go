package main

import (
	"fmt"
	"sync"
	"syscall"
	"time"
)

// fence stops the active dispatcher in the middle of changes, and continues it once the
// standby has taken over.
func fence(t *trial) error {
	var took time.Duration
	acknowledged, unheard := 0, 0
	rounds := pick(t.faults, 10, 2)
	for round := range rounds {
		active, err := t.prepare(t.program, fmt.Sprintf("fence%d", round), "FOB_POOL=python=0,node=0")
		if err != nil {
			return err
		}
		defer active.remove(t.engine)
		standby, err := active.twin("FOB_STANDBY=true", "FOB_TAKEOVER_AFTER=2s")
		if err != nil {
			return err
		}
		defer standby.remove(t.engine)
		if err := active.boot(); err != nil {
			return err
		}
		if err := standby.start(); err != nil {
			return err
		}
		// Functions that are switched off need no sandbox to change their settings, so
		// changes come as fast as the disk takes them.
		w := &fenced{t: t, active: active}
		for n := range 4 {
			if err := active.Put(fmt.Sprintf("f%d?max_concurrency=0", n), "def callme(): return 1"); err != nil {
				return err
			}
			w.writers.Go(func() { w.write(n) })
		}
		time.Sleep(time.Duration(300+t.random.IntN(500)) * time.Millisecond)
		t.history.note("stop")
		active.Signal(syscall.SIGSTOP)
		stopped := time.Now()
		if err := standby.Await(time.Minute, "the standby serves", func() bool {
			_, err := standby.Ask("GET", "/readyz", "")
			return err == nil
		}); err != nil {
			return err
		}
		took = max(took, time.Since(stopped))
		before, err := w.found(standby)
		if err != nil {
			return err
		}
		t.history.note("continue")
		active.Signal(syscall.SIGCONT)
		w.writers.Wait() // each gets an error, because the connection breaks
		time.Sleep(500 * time.Millisecond)
		after, err := w.found(standby)
		if err != nil {
			return err
		}
		for n := range 4 {
			if before[n] != after[n] {
				t.violate("f%d had version %d after the takeover, and has %d after the old dispatcher went on", n, before[n], after[n])
			}
			if after[n] < w.acked[n] || after[n] > w.acked[n]+1 {
				t.violate("version %d of f%d was acknowledged last, and %d is there", w.acked[n], n, after[n])
			}
			acknowledged += w.acked[n] - 1
			unheard += after[n] - w.acked[n]
		}
		if !active.Over() {
			t.violate("the dispatcher that was stopped still runs")
		}
		active.dying.Store(true)
		if err := standby.stop(); err != nil {
			return err
		}
		progress("fence: round %d of %d: %d changes acknowledged so far", round+1, rounds, acknowledged)
	}
	t.figure("%d rounds: %d changes acknowledged, %d unheard ones done, %d lost or landed later", rounds, acknowledged, unheard, len(t.violations))
	t.figure("the standby served %.1f s after the stop at most, with FOB_TAKEOVER_AFTER=2s", took.Seconds())
	return nil
}

// fenced writes to a dispatcher that is stopped meanwhile.
type fenced struct {
	t       *trial
	active  *dispatcher
	writers sync.WaitGroup
	acked   [4]int // versions, by function
}

// write makes version after version until one is not acknowledged.
func (w *fenced) write(n int) {
	w.acked[n] = 1
	for {
		a, err := w.active.Do("PATCH", fmt.Sprintf("/api/functions/f%d?timeout=%dms", n, 1000+w.acked[n]), "")
		if err != nil {
			w.t.history.note("unheard", "function", n, "error", err)
			return
		}
		if a.Status != 200 {
			w.t.violate("PATCH of f%d: %d %s", n, a.Status, a.Body)
			return
		}
		w.acked[n]++
	}
}

// found returns the live version of each function.
func (w *fenced) found(d *dispatcher) (versions [4]int, err error) {
	for n := range versions {
		s, err := d.read(fmt.Sprintf("f%d", n))
		if err != nil {
			return versions, err
		}
		if s == nil {
			return versions, fmt.Errorf("f%d is not there", n)
		}
		versions[n] = len(s.versions)
	}
	return versions, nil
}

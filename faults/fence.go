package main

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"
)

// takeoverAfter is how long the standby lets the active dispatcher be silent.
const takeoverAfter = 2 * time.Second

// fence stops active dispatchers in the middle of writes, has standbys take over,
// and lets the old ones go on.
func fence(t *trial) error {
	active, err := t.prepare(t.program, "f", "FOB_POOL=python=0,node=0")
	if err != nil {
		return err
	}
	defer func() { active.remove(t.engine) }()
	if err := active.boot(); err != nil {
		return err
	}
	var slowest time.Duration
	writes, cut := 0, 0
	rounds := pick(t.faults, 10, 2)
	for round := range rounds {
		standby, err := active.twin("FOB_STANDBY=true", "FOB_TAKEOVER_AFTER="+takeoverAfter.String())
		if err != nil {
			return err
		}
		if err := standby.start(); err != nil {
			return err
		}
		if err := standby.await(time.Minute, "it is on standby", func() bool {
			a, err := standby.do("GET", "/readyz", "")
			return err == nil && strings.Contains(a.Body, `"standby"`)
		}); err != nil {
			return err
		}
		// Switched off, so that a write costs nothing but itself.
		const writers = 4
		var acked, sent [writers]int
		var all sync.WaitGroup
		over := make(chan struct{})
		write := func(d *dispatcher, name string, n int) (answer, error) {
			return d.do("PUT", "/api/functions/"+name+"?max_concurrency=0", source(name, n))
		}
		for w := range writers {
			name := fmt.Sprintf("w%d-%d", round, w)
			if _, err := write(active, name, 0); err != nil {
				return err
			}
			all.Go(func() {
				for {
					select {
					case <-over:
						return
					default:
					}
					sent[w]++
					a, err := active.do("PATCH", fmt.Sprintf("/api/functions/%s?timeout=%v", name, 20*time.Second+time.Duration(sent[w])*time.Millisecond), "")
					t.history.note("patch", "name", name, "n", sent[w], "status", a.Status, "error", err)
					if err != nil {
						return
					}
					if a.Status == 200 {
						acked[w] = sent[w]
					}
				}
			})
		}
		time.Sleep(time.Duration(100+t.random.IntN(400)) * time.Millisecond)
		t.history.note("stop", "round", round)
		if err := active.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		stopped := time.Now()
		// The kernel takes this one for it.
		ghost := make(chan string, 1)
		go func() {
			a, err := write(active, "ghost", round)
			ghost <- fmt.Sprintf("%d %s %v", a.Status, a.Body, err)
			t.history.note("ghost", "status", a.Status, "error", err)
		}()
		active.dying.Store(true)
		if err := standby.await(time.Minute, "it has taken over", func() bool { return ok(standby.do("GET", "/readyz", "")) }); err != nil {
			return err
		}
		slowest = max(slowest, time.Since(stopped))
		if _, err := standby.ask("PUT", "/api/functions/after?max_concurrency=0", source("after", round)); err != nil {
			return err
		}
		// What the new one has is what counts from now on.
		have := func() (all []string) {
			for w := range writers {
				text, err := standby.ask("GET", fmt.Sprintf("/api/functions/w%d-%d", round, w), "")
				all = append(all, fmt.Sprint(text, err))
			}
			text, err := standby.ask("GET", "/api/functions/after", "")
			return append(all, fmt.Sprint(text, err))
		}
		before := have()
		t.history.note("continue", "round", round)
		if err := active.cmd.Process.Signal(syscall.SIGCONT); err != nil && !active.over() {
			return err
		}
		select {
		case <-active.ended:
		case <-time.After(10 * time.Second):
			t.violate("round %d: the old dispatcher lives 10 s after it was let go on", round)
			active.kill()
		}
		close(over)
		all.Wait()
		<-ghost
		for w := range writers {
			name := fmt.Sprintf("w%d-%d", round, w)
			s, err := standby.read(name)
			if err != nil || s == nil {
				t.violate("round %d: %s: %v", round, name, err)
				continue
			}
			writes += acked[w]
			if n := len(s.versions) - 1; n != acked[w] && n != sent[w] {
				t.violate("round %d: %s has %d changes; %d were acknowledged and %d sent", round, name, n, acked[w], sent[w])
			} else if n != acked[w] {
				cut++
			}
		}
		time.Sleep(200 * time.Millisecond)
		if after := have(); fmt.Sprint(after) != fmt.Sprint(before) {
			t.violate("round %d: when the old one went on, functions changed from %v to %v", round, before, after)
		}
		if s, err := standby.read("ghost"); err != nil || s != nil {
			t.violate("round %d: what the old one was asked for when it was stopped is there: %s, %v", round, s, err)
		}
		active = standby
	}
	t.figure("%d takeovers, the slowest %.1f s after the stop (FOB_TAKEOVER_AFTER=%v)", rounds, slowest.Seconds(), takeoverAfter)
	t.figure("%d acknowledged writes and 0 lost, %d that were stored and not heard of", writes, cut)
	return active.stop()
}

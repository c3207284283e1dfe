package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// siege is the state of the row strangers: strangers attack a dispatcher in one way
// after the other, while somebody else's function is called.
type siege struct {
	*trial
	d *dispatcher
}

// attack is one way to attack.
type attack struct {
	name   string
	run    func(s *siege) error // returns when the attack is over
	budget bool                 // it aims at memory, which must stay within the budget and overhead
}

// attacks returns all attacks. Each has a file of its own.
func attacks() []attack {
	return []attack{
		{"200 clients send 6 MB", bodies("max_scale=1", 200, 429, 503), true},
		{"the same to a function that is switched off", bodies("max_concurrency=0&queue=0", 429, 503), true},
		{"2,000 connections with half a body of 64 KB", halfBodies, true},
		{"functions that send the largest answer but for a byte", fromInside("short", oneByteShort, "concurrency=16", 100, largest), true},
		{"functions that send a head of 6,500 fields", fromInside("fields", manyFields, "concurrency=16", 100, 4<<10), true},
		{"functions that send a head of 60 KB", fromInside("head", longHead, "concurrency=16", 100, 4<<10), true},
		{"functions that send an error document of 6 MB", fromInside("error", hostileError, "concurrency=4", 16, 4<<10), true},
		{"functions that send one of 128 KB", fromInside("errors", hostileErrors, "concurrency=4", 16, 32<<10), true},
		{"documents of 480,000 members", documents, true},
		{"two callers who wait 200 µs", impatient, false},
		{"a function with a tenth of a processor that streams single bytes", trickle, true},
		{"a client that sends a stream of single bytes", trickleIn, true},
		{"arguments of 1,900,000 objects", arguments, false},
	}
}

// The dispatcher's byte budget, and how much memory it may use besides.
const (
	budget   = 64 << 20
	overhead = 36 << 20
)

// duration is how long an attack lasts.
func (s *siege) duration() time.Duration { return pick(s.faults, 10*time.Second, 2*time.Second) }

// strangers attacks a dispatcher.
func strangers(t *trial) error {
	d, err := t.prepare(t.program, "x", fmt.Sprintf("FOB_MAX_BUFFER=%dMB", budget>>20), "FOB_POOL=python=1,node=1", "FOB_REMOVE_SANDBOXES=true")
	if err != nil {
		return err
	}
	defer d.remove(t.engine)
	if err := d.boot(); err != nil {
		return err
	}
	if err := d.Put("neighbour?min_scale=1&concurrency=10", "def callme(): return 'here'"); err != nil {
		return err
	}
	s := &siege{trial: t, d: d}
	quiet, err := s.besides(func() error { time.Sleep(time.Second); return nil })
	if err != nil {
		return err
	}
	t.figure("quiet: %v", quiet)
	for _, a := range attacks() {
		seen, err := s.besides(func() error { return a.run(s) })
		if err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		t.figure("%s: %v", a.name, seen)
		if seen.failed > 0 {
			t.violate("%s: %d of the neighbour's %d calls failed, the first: %s", a.name, seen.failed, len(seen.took)+seen.failed, seen.failure)
		}
		if a.budget && seen.peak > budget+overhead {
			t.violate("%s: %d MB of memory, and the budget is %d MB", a.name, seen.peak>>20, budget>>20)
		}
	}
	return d.stop()
}

// sight is what was observed during an attack.
type sight struct {
	lasted    time.Duration
	took      []time.Duration // by the neighbour's calls, sorted
	failed    int
	failure   string
	peak      int64         // resident memory in bytes
	processor time.Duration // that the dispatcher used
}

func (g sight) String() string {
	median, p99 := time.Duration(0), time.Duration(0)
	if n := len(g.took); n > 0 {
		median, p99 = g.took[n/2], g.took[n*99/100]
	}
	return fmt.Sprintf("peak %d MB, %.2f processors, %d of a neighbour's %d calls answered, median %.1f ms, p99 %.1f ms",
		g.peak>>20, g.processor.Seconds()/g.lasted.Seconds(), len(g.took), len(g.took)+g.failed, millis(median), millis(p99))
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// besides calls the neighbour's function 50 times a second while work runs, and
// observes the dispatcher's memory and processor time.
func (s *siege) besides(work func() error) (sight, error) {
	var seen sight
	pid := s.d.PID()
	// This resets the peak.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		return seen, err
	}
	before, err := processorTime(pid)
	if err != nil {
		return seen, err
	}
	begun := time.Now()
	over := make(chan struct{})
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	var all sync.WaitGroup
	all.Go(func() {
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-over:
				return
			case <-ticker.C:
			}
			all.Go(func() {
				sent := time.Now()
				err := callNeighbour(client, s.d.URL)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					seen.took = append(seen.took, time.Since(sent))
				} else if seen.failed++; seen.failure == "" {
					seen.failure = err.Error()
				}
			})
		}
	})
	err = work()
	close(over)
	all.Wait()
	seen.lasted = time.Since(begun)
	slices.Sort(seen.took)
	if err != nil {
		return seen, err
	}
	after, err := processorTime(pid)
	if err != nil {
		return seen, err
	}
	seen.processor = after - before
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return seen, err
	}
	var kilobytes int64
	if _, err := fmt.Sscan(field(string(text), "VmHWM"), &kilobytes); err != nil {
		return seen, fmt.Errorf("reading the peak of its memory: %w", err)
	}
	seen.peak = kilobytes << 10
	return seen, nil
}

// callNeighbour calls the function that is not attacked.
func callNeighbour(client *http.Client, url string) error {
	response, err := client.Get(url + "/api/call/neighbour")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && (response.StatusCode != http.StatusOK || string(body) != `{"result": "here"}`) {
		err = fmt.Errorf("%s %.300s", response.Status, body)
	}
	return err
}

// processorTime returns how much processor time a process has used.
func processorTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// utime and stime are fields 14 and 15. The second field, in parentheses, may
	// contain blanks.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat says %q", pid, text)
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	const perSecond = 100 // on every Linux that Go supports
	return time.Duration(ticks) * time.Second / perSecond, nil
}

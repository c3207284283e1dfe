package main

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/flockofbirds/fob/internal/client"
)

// wallClock is the machine's clock, which a row moves.
type wallClock struct {
	mu    sync.Mutex
	moved time.Time // just before it was moved; zero when it is right
	ended bool
}

// jump moves the clock. The caller must call restore.
func (w *wallClock) jump(by time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended || !w.moved.IsZero() {
		return errors.New("the clock is not to be moved now")
	}
	now := time.Now()
	if err := setClock(now.Add(by)); err != nil {
		return fmt.Errorf("the machine's clock cannot be set: %w: run this as root with the capability SYS_TIME, or choose other rows with -only", err)
	}
	w.moved = now
	return nil
}

// restore sets the clock to its former time plus the time that has passed since then by
// the monotonic clock. If the clock is right, it does nothing.
func (w *wallClock) restore() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.moved.IsZero() {
		return nil
	}
	if err := setClock(w.moved.Add(time.Since(w.moved))); err != nil {
		return fmt.Errorf("THE MACHINE'S CLOCK IS WRONG and cannot be set back (it was moved at %v): %w", w.moved, err)
	}
	w.moved = time.Time{}
	return nil
}

// end restores the clock and prevents further jumps.
func (w *wallClock) end() error {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	return w.restore()
}

func setClock(to time.Time) error {
	at := syscall.NsecToTimeval(to.Round(time.Microsecond).UnixNano())
	return syscall.Settimeofday(&at)
}

// jumping is the state of the row clock.
type jumping struct {
	*trial
	d    *dispatcher
	wall *wallClock
	kept string // result for the table

	sent, good atomic.Int64
	told       atomic.Int64 // wrong answers; the first ten are reported
}

// longestAnswer is far longer than any part of a call should take here, and far shorter
// than a jump.
const longestAnswer = 5 * time.Minute

// bearer adds a token to each request once there is one.
type bearer struct {
	*http.Transport
	token string
}

func (b *bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.token != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.Transport.RoundTrip(r)
}

// clock moves the machine's clock by an hour forward and back, and then back and
// forward, while a dispatcher has calls running and waiting.
func clock(t *trial) error {
	wall := &wallClock{}
	t.wall.Store(wall)
	defer func() {
		if err := wall.end(); err != nil {
			t.violate("%v", err)
		}
	}()
	if err := errors.Join(wall.jump(0), wall.restore()); err != nil {
		return err // before anything is made
	}
	d, err := t.prepare(t.program, "t", "FOB_POOL=python=1,node=0", "FOB_POOL_MAX=4", "FOB_REMOVE_SANDBOXES=true")
	if err != nil {
		return err
	}
	defer d.remove(t.engine)
	shows := &bearer{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	d.HTTP.Transport = shows
	if err := d.boot(); err != nil {
		return err
	}
	j := &jumping{trial: t, d: d, wall: wall}
	// At the same time, so that the pool runs empty and grows. It must not shrink later
	// either.
	var puts sync.WaitGroup
	for name, function := range map[string][2]string{
		"idle":   {"max_scale=1&idle_timeout=10m&pause_after=9m", "def callme(): return 1"},
		"steady": {"max_scale=1&idle_timeout=10m&concurrency=8", "def callme(): return 1"},
		"slow":   {"max_scale=1&idle_timeout=10m", "import time\ndef callme(s: float = 0): time.sleep(s); return 1"},
	} {
		puts.Go(func() {
			j.ask("PUT", "/api/functions/"+name+"?memory=64MB&"+function[0], function[1])
			j.call(name)
		})
	}
	puts.Wait()

	begun := time.Now()
	if err := j.jumps(); err != nil {
		return err
	}
	// From here on every request needs a token, which has an expiry date.
	made, err := d.MakeToken("clock", "2h", "admin")
	if err != nil {
		return err
	}
	shows.token = made.Secret
	if err := j.jumps(); err != nil {
		return err
	}
	// Deploys and first calls must work as ever.
	for _, name := range []string{"steady", "late"} {
		j.ask("PUT", "/api/functions/"+name+"?memory=64MB", "def callme(): return 1")
		j.call(name)
	}
	if err := d.stop(); err != nil {
		return err
	}
	t.figure("4 times an hour forward or back, for %v each, within %.0f s", j.stay(), time.Since(begun).Seconds())
	t.figure("%s; no eviction and no decision of the scaler's", j.kept)
	t.figure("%d requests, before, during and after, with and without a token that expires in 2 hours: %d not answered 200", j.sent.Load(), j.sent.Load()-j.good.Load())
	return nil
}

// stay is how long the clock stays moved. Other programs on the machine see it, too.
func (j *jumping) stay() time.Duration { return pick(j.faults, 3*time.Second, 300*time.Millisecond) }

// jumps moves the clock forward and back, then back and forward, and compares the state
// afterwards with the state before.
func (j *jumping) jumps() error {
	before, err := j.look(true)
	if err != nil {
		return err
	}
	kept, pool := len(strings.Fields(before.Sandboxes)), before.Metrics.Sum("fob_pool_target")
	if pool < 2 {
		return errors.New("the pool has not grown, so that it cannot shrink")
	}
	over := make(chan struct{})
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() {
			defer j.protect()
			for {
				select {
				case <-over:
					return
				case <-time.After(5 * time.Millisecond):
					j.call("steady")
				}
			}
		})
	}
	begun := time.Now()
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		// One call runs across the jump. The others wait in line during it: two came
		// before the jump, and one comes meanwhile.
		var slow sync.WaitGroup
		call := func(s float64) {
			slow.Go(func() {
				defer j.protect()
				j.call(fmt.Sprintf("slow?s=%v", s))
			})
		}
		for _, s := range []float64{j.stay().Seconds() + .4, .05, .05} {
			call(s)
			time.Sleep(50 * time.Millisecond)
		}
		if err := j.jump(by, func() { call(.05) }); err != nil {
			return err
		}
		slow.Wait()
		time.Sleep(2 * time.Second) // once a second the scaler evaluates what has been recorded
		j.call("idle")
	}
	close(over)
	clients.Wait()
	took := time.Since(begun)
	after, err := j.look(false)
	if err != nil {
		return err
	}
	if before.Sandboxes != after.Sandboxes {
		j.violate("the sandboxes were %s, and are %s", before.Sandboxes, after.Sandboxes)
	}
	for name, value := range after.Metrics {
		grown := value - before.Metrics[name]
		switch {
		case strings.HasPrefix(name, engineCreates), strings.HasPrefix(name, "fob_cold_starts_total"), strings.HasPrefix(name, "fob_evictions_total"),
			strings.HasPrefix(name, "fob_scaler_decisions_total"), strings.HasPrefix(name, "fob_pool_"):
			if grown != 0 {
				j.violate("%s was %v, and is %v", name, before.Metrics[name], value)
			}
		case strings.HasPrefix(name, "fob_") && strings.Contains(name, "_seconds_sum"):
			// There are at most six calls at a time, and some of them wait.
			if grown < 0 || grown > 6*took.Seconds() {
				j.violate("%s has grown by %v within %v", name, grown, took)
			}
		}
	}
	j.kept = fmt.Sprintf("the same %d sandboxes before and after, a pool of %.0f among them", kept, pool)
	j.history.note("jumps", "before", before, "after", after, "ms", took.Milliseconds())
	return nil
}

// jump moves the clock, calls meanwhile, and sets the clock right.
func (j *jumping) jump(by time.Duration, meanwhile func()) error {
	defer j.wall.restore() // in case of a panic
	if err := j.wall.jump(by); err != nil {
		return err
	}
	moved := time.Now()
	meanwhile()
	a := j.call("idle")
	time.Sleep(j.stay() - time.Since(moved))
	if err := j.wall.restore(); err != nil {
		return err
	}
	// Make sure that the dispatcher sees the moved clock, or all this shows nothing.
	date, err := http.ParseTime(a.Header.Get("Date"))
	if err != nil || date.Sub(moved).Abs() > time.Minute {
		j.violate("the clock was %v, and the dispatcher's %v", moved, date)
	}
	return nil
}

// aspect is what must be the same before and after.
type aspect struct {
	Sandboxes string // those of idle and of called functions, and how many there are
	Metrics   client.Metrics
}

// look returns the present state. If wait is set, it waits until the pool is full.
func (j *jumping) look(wait bool) (now aspect, err error) {
	full := func() bool {
		now.Metrics, err = j.d.Metrics()
		return err == nil && now.Metrics.Sum("fob_pool_size") == now.Metrics.Sum("fob_pool_target")
	}
	if !full() && wait {
		err = j.d.Await(time.Minute, "the pool is full", full)
	}
	if err != nil {
		return now, err
	}
	all, err := j.engine.sandboxes(j.d.aviary)
	now.Sandboxes = strings.Join(all, " ")
	return now, err
}

// call calls a function. It must answer 200.
func (j *jumping) call(ref string) client.Answer {
	a := j.ask("GET", "/api/call/"+ref, "")
	for part := range strings.SplitSeq(a.Header.Get("Server-Timing"), ",") {
		_, text, _ := strings.Cut(part, ";dur=")
		ms, err := strconv.ParseFloat(text, 64)
		if a.Status == 200 && (err != nil || ms < 0 || ms > float64(longestAnswer.Milliseconds())) {
			j.wrong("a call of %s has Server-Timing: %s", ref, a.Header.Get("Server-Timing"))
		}
	}
	return a
}

// ask makes a request. It must succeed.
func (j *jumping) ask(method, path, body string) client.Answer {
	j.sent.Add(1)
	a, err := j.d.Do(method, path, body)
	if err == nil && a.Status/100 == 2 {
		j.good.Add(1)
	} else {
		j.wrong("%s %s is answered %d %.300s, %v", method, path, a.Status, a.Body, err)
	}
	return a
}

// wrong reports a wrong answer.
func (j *jumping) wrong(format string, args ...any) {
	if j.told.Add(1) <= 10 {
		j.violate(format, args...)
	}
}

// protect is deferred wherever requests are made, so that a panic does not leave a
// wrong clock behind.
func (j *jumping) protect() {
	if p := recover(); p != nil {
		j.wall.end()
		panic(p)
	}
}

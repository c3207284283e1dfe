package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// probesPerSecond is the rate of failover's probes. It must be above 400.
const probesPerSecond = 450

// failover ends the active dispatcher under load, with a standby beside it.
func failover(t *trial) error {
	for _, end := range []struct {
		name  string
		share float64 // of probes that must be answered 200
		by    func(*dispatcher) error
	}{
		{"SIGKILL", .99, func(d *dispatcher) error { d.kill(); return nil }},
		{"SIGTERM", 1, (*dispatcher).stop},
	} {
		var gaps []time.Duration
		var sent, served int64
		slowest := time.Duration(0)
		for round := range pick(t.faults, 5, 1) {
			active, err := t.prepare(t.program, strings.ToLower(end.name[3:])+fmt.Sprint(round))
			if err != nil {
				return err
			}
			defer active.remove(t.engine)
			standby, err := active.twin("FOB_STANDBY=true")
			if err != nil {
				return err
			}
			defer standby.remove(t.engine)
			if err := active.boot(); err != nil {
				return err
			}
			if err := active.Put("f?concurrency=16&min_scale=1", "def callme(): return 1"); err != nil {
				return err
			}
			if err := standby.start(); err != nil {
				return err
			}
			if err := standby.Await(time.Minute, "the standby listens", func() bool {
				a, err := standby.Do("GET", "/healthz", "")
				return err == nil && a.Status == 200
			}); err != nil {
				return err
			}
			p := newProbes(t, active.URL, standby.URL)
			go p.run(5 * time.Second)
			time.Sleep(2 * time.Second)
			ended := time.Now()
			p.ended.Store(ended.UnixNano())
			err = end.by(active)
			took := time.Since(ended)
			p.wait()
			if err != nil {
				return err
			}
			t.history.note("ended", "by", end.name, "ms", took.Milliseconds())
			gaps = append(gaps, time.Duration(p.back.Load()-ended.UnixNano()))
			sent, served = sent+p.sent.Load(), served+p.served.Load()
			slowest = max(slowest, time.Duration(p.slowest.Load()))
			if pace := float64(p.sent.Load()) / p.lasted.Seconds(); pace < 400 || took > p.lasted/2 {
				t.violate("%s: %.0f probes/s were sent for %v, and the end took %v", end.name, pace, p.lasted, took)
			}
			if err := errors.Join(active.remove(t.engine), standby.remove(t.engine)); err != nil {
				return err
			}
		}
		share := float64(served) / float64(sent)
		if share < end.share {
			t.violate("%s: %d of %d probes were answered 200", end.name, served, sent)
		}
		slices.Sort(gaps)
		t.figure("%s: %d of %d probes answered 200 (%.2f %%), served again after %d to %d ms, the slowest probe %d ms",
			end.name, served, sent, 100*share, gaps[0].Milliseconds(), gaps[len(gaps)-1].Milliseconds(), slowest.Milliseconds())
	}
	return nil
}

// probes are calls at a steady rate, as through a proxy in front of two dispatchers: it
// tries again what certainly did not run, and nothing else.
type probes struct {
	t      *trial
	urls   []string
	client *http.Client

	prefer  atomic.Int64 // which of the urls answered last
	flight  sync.WaitGroup
	over    chan struct{} // closed at the end of run
	lasted  time.Duration
	sent    atomic.Int64
	served  atomic.Int64
	slowest atomic.Int64
	ended   atomic.Int64 // when the active one was ended
	back    atomic.Int64 // when the other one first answered
}

func newProbes(t *trial, urls ...string) *probes {
	return &probes{t: t, urls: urls, over: make(chan struct{}), client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 200}}}
}

// run sends probes for that long. It may be called once.
func (p *probes) run(long time.Duration) {
	defer close(p.over)
	begun := time.Now()
	pace := time.NewTicker(time.Second / probesPerSecond)
	defer pace.Stop()
	for n := 0; time.Since(begun) < long; <-pace.C {
		// Not a ticker, because that would drop late ticks and so lower the rate.
		for ; float64(n) < time.Since(begun).Seconds()*probesPerSecond; n++ {
			p.sent.Add(1)
			p.flight.Go(p.probe)
		}
	}
	p.lasted = time.Since(begun)
}

// wait waits until run has ended and every probe is answered.
func (p *probes) wait() {
	<-p.over
	p.flight.Wait()
	p.client.CloseIdleConnections()
}

// probe makes one call. http.Client does not repeat a POST.
func (p *probes) probe() {
	begun := time.Now()
	which := int(p.prefer.Load())
	for {
		status, err := p.call(p.urls[which])
		if status == http.StatusOK {
			p.served.Add(1)
			p.prefer.Store(int64(which))
			if which == 1 && p.ended.Load() > 0 {
				p.back.CompareAndSwap(0, time.Now().UnixNano())
			}
			break
		}
		again := status == http.StatusServiceUnavailable || errors.Is(err, syscall.ECONNREFUSED)
		if !again || time.Since(begun) > 20*time.Second {
			p.t.history.note("probe", "status", status, "error", err)
			break
		}
		which = 1 - which
		time.Sleep(5 * time.Millisecond)
	}
	for took := int64(time.Since(begun)); ; {
		slowest := p.slowest.Load()
		if took <= slowest || p.slowest.CompareAndSwap(slowest, took) {
			return
		}
	}
}

func (p *probes) call(url string) (status int, err error) {
	response, err := p.client.Post(url+"/api/call/f", "application/json", strings.NewReader("{}"))
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, nil
}

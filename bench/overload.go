package main

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// overloadReport is the outcome of twice as many calls as can be served. Calls come in
// whether or not answers go out.
type overloadReport struct {
	Sandboxes    int
	Run, Wait    time.Duration // of each call; how long it may wait
	Lasted       time.Duration
	Peak         float64 // calls a second that the sandboxes can serve
	Served       spread
	Goodput      float64 // calls a second
	Refused      int     // 429 or 503, with Retry-After
	Unexplained  int     // anything else
	FirstFailure string
}

// overload sends calls for a minute, twice as fast as four sandboxes can serve calls of
// 50 ms.
func overload(b *bench) (report, error) {
	r := &overloadReport{Sandboxes: 4, Run: 50 * time.Millisecond, Wait: 500 * time.Millisecond, Lasted: pick(b, time.Minute, 5*time.Second)}
	r.Peak = float64(r.Sandboxes) * float64(time.Second) / float64(r.Run)
	d, err := b.start("FOB_POOL=python=1,node=0")
	if err != nil {
		return nil, err
	}
	defer d.remove()
	path := fmt.Sprintf("/api/functions/nap?min_scale=%d&max_scale=%[1]d&queue=1000&queue_timeout=%v", r.Sandboxes, r.Wait)
	if _, err := d.Ask("PUT", path, "import time\ndef callme(): time.sleep(0.05)"); err != nil {
		return nil, err
	}
	for {
		ids, err := d.Running("nap")
		if err != nil {
			return nil, err
		}
		if len(ids) == r.Sandboxes {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	d.HTTP.Transport.(*http.Transport).MaxIdleConnsPerHost = 2000
	progress("calling a 50 ms function at twice the pace of its %d sandboxes for %v", r.Sandboxes, r.Lasted)

	var mu sync.Mutex // guards what the calls record
	var served []time.Duration
	var calls sync.WaitGroup
	pace := time.NewTicker(time.Duration(float64(time.Second) / (2 * r.Peak)))
	defer pace.Stop()
	for begun := time.Now(); time.Since(begun) < r.Lasted; {
		<-pace.C
		calls.Go(func() {
			sent := time.Now()
			answer, err := d.Do("GET", "/api/call/nap", "")
			took := time.Since(sent)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && answer.Status == http.StatusOK:
				served = append(served, took)
			case err == nil && (answer.Status == 429 || answer.Status == 503) && answer.Header.Get("Retry-After") != "":
				r.Refused++
			default:
				r.Unexplained++
				if r.FirstFailure == "" {
					r.FirstFailure = fmt.Sprint(err, " ", answer)
				}
			}
		})
	}
	calls.Wait()
	r.Served = spreadOf(served)
	r.Goodput = float64(len(served)) / r.Lasted.Seconds()
	return r, d.Terminate()
}

func (r *overloadReport) print(out io.Writer) {
	w := newTable(out)
	fmt.Fprintln(w, "overload for\tcalls/s that fit\tserved\tgoodput\trefused\tp50\tp99\tmax\t")
	fmt.Fprintf(w, "%v\t%.0f\t%d\t%.1f/s\t%d\t%s\t%s\t%s\t\n", r.Lasted, r.Peak, r.Served.Count, r.Goodput, r.Refused, ms(r.Served.P50), ms(r.Served.P99), ms(r.Served.Max))
	w.Flush()
	if r.Unexplained > 0 {
		fmt.Fprintf(out, "%d calls were neither served nor properly refused; the first: %s\n", r.Unexplained, r.FirstFailure)
	}
}

func (r *overloadReport) targets() []target {
	return []target{
		atLeast(.8, r.Goodput/r.Peak, "", "overload: goodput to the peak"),
		atMost(0, float64(r.Unexplained), "", "overload: calls neither served nor properly refused"),
		atMost(millis(r.Wait+r.Run)+100, millis(r.Served.P99), " ms", "overload: p99 of what was served, with %v to wait and %v to run", r.Wait, r.Run),
	}
}

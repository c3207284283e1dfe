package main

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// crowdReport is the outcome of calls to more functions than there is room for.
type crowdReport struct {
	Functions, Room, Clients int

	Calls          spread
	CallsPerSecond float64
	Statuses       map[int]int // 0 for none
	FirstFailure   string
	Evictions      int
	ColdStarts     int
	MostContainers int // at one moment, including those being made or removed
}

// crowd calls 200 functions at random, with room for 20 sandboxes.
func crowd(b *bench) (report, error) {
	r := &crowdReport{Functions: 200, Room: 20, Clients: 16, Statuses: map[int]int{}}
	total := pick(b, 600, 50)
	d, err := b.prepare("FOB_POOL=python=1,node=1", fmt.Sprintf("FOB_MAX_SANDBOXES=%d", r.Room))
	if err != nil {
		return nil, err
	}
	defer d.remove()
	aviary, err := d.fill(noops("fn", r.Functions, "python", "node"))
	if err != nil {
		return nil, err
	}
	if err := d.start(); err != nil {
		return nil, err
	}
	values, err := d.Metrics()
	if err != nil {
		return nil, err
	}
	if limit := values["fob_sandboxes_limit"]; limit != float64(r.Room) {
		return nil, fmt.Errorf("the dispatcher says that it has room for %v sandboxes, and was told %d", limit, r.Room)
	}

	var mu sync.Mutex // guards took and r
	var took []time.Duration
	calls := make(chan int)
	random := rand.New(rand.NewPCG(1, 2)) // the same calls in each run
	go func() {
		defer close(calls)
		for n := range total {
			if n%pick(b, 100, 25) == 0 {
				progress("calling %d functions at random with room for %d sandboxes: %d of %d", r.Functions, r.Room, n, total)
			}
			calls <- random.IntN(r.Functions)
		}
	}()
	stopWatch, watched := make(chan struct{}), make(chan error, 1)
	go func() { watched <- r.watch(aviary, stopWatch) }()
	begun := time.Now()
	var clients sync.WaitGroup
	for range r.Clients {
		clients.Go(func() {
			for n := range calls {
				sent := time.Now()
				answer, err := d.Do("GET", fmt.Sprintf("/api/call/fn-%d", n), "")
				lasted, status := time.Since(sent), 0
				if err == nil {
					status = answer.Status
				}
				mu.Lock()
				took = append(took, lasted)
				r.Statuses[status]++
				if status != 200 && r.FirstFailure == "" {
					r.FirstFailure = fmt.Sprint(err, " ", answer)
				}
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	r.CallsPerSecond = float64(total) / time.Since(begun).Seconds()
	r.Calls = spreadOf(took)
	close(stopWatch)
	if err := <-watched; err != nil {
		return nil, err
	}
	if values, err = d.Metrics(); err != nil {
		return nil, err
	}
	r.Evictions = int(values["fob_evictions_total"])
	for _, kind := range []string{"pooled", "created", "resumed"} {
		r.ColdStarts += int(values[`fob_cold_starts_total{kind="`+kind+`"}`])
	}
	return r, d.Terminate()
}

// watch counts the engine's containers until it is told to stop. It does not rely on
// the dispatcher's own count.
func (r *crowdReport) watch(aviary string, stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		case <-time.After(500 * time.Millisecond):
		}
		ids, err := docker("ps", "--all", "--quiet", "--filter", "label=fob.aviary="+aviary)
		if err != nil {
			return err
		}
		r.MostContainers = max(r.MostContainers, len(strings.Fields(ids)))
	}
}

func (r *crowdReport) print(out io.Writer) {
	w := newTable(out)
	fmt.Fprintln(w, "functions\troom\tclients\tcalls\tcalls/s\tp50\tp99\tmax\tcold starts\tevictions\tmost containers\t")
	fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%.1f\t%s\t%s\t%s\t%d\t%d\t%d\t\n", r.Functions, r.Room, r.Clients, r.Calls.Count, r.CallsPerSecond,
		ms(r.Calls.P50), ms(r.Calls.P99), ms(r.Calls.Max), r.ColdStarts, r.Evictions, r.MostContainers)
	w.Flush()
	for _, status := range slices.Sorted(maps.Keys(r.Statuses)) {
		if status != 200 {
			fmt.Fprintf(out, "%d calls were answered %d; the first: %s\n", r.Statuses[status], status, r.FirstFailure)
		}
	}
}

func (r *crowdReport) targets() []target {
	return []target{
		atLeast(1, float64(r.Statuses[200])/float64(r.Calls.Count), "", "%d functions, room for %d: share answered 200", r.Functions, r.Room),
		atLeast(1, float64(r.Evictions), "", "%d functions, room for %d: evictions", r.Functions, r.Room),
		atMost(float64(r.Room), float64(r.MostContainers), "", "%d functions, room for %d: most containers", r.Functions, r.Room),
	}
}

package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// process is what a dispatcher's process uses when nothing happens.
type process struct {
	Memory     float64 // resident, in bytes
	Goroutines int
	Files      int
}

// churnReport says what is left behind after much coming and going.
type churnReport struct {
	Workers       int
	Lasted        time.Duration
	Calls         int // of a function that stays
	Registrations int // each with a call and a deletion
	ScaledToZero  int // how often a function was called, went idle and lost its sandbox
	Before, After process
}

// churn registers, calls and deletes functions for a while, lets others scale to zero
// and back, and calls one that stays. A first part warms up and counts as the state
// before.
func churn(b *bench) (report, error) {
	const blank = 2
	r := &churnReport{Workers: 5}
	d, err := b.start("FOB_POOL=python=1,node=1")
	if err != nil {
		return nil, err
	}
	defer d.remove()
	warm, lasts := pick(b, 20*time.Second, 5*time.Second), pick(b, b.churn, 10*time.Second)
	// The engine's client keeps idle connections for 30 s.
	patience := pick(b, 35*time.Second, 5*time.Second)
	progress("churning for %v to warm up", warm)
	if err := r.work(d, warm); err != nil {
		return nil, err
	}
	r.Calls, r.Registrations, r.ScaledToZero = 0, 0, 0
	if r.Before, err = quiet(d, blank, patience); err != nil {
		return nil, err
	}
	progress("churning for %v", lasts)
	begun := time.Now()
	if err := r.work(d, lasts); err != nil {
		return nil, err
	}
	r.Lasted = time.Since(begun)
	if r.After, err = quiet(d, blank, patience); err != nil {
		return nil, err
	}
	return r, d.Terminate()
}

// work runs the workers until the time is over. Two register, call and delete
// functions, two call functions that lose their sandboxes at once, and one calls a
// function that stays.
func (r *churnReport) work(d *dispatcher, lasts time.Duration) (err error) {
	var mu sync.Mutex // guards the counts and err
	var workers sync.WaitGroup
	end := time.Now().Add(lasts)
	for n := range r.Workers {
		lang, cycle, count := []string{"python", "node"}[n/2%2], r.register, &r.Registrations
		switch {
		case n == r.Workers-1:
			cycle, count = r.call, &r.Calls
		case n%2 == 1:
			cycle, count = r.toZero, &r.ScaledToZero
		}
		workers.Go(func() {
			for time.Now().Before(end) {
				failed := cycle(d, fmt.Sprintf("churn-%d", n), lang)
				mu.Lock()
				if failed == nil {
					*count++
				} else if err == nil {
					err = failed
				}
				stop := err != nil
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	workers.Wait()
	if err == nil {
		err = d.Delete(fmt.Sprintf("churn-%d", r.Workers-1))
	}
	return err
}

// call calls a function that stays. The first time it registers the function.
func (*churnReport) call(d *dispatcher, name, lang string) error {
	answer, err := d.Do("GET", "/api/call/"+name, "")
	switch {
	case err == nil && answer.Status == 404:
		err = d.Put(name+"?lang="+lang, noop[lang])
	case err == nil && answer.Status != 200:
		err = fmt.Errorf("a call was answered %d: %s", answer.Status, answer.Body)
	}
	return err
}

// register registers a function, calls it and deletes it.
func (*churnReport) register(d *dispatcher, name, lang string) error {
	if err := d.Put(name+"?lang="+lang, noop[lang]); err != nil {
		return err
	}
	if _, err := d.Call(name); err != nil {
		return err
	}
	err := d.Delete(name)
	return err
}

// toZero calls a function that has scaled to zero, and waits until it has again. The
// first time it registers the function.
func (*churnReport) toZero(d *dispatcher, name, lang string) error {
	answer, err := d.Do("GET", "/api/call/"+name, "")
	if err == nil && answer.Status == 404 {
		err = d.Put(name+"?lang="+lang+"&idle_timeout=1ms", noop[lang])
	} else if err == nil && answer.Status != 200 {
		err = fmt.Errorf("a call was answered %d: %s", answer.Status, answer.Body)
	}
	for err == nil {
		ids, failed := d.Running(name)
		if failed != nil || len(ids) == 0 {
			return failed
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

// quiet waits until only the pool is left and nothing has happened for a while, and
// returns what the process uses.
func quiet(d *dispatcher, blank int, patience time.Duration) (process, error) {
	if err := d.settle(blank); err != nil {
		return process{}, err
	}
	d.HTTP.CloseIdleConnections()
	time.Sleep(patience)
	values, err := d.Metrics()
	return process{values["process_resident_memory_bytes"], int(values["go_goroutines"]), int(values["process_open_fds"])}, err
}

func (r *churnReport) print(out io.Writer) {
	w := newTable(out)
	fmt.Fprintf(w, "churn\tresident memory\tgoroutines\topen files\t\n")
	for _, row := range []struct {
		when string
		process
	}{{"before", r.Before}, {"after", r.After}} {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t\n", row.when, megabytes(row.Memory), row.Goroutines, row.Files)
	}
	w.Flush()
	each := func(n int) string { return fmt.Sprintf("%.0f s", time.Hour.Seconds()/float64(max(n, 1))) }
	fmt.Fprintf(out, "%d calls, %d registrations, calls and deletions, and %d scalings to zero and back in %.0f s: what an hour has at %.0f calls a second and one of the others each %s and %s\n",
		r.Calls, r.Registrations, r.ScaledToZero, r.Lasted.Seconds(), float64(r.Calls)/time.Hour.Seconds(), each(r.Registrations), each(r.ScaledToZero))
}

func (r *churnReport) targets() []target {
	return []target{
		atMost(1.05, r.After.Memory/r.Before.Memory, "", "churn: resident memory after to that before"),
		atMost(0, float64(r.After.Goroutines-r.Before.Goroutines), "", "churn: goroutines after over those before"),
	}
}

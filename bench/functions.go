package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// scale is what a number of registered functions costs a dispatcher.
type scale struct {
	Functions   int
	Boot        time.Duration // from exec to ready, the median of several
	FirstAnswer time.Duration // from exec to the first call's answer, which needs a container
	Stats       spread        // GET /api/stats

	MemoryAtBoot, MemoryAfterStats float64 // resident, in bytes

	Calls load // of one function by one client

	d      *dispatcher
	rounds []load
}

// functionsReport is the result of functions.
type functionsReport struct {
	Few, Many *scale
	ManyToFew ratio // of the calls
}

// functions compares a dispatcher with ten functions to one with ten thousand. Only the
// function that is called has a sandbox.
func functions(b *bench) (report, error) {
	r := &functionsReport{Few: &scale{Functions: 10}, Many: &scale{Functions: 10_000}}
	both := []*scale{r.Few, r.Many}
	for _, s := range both {
		var err error
		if s.d, err = b.prepare("FOB_POOL=python=0,node=0"); err != nil {
			return nil, err
		}
		defer s.d.remove()
		progress("writing a store with %d functions", s.Functions)
		if _, err := s.d.fill(noops("fn", s.Functions, "python", "node")); err != nil {
			return nil, err
		}
	}
	starts := pick(b, 5, 2)
	boots, firsts := map[*scale][]time.Duration{}, map[*scale][]time.Duration{}
	for n := range starts {
		progress("starting with %d and with %d functions: %d of %d", r.Few.Functions, r.Many.Functions, n+1, starts)
		for _, s := range both {
			if err := s.d.Terminate(); err != nil { // does nothing the first time
				return nil, err
			}
			begun := time.Now()
			if err := s.d.start(); err != nil {
				return nil, err
			}
			boots[s] = append(boots[s], s.d.boot)
			values, err := s.d.Metrics()
			if err != nil {
				return nil, err
			}
			s.MemoryAtBoot = values["process_resident_memory_bytes"]
			if _, err := s.d.Call("fn-0"); err != nil {
				return nil, err
			}
			firsts[s] = append(firsts[s], time.Since(begun))
		}
	}
	for _, s := range both {
		s.Boot, s.FirstAnswer = spreadOf(boots[s]).P50, spreadOf(firsts[s]).P50
		if err := s.stats(); err != nil {
			return nil, err
		}
	}
	rounds, duration := pick(b, 11, 5), pick(b, time.Second, 400*time.Millisecond)
	progress("calling one function beside %d and beside %d others", r.Few.Functions, r.Many.Functions)
	for round := range rounds + 1 {
		for _, s := range both {
			measured, err := attack(s.d.calling("fn-0"), 1, duration)
			if err != nil {
				return nil, err
			}
			if len(measured.Failed) > 0 {
				return nil, fmt.Errorf("not all calls were answered 200: %v", measured.Failed)
			}
			if round > 0 { // the first one warms up
				s.rounds = append(s.rounds, measured)
			}
		}
	}
	for _, s := range both {
		s.Calls = median(s.rounds)
		if err := s.d.Terminate(); err != nil {
			return nil, err
		}
	}
	r.ManyToFew = compare(r.Many.rounds, r.Few.rounds)
	return r, nil
}

// stats requests /api/stats 50 times.
func (s *scale) stats() error {
	var took []time.Duration
	for range 50 {
		begun := time.Now()
		answer, err := s.d.Ask("GET", "/api/stats", "")
		if err != nil {
			return err
		}
		took = append(took, time.Since(begun))
		var stats struct{ Functions []string }
		if err := json.Unmarshal([]byte(answer), &stats); err != nil || len(stats.Functions) != s.Functions {
			return fmt.Errorf("/api/stats lists %d functions, not %d: %w", len(stats.Functions), s.Functions, err)
		}
	}
	values, err := s.d.Metrics()
	s.Stats, s.MemoryAfterStats = spreadOf(took), values["process_resident_memory_bytes"]
	return err
}

func (r *functionsReport) print(out io.Writer) {
	w := newTable(out)
	fmt.Fprintln(w, "functions\tboot\tfirst answer\tstats p50\tmemory at boot\tafter 50 stats\tcall p50\tp99\t")
	for _, s := range []*scale{r.Few, r.Many} {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", s.Functions, ms(s.Boot), ms(s.FirstAnswer), ms(s.Stats.P50),
			megabytes(s.MemoryAtBoot), megabytes(s.MemoryAfterStats), ms(s.Calls.P50), ms(s.Calls.P99))
	}
	fmt.Fprintf(w, "\t\t\t\t\t\t× %.2f\t× %.2f\t\n", r.ManyToFew.P50, r.ManyToFew.P99)
	w.Flush()
}

func (r *functionsReport) targets() []target {
	s := r.Many
	return []target{
		atMost(1, s.Boot.Seconds(), " s", "%d functions: boot", s.Functions),
		atMost(50, millis(s.Stats.P50), " ms", "%d functions: /api/stats", s.Functions),
		atMost(100, max(s.MemoryAtBoot, s.MemoryAfterStats)/(1<<20), " MB", "%d functions: resident memory", s.Functions),
		atMost(1.1, r.ManyToFew.P50, "", "%d functions: p50 of a call to that with %d", s.Functions, r.Few.Functions),
	}
}

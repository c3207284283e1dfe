package main

import (
	"fmt"
	"io"
	"time"
)

// duel is how the program did beside another one in the same work. The figures are
// medians over the rounds, and the ratios those of our round to theirs.
type duel struct {
	Case         string
	Clients      int // 0 for a first call
	Ours, Theirs load
	Ratio        ratio
}

// againstReport is the result of against.
type againstReport []duel

// against measures the program beside another one, such as a build of an earlier commit.
// Both dispatchers are there all the time, and have their turns in each round, so that
// the ratios say what changed even on a noisy machine.
func against(b *bench) (report, error) {
	if b.other == "" {
		return nil, fmt.Errorf("name a program to compare with: -against PROGRAM")
	}
	var both [2]*dispatcher
	for i, program := range []string{b.program, b.other} {
		one := *b
		one.program = program
		d, err := one.start("FOB_POOL=python=1,node=1")
		if err != nil {
			return nil, err
		}
		defer d.remove()
		both[i] = d
	}
	r, err := duelOfCalls(b, both)
	if err != nil {
		return nil, err
	}
	firsts, err := duelOfFirstCalls(b, both)
	if err != nil {
		return nil, err
	}
	for _, d := range both {
		if err := d.Terminate(); err != nil {
			return nil, err
		}
	}
	return append(r, firsts...), nil
}

// duelOfCalls lets clients call a no-op function that has one sandbox.
func duelOfCalls(b *bench, both [2]*dispatcher) (againstReport, error) {
	rounds, duration := pick(b, 15, 3), pick(b, time.Second, 300*time.Millisecond)
	var r againstReport
	for _, lang := range b.langs {
		for _, clients := range b.clients {
			for _, d := range both {
				settings := fmt.Sprintf("lang=%s&idle_timeout=1h&max_scale=1&concurrency=%d", lang, clients)
				if err := d.Put("no-op?"+settings, noop[lang]); err != nil {
					return nil, err
				}
			}
			progress("calling a no-op %s function of both programs with %d clients: %d rounds", lang, clients, rounds)
			var loads [2][]load
			for round := range rounds + 1 {
				for turn := range both {
					i := (turn + round) % 2 // each is first in its turn
					l, err := attack(both[i].calling("no-op"), clients, duration)
					if err != nil {
						return nil, err
					}
					if len(l.Failed) > 0 {
						return nil, fmt.Errorf("not all calls were answered 200: %v", l.Failed)
					}
					if round > 0 { // the first warms up
						loads[i] = append(loads[i], l)
					}
				}
			}
			r = append(r, duel{lang, clients, median(loads[0]), median(loads[1]), compare(loads[0], loads[1])})
			for _, d := range both {
				if err := d.Delete("no-op"); err != nil {
					return nil, err
				}
			}
		}
	}
	return r, nil
}

// duelOfFirstCalls calls functions that have no sandbox while a blank one is in the pool.
func duelOfFirstCalls(b *bench, both [2]*dispatcher) (againstReport, error) {
	rounds, cases := pick(b, 30, 3), coldCases(b.langs)
	loads := make([][2][]load, len(cases))
	for i, c := range cases {
		for _, d := range both {
			if err := d.Put(fmt.Sprintf("%s?lang=%s&idle_timeout=100ms", coldName(i, 0), c.lang), c.code); err != nil {
				return nil, err
			}
		}
	}
	for round := range rounds {
		progress("first calls of both programs: %d of %d of each of %d functions", round, rounds, len(cases))
		for c := range cases {
			for turn := range both {
				i := (turn + round) % 2
				for _, d := range both { // the other one is to be quiet, too
					if err := d.settle(2); err != nil {
						return nil, err
					}
				}
				time.Sleep(ahead)
				begun := time.Now()
				answer, err := both[i].Do("GET", "/api/call/"+coldName(c, 0), "")
				took := time.Since(begun)
				if err != nil {
					return nil, err
				}
				if answer.Status != 200 {
					return nil, fmt.Errorf("a first call was answered %d: %s", answer.Status, answer.Body)
				}
				loads[c][i] = append(loads[c][i], load{CallsPerSecond: 1 / took.Seconds(), P50: took, P99: took})
			}
		}
	}
	var r againstReport
	for i, c := range cases {
		r = append(r, duel{Case: c.name, Ours: median(loads[i][0]), Theirs: median(loads[i][1]), Ratio: compare(loads[i][0], loads[i][1])})
	}
	return r, nil
}

func (r againstReport) print(out io.Writer) {
	w := newTable(out)
	fmt.Fprintln(w, "against the other program\tclients\tcalls/s\ttheirs\t\tp50\ttheirs\t\tp99\t")
	for _, d := range r {
		clients, ours, theirs, times := "first call", "", "", ""
		if d.Clients > 0 {
			clients, ours, theirs = fmt.Sprint(d.Clients), fmt.Sprintf("%.0f", d.Ours.CallsPerSecond), fmt.Sprintf("%.0f", d.Theirs.CallsPerSecond)
			times = fmt.Sprintf("× %.3f", d.Ratio.CallsPerSecond)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t× %.3f\t× %.3f\t\n", d.Case, clients, ours, theirs, times, ms(d.Ours.P50), ms(d.Theirs.P50), d.Ratio.P50, d.Ratio.P99)
	}
	w.Flush()
}

func (r againstReport) targets() []target {
	var all []target
	for _, d := range r {
		if d.Clients > 0 {
			all = append(all, atLeast(.97, d.Ratio.CallsPerSecond, "", "%s, %d clients: calls/s to the other program's", d.Case, d.Clients))
		} else {
			all = append(all, atMost(1.03, d.Ratio.P50, "", "%s: p50 of first calls to the other program's", d.Case))
		}
	}
	return all
}

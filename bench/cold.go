package main

import (
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// coldCase is a function whose first call is measured.
type coldCase struct{ name, lang, code string }

func coldCases(langs []string) []coldCase {
	all := []coldCase{
		{"python", "python", noop["python"]},
		{"python, async def", "python", "async def callme(): return 1"},
		{"node", "node", noop["node"]},
	}
	return slices.DeleteFunc(all, func(c coldCase) bool { return !slices.Contains(langs, c.lang) })
}

// coldStart is how long a call took, end to end, that found no sandbox of its version.
// Start and Run are medians from Server-Timing.
type coldStart struct {
	Case, From string
	spread
	Start, Run time.Duration
}

// Where a first call's sandbox comes from, and what it is compared with.
const (
	fromPool   = "blank sandbox in the pool"
	fromEngine = "container to be started"
	plainRun   = "plain docker run"
)

// ahead is how long blank sandboxes exist before one is needed. Meanwhile the drivers
// import ahead, which takes some 200 ms each.
const ahead = 500 * time.Millisecond

// coldReport is the result of cold.
type coldReport []coldStart

// cold makes first calls of versions that have no sandbox. Each function is called once
// and deleted; the next one follows when all is quiet again.
func cold(b *bench) (report, error) {
	var r, runs coldReport
	cases := coldCases(b.langs)
	for _, from := range []string{fromPool, fromEngine} {
		blank, count := 1, pick(b, 60, 5)
		if from == fromEngine {
			blank, count = 0, pick(b, 10, 3)
		}
		d, err := b.prepare(fmt.Sprintf("FOB_POOL=python=%d,node=%d", blank, blank))
		if err != nil {
			return nil, err
		}
		defer d.remove()
		var functions []stored
		for i, c := range cases {
			for n := range count {
				functions = append(functions, stored{name: coldName(i, n), lang: c.lang, code: c.code})
			}
		}
		aviary, err := d.fill(functions)
		if err != nil {
			return nil, err
		}
		if err := d.start(); err != nil {
			return nil, err
		}
		took, start, run := make([][]time.Duration, len(cases)), make([][]time.Duration, len(cases)), make([][]time.Duration, len(cases))
		for n := range count {
			if n%10 == 0 {
				progress("first calls from a %s: %d of %d of each of %d functions", from, n, count, len(cases))
			}
			for i := range cases {
				if err := d.settle(2 * blank); err != nil {
					return nil, err
				}
				time.Sleep(ahead)
				begun := time.Now()
				answer, err := d.Do("GET", "/api/call/"+coldName(i, n), "")
				took[i] = append(took[i], time.Since(begun))
				if err != nil {
					return nil, err
				}
				if answer.Status != 200 {
					return nil, fmt.Errorf("a first call was answered %d: %s", answer.Status, answer.Body)
				}
				timing := serverTiming(answer.Header.Get("Server-Timing"))
				start[i], run[i] = append(start[i], timing["start"]), append(run[i], timing["run"])
				if err := d.Delete(coldName(i, n)); err != nil {
					return nil, err
				}
			}
		}
		for i, c := range cases {
			r = append(r, coldStart{c.name, from, spreadOf(took[i]), spreadOf(start[i]).P50, spreadOf(run[i]).P50})
		}
		if from == fromPool {
			if runs, err = dockerRuns(aviary, b.langs, pick(b, 10, 3)); err != nil {
				return nil, err
			}
		}
		if err := d.Terminate(); err != nil {
			return nil, err
		}
	}
	return append(r, runs...), nil
}

func coldName(i, n int) string { return fmt.Sprintf("cold-%d-%d", i, n) }

// dockerRuns measures docker run with the drivers' images and a program that only
// prints. It finds the images by the blank sandboxes of an aviary.
func dockerRuns(aviary string, langs []string, count int) (coldReport, error) {
	prints := map[string][]string{"python": {"python3", "-c", "print(1)"}, "node": {"node", "-e", "console.log(1)"}}
	var r coldReport
	for _, lang := range langs {
		progress("docker run of the %s image, %d times", lang, count)
		image, err := docker("ps", "--latest", "--filter", "label=fob.aviary="+aviary, "--filter", "label=fob.lang="+lang, "--format", "{{.Image}}")
		if err != nil {
			return nil, err
		}
		var took []time.Duration
		for range count {
			begun := time.Now()
			command := append([]string{"run", "--rm", "--entrypoint", prints[lang][0], image}, prints[lang][1:]...)
			if out, err := exec.Command("docker", command...).Output(); err != nil || strings.TrimSpace(string(out)) != "1" {
				return nil, fmt.Errorf("docker run %s printed %q: %w", image, out, err)
			}
			took = append(took, time.Since(begun))
		}
		r = append(r, coldStart{Case: lang, From: plainRun, spread: spreadOf(took)})
	}
	return r, nil
}

// serverTiming parses a Server-Timing header.
func serverTiming(header string) map[string]time.Duration {
	timing := map[string]time.Duration{}
	for part := range strings.SplitSeq(header, ", ") {
		name, value, _ := strings.Cut(part, ";dur=")
		if f, err := strconv.ParseFloat(value, 64); err == nil {
			timing[name] = time.Duration(f * float64(time.Millisecond))
		}
	}
	return timing
}

func (r coldReport) print(out io.Writer) {
	w := newTable(out)
	fmt.Fprintln(w, "first call\tfrom\tp50\tp99\tmax\tn\tstart\trun\t")
	for _, c := range r {
		start, run := ms(c.Start), ms(c.Run)
		if c.From == plainRun {
			start, run = "", ""
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t\n", c.Case, c.From, ms(c.P50), ms(c.P99), ms(c.Max), c.Count, start, run)
	}
	w.Flush()
}

func (r coldReport) targets() []target {
	var all []target
	for _, c := range r {
		if c.From == fromPool {
			all = append(all, atMost(10, millis(c.P50), " ms", "%s: p50 of first calls from the pool", c.Case),
				atMost(50, millis(c.P99), " ms", "%s: p99 of first calls from the pool", c.Case))
		}
	}
	return all
}

// Bench measures a dispatcher on a real Docker engine. Its sections can be run alone;
// docs/inside/benchmarks.md says what each row means. Machines differ and are noisy, so
// the baselines run alternately with the dispatcher, and only the ratios within one run
// count. The load generator is fortio.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// bench is what the sections share: what to measure, and how thoroughly.
type bench struct {
	program string
	other   string // a program to compare it with, for against
	quick   bool
	churn   time.Duration
	langs   []string
	clients []int
}

// section is a part of the bench.
type section struct {
	name string
	long bool // left out by -quick, unless asked for by name
	run  func(*bench) (report, error)
}

// report is the result of a section. The JSON file has it as it is.
type report interface {
	print(w io.Writer)
	targets() []target
}

func sections() []section {
	return []section{
		{name: "register", run: register},
		{name: "calls", run: calls},
		{name: "cold", run: cold},
		{name: "functions", run: functions},
		{name: "crowd", run: crowd},
		{name: "overload", run: overload},
		{name: "churn", long: true, run: churn},
		{name: "against", run: against},
	}
}

// results are the results of a run, as the JSON file has them. Durations are in
// nanoseconds.
type results struct {
	When     time.Time
	Commit   string
	Machine  string
	Quick    bool
	Sections map[string]report
	Targets  []target
}

func main() {
	var names []string
	for _, s := range sections() {
		names = append(names, s.name)
	}
	program := flag.String("dispatcher", "build/dispatcher", "the dispatcher `program` to measure")
	out := flag.String("json", "build/bench.json", "`file` for the results")
	quick := flag.Bool("quick", false, "measure for a shorter time, and leave churn out")
	only := flag.String("only", "", "the `sections` to run: some of "+strings.Join(names, ",")+" (all)")
	churn := flag.Duration("churn", time.Minute, "how long churn goes on")
	langs := flag.String("lang", "python,node", "`languages` of the functions in register, calls, cold and against")
	other := flag.String("against", "", "another dispatcher `program`, to be measured beside -dispatcher in turns: of an earlier commit, for example")
	clients := flag.String("clients", "1,16,64", "`numbers` of clients in calls and against")
	baseline := flag.String("serve", "", "serve a `baseline`, proxy or forwarder, in front of -socket at -addr, and do nothing else")
	socket := flag.String("socket", "", "a driver's `socket`")
	addr := flag.String("addr", "", "`address` to serve at")
	flag.Parse()
	if *baseline != "" {
		fail(serveBaseline(*baseline, *socket, *addr))
	}
	b := &bench{program: *program, other: *other, quick: *quick, churn: *churn, langs: strings.Split(*langs, ",")}
	for _, lang := range b.langs {
		if noop[lang] == "" {
			fail(fmt.Errorf("-lang: there are python and node, not %q", lang))
		}
	}
	for _, text := range strings.Split(*clients, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 250 { // concurrency is up to four times as much, and at most 1000
			fail(fmt.Errorf("-clients: %q is not a number from 1 to 250", text))
		}
		b.clients = append(b.clients, n)
	}
	var chosen []section
	for _, s := range sections() {
		if *only == "" && !(s.long && b.quick) && (s.name != "against" || b.other != "") || slices.Contains(strings.Split(*only, ","), s.name) {
			chosen = append(chosen, s)
		}
	}
	if *only != "" && len(chosen) != strings.Count(*only, ",")+1 {
		fail(fmt.Errorf("-only=%s: the sections are %v", *only, names))
	}
	fail(b.run(chosen, *out))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run runs the sections, prints their tables and writes the JSON file. If a section
// fails, the others still run.
func (b *bench) run(chosen []section, out string) error {
	r := results{When: time.Now().UTC().Truncate(time.Second), Quick: b.quick, Sections: map[string]report{}}
	var err error
	if r.Machine, err = machine(); err != nil {
		return err
	}
	progress("starting a dispatcher (the first time it builds the driver images)")
	if r.Commit, err = b.commit(); err != nil {
		return err
	}
	var failures error
	for _, s := range chosen {
		measured, err := s.run(b)
		if err != nil {
			failures = errors.Join(failures, fmt.Errorf("%s: %w", s.name, err))
			progress("%s failed: %v", s.name, err)
			continue
		}
		r.Sections[s.name] = measured
		r.Targets = append(r.Targets, measured.targets()...)
	}

	fmt.Printf("\ncommit %.12s, %s, %s\n", r.Commit, r.When.Format(time.DateOnly), r.Machine)
	for _, s := range chosen {
		if measured := r.Sections[s.name]; measured != nil {
			fmt.Println()
			measured.print(os.Stdout)
		}
	}
	printTargets(os.Stdout, r.Targets)
	document, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(failures, os.WriteFile(out, append(document, '\n'), 0o644))
}

// commit returns the commit from which the dispatcher was built.
func (b *bench) commit() (string, error) {
	d, err := b.start("FOB_POOL=python=0,node=0")
	if err != nil {
		return "", err
	}
	defer d.remove()
	answer, err := d.Ask("GET", "/api/version", "")
	if err != nil {
		return "", err
	}
	var version struct{ Commit string }
	if err := json.Unmarshal([]byte(answer), &version); err != nil {
		return "", err
	}
	return version.Commit, d.Terminate()
}

// pick returns the value for a full or a quick run.
func pick[T any](b *bench, full, quick T) T {
	if b.quick {
		return quick
	}
	return full
}

// progress prints what is being done.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format(time.TimeOnly)+" "+format+"\n", args...)
}

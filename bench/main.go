// Bench measures a dispatcher on a real Docker engine: how long registering
// takes, and what a call costs beside the same call straight to the driver's
// socket and through a plain reverse proxy. Machines differ and are noisy, so
// the ratios inside one run are what counts. The load generator is fortio's.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"
)

// results is what a run measured, as it is written to the JSON file.
type results struct {
	When          time.Time
	Commit        string
	Registrations []registration
	Calls         []comparison
}

func main() {
	program := flag.String("dispatcher", "build/dispatcher", "the dispatcher `program` to measure")
	out := flag.String("json", "build/bench.json", "`file` for the results")
	quick := flag.Bool("quick", false, "measure for a shorter time")
	proxySocket := flag.String("proxy", "", "serve the reverse proxy in front of this driver's `socket`, and nothing else")
	addr := flag.String("addr", "", "`address` of -proxy")
	flag.Parse()
	if *proxySocket != "" {
		fail(serveProxy(*proxySocket, *addr))
	}
	registrations, duration, rounds := 20, 5*time.Second, 3
	if *quick {
		registrations, duration, rounds = 8, 2*time.Second, 2
	}
	fail(run(*program, *out, registrations, duration, rounds))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(program, out string, registrations int, duration time.Duration, rounds int) error {
	r := results{When: time.Now().UTC().Truncate(time.Second)}

	progress("starting a dispatcher with a pool (the first time it builds the driver images)")
	d, err := start(program, "python=1,node=1")
	if err != nil {
		return err
	}
	defer d.stop()
	if r.Commit, err = d.commit(); err != nil {
		return err
	}
	for _, lang := range []string{"python", "node"} {
		progress("registering %d %s functions, each with a blank sandbox waiting", registrations, lang)
		measured, err := register(d, lang, registrations, true)
		if err != nil {
			return err
		}
		r.Registrations = append(r.Registrations, measured)
	}
	for _, lang := range []string{"python", "node"} {
		for _, clients := range []int{1, 16, 64} {
			progress("calling a no-op %s function with %d clients", lang, clients)
			measured, err := compare(d, lang, clients, duration, rounds)
			if err != nil {
				return err
			}
			r.Calls = append(r.Calls, measured)
		}
	}
	if err := d.stop(); err != nil {
		return err
	}

	progress("starting a dispatcher without a pool")
	if d, err = start(program, "python=0,node=0"); err != nil {
		return err
	}
	defer d.stop()
	for _, lang := range []string{"python", "node"} {
		progress("registering %d %s functions, each with a container to start", registrations/2, lang)
		measured, err := register(d, lang, registrations/2, false)
		if err != nil {
			return err
		}
		r.Registrations = append(r.Registrations, measured)
	}
	if err := d.stop(); err != nil {
		return err
	}

	table(os.Stdout, r)
	document, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(document, '\n'), 0o644)
}

// progress says what is being done.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format(time.TimeOnly)+" "+format+"\n", args...)
}

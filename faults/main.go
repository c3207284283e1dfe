// Faults breaks dispatchers on a real Docker engine and checks what they promise. It
// runs the rows of docs/inside/reliability.md one by one. Everything random follows
// from one seed. Its exit status is 1 if a promise was broken.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// faults is what the rows share.
type faults struct {
	program    string // the dispatcher as it is released
	failpoints string // the same with failpoints
	build      string // folder for what a run leaves behind
	quick      bool
	keep       bool
	rounds     int // of the row kill
	seed       uint64
	engine     *engine // the machine's; it is never harmed
	own        *dockerd
	folder     string // for data folders; a short path

	living   sync.Map                  // *os.Process by PID, to be killed when this program ends
	aviaries sync.Map                  // by name, to be cleared at the end
	wall     atomic.Pointer[wallClock] // to be restored at the end; nil while no row moves it
}

// row is one fault.
type row struct {
	name    string
	fault   string
	promise string
	run     func(*trial) error
}

// rows returns the faults in the order in which they run. The one that moves the
// machine's clock is the last.
func rows() []row {
	return []row{
		{"kill", "`kill -9` the dispatcher at every failpoint, under load", "every acknowledged write is there, nothing half-done, containers reconciled within 30 s, another aviary's untouched", kill},
		{"power", "power cut: writes since the last sync dropped", "opens, complete up to the last acknowledgement, first initialisation included", power},
		{"disk", "disk full", "writes answer 507 or 503, warm calls go on, all recovers when space returns", diskFull},
		{"bits", "any bit of the database flipped", "refuses to start and says how to restore; never guesses, never panics", bits},
		{"engine", "engine killed, restarted or stopped", "503 with `Retry-After` meanwhile, then reconciles by itself within 30 s; calls to sandboxes that lived on go through", engineFaults},
		{"sandbox", "sandbox: out of memory, exit mid-answer, SIGSTOP, endless loop, fork bomb, /tmp filled, inode flood, fd flood, 100 MB on stdout", "the answer of the error table, the slot free, a replacement, the neighbours' p99 within 2 × of its quiet value", misbehave},
		{"crowd", "500 simultaneous first calls; deploys under load; scale-down racing calls", "bounded creates; zero non-200; zero dropped", crowd},
		{"images", "image deleted under us, image build failing, engine without space", "a clear error, old versions serve on", images},
		{"fence", "SIGSTOP the active dispatcher, standby takes over, SIGCONT", "the old one's writes cannot land", fence},
		{"failover", "SIGKILL and SIGTERM the active dispatcher under 400 probes/s", "SIGKILL: 99 % answered 200; SIGTERM: all", failover},
		{"strangers", "strangers who attack: large bodies, slow ones, hostile answers, documents of half a million members", "memory within `FOB_MAX_BUFFER` and 36 MB, and another function's calls are answered", strangers},
		{"clock", "clock jumps, an hour forward and back", "no early expiry, no burst", clock},
	}
}

// trial is the run of one row.
type trial struct {
	*faults
	row        row
	random     *rand.Rand
	history    *history
	figures    []string
	violations []string
}

// violate records a broken promise.
func (t *trial) violate(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	t.history.note("violation", "what", what)
	t.history.mu.Lock()
	t.violations = append(t.violations, what)
	t.history.mu.Unlock()
	progress("%s: VIOLATION: %s", t.row.name, what)
}

// figure records a result for the table.
func (t *trial) figure(format string, args ...any) {
	t.figures = append(t.figures, fmt.Sprintf(format, args...))
	t.history.note("figure", "what", t.figures[len(t.figures)-1])
}

// result is the result of a row, as the JSON file has it.
type result struct {
	Row        string
	Seconds    float64
	Figures    []string
	Violations []string
	History    string `json:",omitempty"` // its file, if something was violated
}

// results are the results of a whole run.
type results struct {
	When    time.Time
	Commit  string
	Machine string
	Seed    uint64
	Quick   bool
	Rows    []result
}

func main() {
	var names []string
	for _, r := range rows() {
		names = append(names, r.name)
	}
	f := &faults{}
	flag.StringVar(&f.program, "dispatcher", "build/dispatcher", "the dispatcher `program`")
	flag.StringVar(&f.failpoints, "failpoints", "build/dispatcher-failpoints", "the dispatcher `program` with failpoints")
	flag.StringVar(&f.build, "build", "build", "`folder` for faults.json, and for faults/ with the histories of failed rows")
	flag.BoolVar(&f.quick, "quick", false, "the short version")
	flag.IntVar(&f.rounds, "rounds", 0, "`rounds` of kill (1000; 40 with -quick)")
	flag.Uint64Var(&f.seed, "seed", 0, "`number` that everything random follows from (a new one)")
	flag.BoolVar(&f.keep, "keep", false, "keep the histories of rows that held, too")
	only := flag.String("only", "", "the `rows` to run: some of "+strings.Join(names, ",")+" (all)")
	flag.Parse()
	if f.rounds == 0 {
		f.rounds = pick(f, 1000, 40)
	}
	if f.seed == 0 {
		f.seed = uint64(time.Now().UnixNano()) % 1e9
	}
	var chosen []row
	for _, r := range rows() {
		if *only == "" || slices.Contains(strings.Split(*only, ","), r.name) {
			chosen = append(chosen, r)
		}
	}
	if *only != "" && len(chosen) != strings.Count(*only, ",")+1 {
		fmt.Fprintf(os.Stderr, "faults: -only=%s: the rows are %s\n", *only, strings.Join(names, ","))
		os.Exit(2)
	}
	if err := f.run(chosen); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

// run runs the rows, prints the table and writes the JSON file. If a row fails, the
// others still run.
func (f *faults) run(chosen []row) error {
	for _, path := range []*string{&f.program, &f.failpoints, &f.build} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = absolute
	}
	if err := os.MkdirAll(filepath.Join(f.build, "faults"), 0o755); err != nil {
		return err
	}
	var err error
	if f.engine, err = engineOfEnvironment(); err != nil {
		return err
	}
	r := results{When: time.Now().UTC().Truncate(time.Second), Seed: f.seed, Quick: f.quick, Machine: machine()}
	if r.Commit, err = commit(); err != nil {
		return err
	}
	progress("-seed %d, commit %s", f.seed, r.Commit)
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-interrupted
		fmt.Fprintln(os.Stderr, "faults: interrupted: clearing up")
		f.killAll()
		f.own.remove()
		os.RemoveAll(f.folder)
		os.Exit(1)
	}()

	var failures error
	for _, row := range chosen {
		done := f.try(row)
		r.Rows = append(r.Rows, done)
		if n := len(done.Violations); n > 0 {
			failures = errors.Join(failures, fmt.Errorf("%s: %d violations, the first: %s (-seed %d; the history is in %s)",
				row.name, n, done.Violations[0], f.seed, done.History))
		}
	}
	f.own.remove()
	r.print(os.Stdout)
	document, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(failures, os.WriteFile(filepath.Join(f.build, "faults.json"), append(document, '\n'), 0o644))
}

// try runs one row in a folder of its own. An error counts as a violation.
func (f *faults) try(r row) result {
	begun := time.Now()
	progress("%s: %s", r.name, strings.ReplaceAll(r.fault, "`", ""))
	number := fnv.New64a()
	number.Write([]byte(r.name))
	t := &trial{faults: f, row: r, random: rand.New(rand.NewPCG(f.seed, number.Sum64()))}
	var err error
	if t.history, err = newHistory(filepath.Join(f.build, "faults", r.name+".jsonl")); err != nil {
		progress("%s: VIOLATION: %v", r.name, err)
		return result{Row: r.name, Violations: []string{err.Error()}}
	}
	t.history.note("row", "row", r.name, "seed", f.seed, "quick", f.quick)
	if f.folder, err = os.MkdirTemp("/tmp", "fobf"); err == nil { // short, for the sockets
		err = r.run(t)
	}
	f.killAll()
	if err != nil {
		t.violate("%v", err)
	}
	done := result{Row: r.name, Seconds: time.Since(begun).Seconds(), Figures: t.figures, Violations: t.violations}
	os.RemoveAll(f.folder)
	if done.History = t.history.close(f.keep || len(t.violations) > 0); len(t.violations) == 0 {
		progress("%s: held, in %.0f s: %s", r.name, done.Seconds, strings.Join(t.figures, "; "))
	}
	return done
}

// pick is the measure of a full or of a quick run.
func pick[T any](f *faults, full, quick T) T {
	if f.quick {
		return quick
	}
	return full
}

// progress says what is being done.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format(time.TimeOnly)+" "+format+"\n", args...)
}

// commit is what the tree was when this was built, which scripts/faults does
// just before.
func commit() (string, error) {
	out, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown", nil // no checkout, or one that git does not trust
	}
	return strings.TrimSpace(string(out)), nil
}

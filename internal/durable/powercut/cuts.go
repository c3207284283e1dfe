// Package powercut tests that files survive power cuts. A test has strace watch a
// process, replays what the process did on a model of a disk, and makes folders as a
// power cut at any moment might have left them.
package powercut

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// QuickExit is an environment entry with which a process with the race detector does
// not wait a second before it exits.
const QuickExit = "GORACE=atexit_sleep_ms=0"

// Trace runs this test's program with one more environment entry, NAME=VALUE, that
// tells it what to do. It returns what the program did.
func Trace(t testing.TB, env string) []Moment {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatal("this test needs strace: scripts/setup test installs it; ", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command("strace", append(straceFlags(file), self)...)
	cmd.Env = append(os.Environ(), env, QuickExit)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the process, which needs to be allowed ptrace(2): %v\n%.2000s", err, out)
	}
	moments, err := readTrace(file)
	if err != nil {
		t.Fatal(err)
	}
	return moments
}

// Cuts makes power cuts in traces of processes. Each process went on where the one
// before had ended.
type Cuts struct {
	Root   string // of the traced processes
	Traces [][]Moment
	Forget func(trace int, n *Node) bool // which syncs are left out; nil for none
	Begin  func() *Disk                  // the disk at the start; nil for an empty one
}

// Run replays the traces. It passes each line that a process printed to said, and calls
// at for every moment. It stops at the first error.
func (c *Cuts) Run(said func(line string), at func(trace, moment int, d *Disk) error) error {
	d := NewDisk(nil)
	if c.Begin != nil {
		d = c.Begin()
	}
	for number, moments := range c.Traces {
		r := &replay{disk: d, root: c.Root, files: map[string]*Node{}, offset: map[string]int64{}, said: said}
		r.forget = func(n *Node) bool { return c.Forget != nil && c.Forget(number, n) }
		for i, m := range moments {
			if err := r.do(m); err != nil {
				return fmt.Errorf("replaying: %w", err)
			}
			if err := at(number, i, d); err != nil {
				return err
			}
		}
	}
	return nil
}

// telling reports whether a power cut at that moment is most instructive: a sync has
// just ended, or something is being printed.
func (m Moment) telling() bool {
	return m.ended && strings.HasSuffix(m.call.name, "sync") || !m.ended && m.call.name == "write" && m.call.args[0] == "1"
}

// Telling makes power cuts below folder: at every telling moment, at every moment of
// the first initialisation, which begins with a folder, and more others at random.
// check looks at what each cut leaves of the root. Cuts begin in the trace with the
// index from, after its process has printed something; only with 0 do they include the
// initialisation before that. Telling returns how many cuts it made.
func (c *Cuts) Telling(folder string, seed uint64, more, from int, said func(line string), check func(root string) error) (done int, err error) {
	random := rand.New(rand.NewPCG(seed, 0))
	losses := Losses()
	planned := map[[2]int][]Loss{}
	for number, moments := range c.Traces[from:] {
		begun, spoke := from > 0, false
		for i, m := range moments {
			begun = begun || m.call.name == "mkdirat"
			spoke = spoke || m.telling() && m.call.name == "write"
			if spoke && m.telling() || from+number == 0 && begun && !spoke {
				at := [2]int{from + number, i}
				planned[at] = append(planned[at], losses[len(planned)%len(losses)])
			}
		}
	}
	some := slices.Collect(maps.Keys(planned))
	slices.SortFunc(some, func(a, b [2]int) int { return slices.Compare(a[:], b[:]) })
	for range more { // between two telling moments, or at one
		after := random.IntN(len(some) - 1)
		at := [2]int{some[after][0], some[after][1]}
		if some[after+1][0] == at[0] {
			at[1] += random.IntN(some[after+1][1] - at[1])
		}
		planned[at] = append(planned[at], losses[random.IntN(len(losses))])
	}
	err = c.Run(said, func(trace, moment int, d *Disk) error {
		for _, l := range planned[[2]int{trace, moment}] {
			path := filepath.Join(folder, strconv.Itoa(done))
			if err := d.Cut(l, random, path); err != nil {
				return err
			}
			if err := check(path); err != nil {
				return fmt.Errorf("a power cut that loses %s, at moment %d of trace %d: %w", l, moment, trace, err)
			}
			if err := os.RemoveAll(path); err != nil {
				return err
			}
			done++
		}
		return nil
	})
	return done, err
}

// Memory returns a folder in memory. On a disk syncs would take most of a test's time,
// and the model decides what survives anyway.
func Memory(t testing.TB) string {
	t.Helper()
	folder, err := os.MkdirTemp("/dev/shm", "fob")
	if os.IsNotExist(err) {
		return t.TempDir()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return folder
}

// Depth returns a number from the environment that says how thorough a test is, or unset
// if it is not there, or short if it is not there in a short run.
func Depth(t testing.TB, name string, unset, short uint64) uint64 {
	t.Helper()
	if testing.Short() {
		unset = short
	}
	return Setting(t, name, unset)
}

// Setting returns a number from the environment, such as how many power cuts to make,
// or unset if it is not there.
func Setting(t testing.TB, name string, unset uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return unset
	}
	number, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		t.Fatal(err)
	}
	return number
}

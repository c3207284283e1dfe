package journal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/durable/powercut"
)

// writerEnv makes the test binary the process that is traced: it names the folder
// of the journal that this writes to.
const writerEnv = "FOBTEST_JOURNAL_WRITER"

const (
	writers = 4
	rounds  = 12
)

// of a journal that a power cut comes to, when it has a bound.
var bounded = Options{Segment: 1500, MaxBytes: 9000}

// optionsOf are those of a folder of that name.
func optionsOf(folder string) Options {
	if filepath.Base(folder) == "bounded" {
		return bounded
	}
	return Options{Segment: 1500}
}

// writeMuch opens a journal, has several writers append to it, in both ways, and
// says which records are synced.
func writeMuch(folder string) error {
	o := optionsOf(folder)
	o.Failed = func(err error) { fmt.Println("failed", err) }
	j, err := Open(folder, o)
	if err != nil {
		return err
	}
	failed := make(chan error, writers)
	for w := range writers {
		go func() {
			var all error
			for n := range rounds {
				payload := fmt.Sprintf("%d.%d.%d ", os.Getpid(), w, n)
				payload += strings.Repeat(payload, n*n)
				if n%3 == 2 {
					_, err := j.Append([]byte(payload))
					all = errors.Join(all, err)
					continue
				}
				r, err := j.AppendSync([]byte(payload))
				fmt.Println("synced", r.Number, payload[:strings.Index(payload, " ")])
				all = errors.Join(all, err)
			}
			failed <- all
		}()
	}
	for range writers {
		err = errors.Join(err, <-failed)
	}
	return errors.Join(err, j.Close())
}

// checkCut opens what a power cut left, and holds it against what is said to be synced.
func checkCut(folder string, synced map[uint64]string) error {
	examine := func() (*found, error) {
		f, err := read(folder, 0)
		if err != nil {
			return nil, err
		}
		numbers := map[uint64]string{}
		for _, r := range f.records {
			start, rest, _ := bytes.Cut(r.Payload, []byte(" "))
			if string(rest) != strings.Repeat(string(start)+" ", len(rest)/(len(start)+1)) && string(r.Payload) != "added" {
				return nil, fmt.Errorf("record %d is %q", r.Number, r.Payload)
			}
			numbers[r.Number] = string(start)
		}
		oldest := uint64(1)
		if filepath.Base(folder) == "bounded" && len(f.records) > 0 {
			oldest = f.records[0].Number
		}
		for number, start := range synced {
			if numbers[number] != start && number >= oldest {
				return nil, fmt.Errorf("record %d was synced as %s, and is %q; the oldest is %d, and the damage %v", number, start, numbers[number], oldest, f.damage)
			}
		}
		return &f, nil
	}
	before, err := examine()
	if err != nil {
		return fmt.Errorf("before it is opened: %w", err)
	}
	var told []error
	o := optionsOf(folder)
	o.Failed = func(err error) { told = append(told, err) }
	j, err := Open(folder, o)
	if err != nil {
		return fmt.Errorf("it does not open: %w", err)
	}
	added, err := j.AppendSync([]byte("added"))
	if err = errors.Join(err, j.Close()); err != nil {
		return err
	}
	after, err := examine()
	if err != nil {
		return fmt.Errorf("opened: %w", err)
	}
	if last := after.records[len(after.records)-1]; last.Number != added.Number || string(last.Payload) != "added" {
		return fmt.Errorf("what was added is not there, but %v", last)
	}
	if o.MaxBytes == 0 && len(after.records) != len(before.records)+1 {
		return fmt.Errorf("there were %d records, and are %d", len(before.records), len(after.records))
	}
	return nil
}

// TestPowerCut traces processes that begin a journal and write to it, and makes
// folders as power cuts might have left them.
func TestPowerCut(t *testing.T) {
	seed, more := powercut.Setting(t, "FOBTEST_SEED", rand.Uint64()>>1), powercut.Depth(t, "FOBTEST_POWERCUT_ROUNDS", 50, 10)
	t.Logf("FOBTEST_SEED=%d FOBTEST_POWERCUT_ROUNDS=%d", seed, more)
	for _, name := range []string{"journal", "bounded"} {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "root")
			folder := filepath.Join(root, name)
			check(t, os.Mkdir(root, 0o700))
			c := &powercut.Cuts{Root: root}
			for range 2 {
				c.Traces = append(c.Traces, powercut.Trace(t, writerEnv+"="+folder))
			}
			cuts := func(more, from int) (int, error) {
				synced := map[uint64]string{}
				said := func(line string) {
					var number uint64
					var start string
					if n, _ := fmt.Sscanf(line, "synced %d %s", &number, &start); n != 2 {
						t.Errorf("the writer says %s", line)
					}
					synced[number] = start
				}
				return c.Telling(powercut.Memory(t), seed, more, from, said, func(root string) error { return checkCut(filepath.Join(root, name), synced) })
			}
			done, err := cuts(int(more), 0)
			if err != nil {
				t.Error(err)
			}
			t.Logf("%d power cuts in %d and %d moments of a journal", done, len(c.Traces[0]), len(c.Traces[1]))
			// Who is killed before the folders are synced leaves that to the next one.
			c.Forget = func(trace int, n *powercut.Node) bool { return trace == 0 && n.IsFolder() }
			if _, err := cuts(0, 1); err != nil {
				t.Error("the first process did not sync its folders:", err)
			}
			// The test is worth something: it finds what is lost without syncs.
			for name, forget := range map[string]func(trace int, n *powercut.Node) bool{
				"without any sync":         func(int, *powercut.Node) bool { return true },
				"without syncs of files":   func(_ int, n *powercut.Node) bool { return !n.IsFolder() },
				"without syncs of folders": func(_ int, n *powercut.Node) bool { return n.IsFolder() },
			} {
				c.Forget = forget
				if _, err := cuts(0, 0); err == nil || strings.Contains(err.Error(), "replaying") {
					t.Errorf("%s nothing was lost (%v)", name, err)
				} else {
					t.Logf("%s, as it should be: %v", name, err)
				}
			}
		})
	}
}

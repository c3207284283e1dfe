package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/flockofbirds/fob/internal/durable/powercut"
)

func TestMain(m *testing.M) {
	if folder := os.Getenv(writerEnv); folder != "" {
		if err := writeMuch(folder); err != nil {
			fmt.Println("failed", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens a journal that is to fail at nothing.
func open(t testing.TB, folder string, o Options) *Journal {
	t.Helper()
	if o.Failed == nil {
		o.Failed = func(err error) { t.Errorf("failed: %v", err) }
	}
	j, err := Open(folder, o)
	check(t, err)
	t.Cleanup(func() { check(t, j.Close()) })
	return j
}

// add appends records, and wants them to have that number and those behind it.
func add(t testing.TB, j *Journal, number uint64, payloads ...string) (all []Record) {
	t.Helper()
	for i, payload := range payloads {
		r, err := j.Append([]byte(payload))
		check(t, err)
		if r.Number != number+uint64(i) {
			t.Errorf("%.20q is record %d, want %d", payload, r.Number, number+uint64(i))
		}
		all = append(all, r)
	}
	return all
}

// found is what a reader found.
type found struct {
	records []Record
	damage  []Damage
}

// read reads all behind after. It wants the numbers to ascend.
func read(folder string, after uint64) (f found, err error) {
	last := after
	for r, err := range Records(folder, after) {
		var damage *Damage
		switch {
		case errors.As(err, &damage):
			if damage.From <= last || damage.To > 0 && damage.To < damage.From {
				return f, fmt.Errorf("behind %d it tells of %v", last, damage)
			}
			last = max(damage.To, last)
			f.damage = append(f.damage, *damage)
			continue
		case err != nil:
			return f, err
		case r.Number <= last:
			return f, fmt.Errorf("record %d comes behind %d", r.Number, last)
		}
		last = r.Number
		r.Payload = bytes.Clone(r.Payload)
		f.records = append(f.records, r)
	}
	return f, nil
}

// wants reads all behind after, and wants payloads with that number and those
// behind it, and no damage.
func wants(t testing.TB, folder string, after, number uint64, payloads ...string) {
	t.Helper()
	f, err := read(folder, after)
	check(t, err)
	for _, damage := range f.damage {
		t.Error(&damage)
	}
	if len(f.records) != len(payloads) {
		t.Fatalf("there are %d records, want %d", len(f.records), len(payloads))
	}
	for i, r := range f.records {
		if r.Number != number+uint64(i) || string(r.Payload) != payloads[i] {
			t.Errorf("record %d is %.20q, want %d, %.20q", r.Number, r.Payload, number+uint64(i), payloads[i])
		}
	}
}

// segments returns the paths of the files of a folder, the oldest first.
func segments(t testing.TB, folder string) (paths []string) {
	t.Helper()
	all, err := list(folder)
	check(t, err)
	for _, s := range all {
		paths = append(paths, s.path(folder))
	}
	return paths
}

// many returns n payloads that are all different.
func many(n int) (payloads []string) {
	for i := range n {
		payloads = append(payloads, fmt.Sprintf("payload %d %s", i, strings.Repeat("x", i%40)))
	}
	return payloads
}

func TestRecords(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "journal")
	wants(t, folder, 0, 1) // there is nothing
	payloads := []string{"one", "", "\x00\xff\n", strings.Repeat("large", 100_000), "five"}
	j := open(t, folder, Options{})
	before := time.Now()
	wants(t, folder, 0, 1)
	all := add(t, j, 1, payloads[:4]...)
	last, err := j.AppendSync([]byte("five"))
	check(t, err)
	all = append(all, last)
	for range 2 {
		wants(t, folder, 0, 1, payloads...)
		wants(t, folder, 3, 4, payloads[3:]...)
		wants(t, folder, 5, 6)
		wants(t, folder, math.MaxUint64, 1)
		f, err := read(folder, 0)
		check(t, err)
		for i, r := range all {
			at, err := j.At(r.Position)
			check(t, err)
			for _, got := range []Record{at, f.records[i]} {
				if got.Number != r.Number || !got.Time.Equal(r.Time) || string(got.Payload) != payloads[i] || got.Position != r.Position {
					t.Errorf("it is %v, want %v", got, r)
				}
			}
			if r.Time.Before(before.Round(0)) || r.Time.After(time.Now()) {
				t.Errorf("it was written at %v", r.Time)
			}
		}
		if first, last, err := Numbers(folder); first != 1 || last != 5 || err != nil {
			t.Errorf("the numbers are %d to %d (%v)", first, last, err)
		}
		check(t, j.Close())
		j = open(t, folder, Options{First: 3}) // there are higher ones
	}
	add(t, j, 6, "six")
	wants(t, folder, 4, 5, "five", "six")
	for _, p := range []Position{{1, 0}, {1, all[0].Position.Offset + 1}, {1, 1 << 40}} {
		if r, err := j.At(p); err == nil {
			t.Errorf("at %v there is %v", p, r)
		}
	}
	if _, err := j.Append(make([]byte, MaxPayload+1)); err == nil {
		t.Error("there is no bound to a record")
	}
	check(t, j.Close())
	if _, err := j.AppendSync(nil); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	check(t, errors.Join(j.Close(), j.Sync(), j.Trim(), j.Drop(3)))
}

// A new journal begins where it is told to.
func TestFirst(t *testing.T) {
	folder := t.TempDir()
	j := open(t, folder, Options{First: 100})
	if first, last, err := Numbers(folder); first != 100 || last != 99 || err != nil {
		t.Errorf("the numbers are %d to %d (%v)", first, last, err)
	}
	add(t, j, 100, "a", "b")
	wants(t, folder, 0, 100, "a", "b")
	wants(t, folder, 100, 101, "b")
}

// Others cannot read it, even if somebody let them.
func TestModes(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "journal")
	check(t, open(t, folder, Options{}).Close())
	file := segments(t, folder)[0]
	check(t, errors.Join(os.Chmod(folder, 0o755), os.Chmod(file, 0o644)))
	open(t, folder, Options{})
	for path, want := range map[string]fs.FileMode{folder: 0o700 | fs.ModeDir, file: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

// Many write, in both ways, and read, while segments come and go.
func TestConcurrently(t *testing.T) {
	const writers, each = 6, 150
	folder := powercut.Memory(t)
	j := open(t, folder, Options{Segment: 2000, MaxBytes: 20_000})
	var writing, reading sync.WaitGroup
	var newest atomic.Uint64
	stop := make(chan struct{})
	for range 2 {
		reading.Go(func() {
			for after, last := uint64(0), false; ; {
				select {
				case <-stop:
					last = true
				default:
				}
				f, err := read(folder, after)
				if err != nil || len(f.damage) > 0 {
					t.Errorf("there is damage: %v, %v", f.damage, err)
				}
				for _, r := range f.records {
					after = r.Number
					if number, payload, _ := strings.Cut(string(r.Payload), " "); payload != strings.Repeat(number, len(payload)/len(number)) {
						t.Errorf("record %d is %q", r.Number, r.Payload)
					}
				}
				if last {
					if after != newest.Load() {
						t.Errorf("it ends with %d, want %d", after, newest.Load())
					}
					return
				}
			}
		})
	}
	for w := range writers {
		writing.Go(func() {
			for n := range each {
				payload := fmt.Sprint(w*each + n)
				payload += " " + strings.Repeat(payload, n%30)
				appendTo := j.Append
				if n%3 == 0 {
					appendTo = j.AppendSync
				}
				r, err := appendTo([]byte(payload))
				if err != nil {
					t.Error(err)
					return
				}
				for old := newest.Load(); r.Number > old && !newest.CompareAndSwap(old, r.Number); old = newest.Load() {
				}
				if got, err := j.At(r.Position); !errors.Is(err, fs.ErrNotExist) && (err != nil || string(got.Payload) != payload) {
					t.Errorf("%q is %q, %v", payload, got.Payload, err)
				}
				if n%50 == 0 {
					err = errors.Join(j.Trim(), j.Sync(), j.Drop(r.Number-min(r.Number, 100)))
				}
				if _, _, other := Numbers(folder); err != nil || other != nil {
					t.Error(err, other)
				}
			}
		})
	}
	writing.Wait()
	close(stop)
	reading.Wait()
	if newest.Load() != writers*each {
		t.Errorf("the last is %d, want %d", newest.Load(), writers*each)
	}
}

// Each record is told of in one way only, to those who write while it is closed.
func TestCloseConcurrently(t *testing.T) {
	folder := powercut.Memory(t)
	j := open(t, folder, Options{Segment: 1000})
	var written atomic.Int64
	var writing sync.WaitGroup
	begun := make(chan struct{}, 4)
	for range 4 {
		writing.Go(func() {
			for {
				switch _, err := j.AppendSync([]byte("x")); {
				case err == nil:
					written.Add(1)
					select {
					case begun <- struct{}{}:
					default:
					}
				case errors.Is(err, ErrClosed):
					return
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	<-begun
	check(t, j.Close())
	writing.Wait()
	if _, last, err := Numbers(folder); err != nil || int64(last) != written.Load() {
		t.Errorf("there are %d records, and %d were told of (%v)", last, written.Load(), err)
	}
}

// Many records that are appended at once are those that would be appended one by one.
func TestAppendAll(t *testing.T) {
	var payloads []string
	for i := range 2000 {
		payloads = append(payloads, strings.Repeat(fmt.Sprintf("%d,", i), 1+i*i%97))
	}
	payloads[700] = strings.Repeat("long", readAhead) // more than one write takes along
	payloads[1500] = strings.Repeat("longer", 64<<10) // longer than a segment
	all := make([][]byte, len(payloads))
	for i, payload := range payloads {
		all[i] = []byte(payload)
	}
	one, many := t.TempDir(), t.TempDir()
	add(t, open(t, one, Options{Segment: 300 << 10}), 1, payloads...)
	j := open(t, many, Options{Segment: 300 << 10})
	for from := 0; from < len(all); from += 500 {
		records, err := j.AppendAll(all[from : from+500])
		check(t, err)
		for i, r := range records {
			if at, err := j.At(r.Position); err != nil || at.Number != uint64(from+i+1) || string(at.Payload) != payloads[from+i] {
				t.Fatalf("at %v there is %d, %v", r.Position, at.Number, err)
			}
		}
	}
	for _, folder := range []string{one, many} {
		wants(t, folder, 0, 1, payloads...)
	}
	if a, b := len(*j.segments.Load()), len(segments(t, one)); a != b {
		t.Errorf("there are %d segments, want %d", a, b)
	}
}

// Of records that do not all fit on the disk, the first stay, and the rest leave nothing.
func TestAppendAllOnAFullDisk(t *testing.T) {
	folder := t.TempDir()
	j := open(t, folder, Options{})
	add(t, j, 1, "one")
	big := bytes.Repeat([]byte("b"), readAhead)
	limited(t, 3*readAhead, func() {
		records, err := j.AppendAll([][]byte{[]byte("two"), []byte("three"), big, big, big, big})
		if err == nil || len(records) != 4 {
			t.Errorf("%d are there, %v", len(records), err)
		}
	})
	r, err := j.Append([]byte("last"))
	check(t, err)
	f, err := read(folder, 0)
	check(t, err)
	if len(f.damage) > 0 || len(f.records) != 6 || f.records[5].Number != r.Number || string(f.records[5].Payload) != "last" {
		t.Errorf("there are %d records, %v", len(f.records), f.damage)
	}
}

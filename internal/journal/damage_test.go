package journal

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/durable/powercut"
)

// sample is a journal of a few segments, as files by name, and what is in it.
type sample struct {
	files    map[string][]byte
	names    []string          // of the files, the oldest first
	payloads map[uint64]string // by number
}

func newSample(t *testing.T, payloads []string) *sample {
	t.Helper()
	folder := powercut.Memory(t)
	s := &sample{files: map[string][]byte{}, payloads: map[uint64]string{}}
	j := open(t, folder, Options{Segment: 300})
	for _, r := range add(t, j, 1, payloads...) {
		s.payloads[r.Number] = string(r.Payload)
	}
	check(t, j.Close())
	for _, path := range segments(t, folder) {
		data, err := os.ReadFile(path)
		check(t, err)
		s.files[filepath.Base(path)] = data
		s.names = append(s.names, filepath.Base(path))
	}
	return s
}

// with writes the files to a folder, one of them with other content; nil is none.
func (s *sample) with(folder, name string, content []byte) error {
	all := os.RemoveAll(folder)
	all = errors.Join(all, os.Mkdir(folder, 0o700))
	for other, data := range s.files {
		if other == name {
			data = content
		}
		if data != nil {
			all = errors.Join(all, os.WriteFile(filepath.Join(folder, other), data, 0o600))
		}
	}
	return all
}

// examine looks at what became of the sample in a folder. What is read is what was
// written. What is not is told of, unless it is at the very end. Opening works, and
// changes none of that. It returns how many records are lost, and how many of these
// at the end.
func (s *sample) examine(folder string) (lost, tail int, err error) {
	before, err := read(folder, 0)
	if err != nil {
		return 0, 0, err
	}
	left := maps.Clone(s.payloads)
	for _, r := range before.records {
		if s.payloads[r.Number] != string(r.Payload) {
			return 0, 0, fmt.Errorf("record %d is %q, and was %q", r.Number, r.Payload, s.payloads[r.Number])
		}
		delete(left, r.Number)
	}
	lost = len(left)
	for _, d := range before.damage {
		if d.To == 0 {
			d.To = uint64(len(s.payloads))
		}
		for number := d.From; number <= d.To; number++ {
			if _, ok := left[number]; !ok {
				return 0, 0, fmt.Errorf("it tells that record %d is lost, which is there", number)
			}
			delete(left, number)
		}
	}
	for number := range left { // nobody tells of these
		if len(before.records) > 0 && number < before.records[len(before.records)-1].Number {
			return 0, 0, fmt.Errorf("nobody tells that record %d is lost, but of %v", number, before.damage)
		}
	}
	j, err := Open(folder, Options{Segment: 300, Failed: func(error) {}})
	if err != nil {
		return 0, 0, fmt.Errorf("it does not open: %w", err)
	}
	added, err := j.AppendSync([]byte("added"))
	if err = errors.Join(err, j.Close()); err != nil {
		return 0, 0, err
	}
	after, err := read(folder, 0)
	same := func(a, b Record) bool { return a.Number == b.Number && bytes.Equal(a.Payload, b.Payload) }
	if err != nil || !slices.EqualFunc(after.records, append(before.records, added), same) {
		return 0, 0, fmt.Errorf("opened, there are the records %v, and were %v (%w)", after.records, before.records, err)
	}
	return lost, len(left), nil
}

// TestBitsFlipped flips each bit of each file, one at a time: it costs one record
// at most.
func TestBitsFlipped(t *testing.T) {
	s := newSample(t, many(12))
	folder := filepath.Join(powercut.Memory(t), "flipped")
	for _, name := range s.names {
		data := slices.Clone(s.files[name])
		for at := range data {
			for bit := range 8 {
				data[at] ^= 1 << bit
				check(t, s.with(folder, name, data))
				data[at] ^= 1 << bit
				lost, _, err := s.examine(folder)
				if at >= int(beginSize) && lost != 1 || at < int(beginSize) && lost != 0 {
					err = errors.Join(err, fmt.Errorf("%d records are lost", lost))
				}
				if err != nil {
					t.Fatalf("bit %d of byte %d of %s: %v", bit, at, name, err)
				}
			}
		}
	}
	if len(s.names) < 3 {
		t.Errorf("there are only %v", s.names)
	}
}

// TestPrefixes has each file be as short as it can, with nothing, zeros and rubbish
// behind. All that was whole is there. In the last file that is a crash.
func TestPrefixes(t *testing.T) {
	s := newSample(t, many(12))
	folder := filepath.Join(powercut.Memory(t), "prefix")
	rubbish := bytes.Repeat([]byte("rubbish"), 20)
	for i, name := range s.names {
		data := s.files[name]
		for size := range data {
			for _, rest := range [][]byte{nil, make([]byte, len(data)-size), make([]byte, 5000), rubbish} {
				check(t, s.with(folder, name, append(slices.Clone(data[:size]), rest...)))
				lost, tail, err := s.examine(folder)
				whole := 0 // of the file
				for r, err := range Records(folder, 0) {
					if err == nil && r.Position.Offset < int64(size) && strings.HasPrefix(name, fmt.Sprintf("%020d", r.Position.Segment)) && string(r.Payload) != "added" {
						whole++
					}
				}
				isLast := i == len(s.names)-1
				if want := wholeFrames(data, size); whole != want || isLast != (tail > 0) && size >= int(beginSize) {
					err = errors.Join(err, fmt.Errorf("%d are whole, want %d; %d are lost, %d at the end", whole, want, lost, tail))
				}
				if err != nil {
					t.Fatalf("the first %d bytes of %s and %d more: %v", size, name, len(rest), err)
				}
			}
		}
	}
}

// wholeFrames counts the records in the first bytes of a segment.
func wholeFrames(data []byte, size int) (n int) {
	for at := int(beginSize); ; n++ {
		if at+headerSize > len(data) {
			return n
		}
		if at += headerSize + int(data[at+4]); at > size { // none is longer than 255
			return n
		}
	}
}

// TestSectorsLost loses stretches in the middle: what was written in their place
// are zeros.
func TestSectorsLost(t *testing.T) {
	s := newSample(t, many(12))
	folder := filepath.Join(powercut.Memory(t), "lost")
	for _, name := range s.names {
		for from := 0; from < len(s.files[name]); from += 3 {
			for _, size := range []int{1, 8, 30, 64, 100, 200} {
				data := slices.Clone(s.files[name])
				clear(data[from:min(from+size, len(data))])
				if bytes.Equal(data, s.files[name]) {
					continue
				}
				check(t, s.with(folder, name, data))
				if _, _, err := s.examine(folder); err != nil {
					t.Fatalf("%d bytes from %d on of %s: %v", size, from, name, err)
				}
			}
		}
	}
}

// A file that is gone, empty, or another one is told of.
func TestFilesLost(t *testing.T) {
	s := newSample(t, many(12))
	folder := filepath.Join(powercut.Memory(t), "lost")
	for i, name := range s.names {
		for _, content := range [][]byte{nil, {}, s.files[s.names[(i+1)%len(s.names)]], bytes.Repeat([]byte("rubbish "), 100)} {
			check(t, s.with(folder, name, content))
			lost, tail, err := s.examine(folder)
			first, last := i == 0, i == len(s.names)-1
			// Without the first file it is as if that had been dropped.
			if err != nil && (!first || content != nil) {
				t.Fatalf("%s has %d bytes: %v", name, len(content), err)
			}
			if lost == 0 && err == nil || tail > 0 && !last {
				t.Errorf("%s has %d bytes: %d are lost, %d at the end", name, len(content), lost, tail)
			}
		}
	}
}

// A payload cannot be taken for records, whatever is in it and however damaged the
// record is that it belongs to.
func TestForged(t *testing.T) {
	folder := t.TempDir()
	j := open(t, folder, Options{Failed: func(error) {}})
	s := (*j.segments.Load())[0]
	copied := appendFrame(nil, s.salt, beginSize, 2, time.Now(), []byte("a copy"))
	var forged []byte
	for range 1000 { // whoever fills payloads does not know the salt
		for number := range uint64(5) {
			forged = appendFrame(forged, rand.Uint32(), beginSize+headerSize+int64(len(forged)), number, time.Now(), []byte("forged"))
		}
	}
	add(t, j, 1, string(copied)+string(forged), string(copied), "three")
	check(t, j.Close())
	file := segments(t, folder)[0]
	data, err := os.ReadFile(file)
	check(t, err)
	for from := range headerSize {
		damaged := slices.Clone(data)
		clear(damaged[int(beginSize)+from:][:headerSize-from])
		check(t, os.WriteFile(file, damaged, 0o600))
		f, err := read(folder, 0)
		check(t, err)
		if len(f.records) != 2 || len(f.damage) != 1 || f.damage[0].From != 1 || f.damage[0].To != 1 || string(f.records[1].Payload) != "three" {
			t.Fatalf("there are %d records, and damage %v", len(f.records), f.damage)
		}
	}
}

// A journal of another version is left alone, and one of whose files nothing can be
// read goes on in another.
func TestUnreadable(t *testing.T) {
	folder := t.TempDir()
	s := segment{first: 1, salt: 7}
	later := bytes.Replace([]byte(beginning), []byte("1"), []byte("2"), 1)
	check(t, os.WriteFile(s.path(folder), appendFrame(nil, s.salt, 0, 0, time.Now(), later), 0o600))
	if _, err := Open(folder, Options{}); !errors.Is(err, errVersion) || !strings.Contains(err.Error(), s.name()) {
		t.Errorf("it opens: %v", err)
	}
	if _, err := read(folder, 0); !errors.Is(err, errVersion) {
		t.Errorf("it is read: %v", err)
	}
	rubbish := bytes.Repeat([]byte("rubbish "), 1000)
	check(t, os.WriteFile(s.path(folder), rubbish, 0o600))
	var told []error
	j := open(t, folder, Options{Failed: func(err error) { told = append(told, err) }})
	r, err := j.AppendSync([]byte("x"))
	check(t, err)
	if len(told) != 1 || r.Number <= uint64(len(rubbish))/headerSize {
		t.Errorf("told of %v, it goes on with %d", told, r.Number)
	}
	if left, err := os.ReadFile(s.path(folder)); err != nil || !bytes.Equal(left, rubbish) {
		t.Errorf("what could not be read is changed: %v", err)
	}
	f, err := read(folder, 0)
	check(t, err)
	if len(f.records) != 1 || len(f.damage) != 1 || f.damage[0].From != 1 || f.damage[0].To != r.Number-1 || f.damage[0].File != s.path(folder) {
		t.Errorf("there are %v", f)
	}
}

// FuzzSegment reads whatever is in a file.
func FuzzSegment(f *testing.F) {
	s := segment{first: 5, salt: 7}
	data := appendFrame(nil, s.salt, 0, 4, time.Now(), []byte(beginning))
	for n := range uint64(3) {
		data = appendFrame(data, s.salt, int64(len(data)), 5+n, time.Now(), fmt.Append(nil, n))
	}
	f.Add(data, uint16(50), byte(1))
	f.Add([]byte{}, uint16(0), byte(0))
	f.Fuzz(func(t *testing.T, data []byte, at uint16, flip byte) {
		if int(at) < len(data) {
			data[at] ^= flip
		}
		folder := t.TempDir()
		check(t, os.WriteFile(s.path(folder), data, 0o600))
		if _, err := read(folder, 0); err != nil && !errors.Is(err, errVersion) {
			t.Fatal(err)
		}
		j, err := Open(folder, Options{Failed: func(error) {}})
		if errors.Is(err, errVersion) {
			return
		}
		check(t, err)
		r, err := j.Append([]byte("x"))
		check(t, errors.Join(err, j.Close()))
		f, err := read(folder, r.Number-1)
		check(t, err)
		if len(f.records) != 1 || string(f.records[0].Payload) != "x" {
			t.Fatalf("there are %v", f)
		}
	})
}

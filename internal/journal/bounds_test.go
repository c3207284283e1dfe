package journal

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What does not fit goes, the oldest first, and what is told of it is true.
func TestMaxBytes(t *testing.T) {
	folder := t.TempDir()
	o := Options{Segment: 1000, MaxBytes: 5000}
	j := open(t, folder, o)
	payloads := many(500)
	for i, payload := range payloads {
		r := add(t, j, uint64(i+1), payload)[0]
		size := int64(0)
		for _, path := range segments(t, folder) {
			info, err := os.Stat(path)
			check(t, err)
			size += info.Size()
			if info.Size() > o.Segment {
				t.Errorf("%s has %d bytes", path, info.Size())
			}
		}
		if size > o.MaxBytes || size != j.Size() {
			t.Fatalf("it has %d bytes, and says %d", size, j.Size())
		}
		if i%50 == 0 { // reads on as it was
			check(t, j.Close())
			j = open(t, folder, o)
		}
		if got, err := j.At(r.Position); err != nil || string(got.Payload) != payload {
			t.Errorf("%q, %v", got.Payload, err)
		}
	}
	first, last, err := Numbers(folder)
	if err != nil || last != 500 || first < 400 || first > 460 {
		t.Errorf("the numbers are %d to %d (%v)", first, last, err)
	}
	wants(t, folder, 0, first, payloads[first-1:]...)
	wants(t, folder, 495, 496, payloads[495:]...)
	if _, err := j.At(Position{Segment: 1, Offset: beginSize}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was dropped is there: %v", err)
	}
	// A record that is larger than a segment has one of its own.
	large := strings.Repeat("l", 3000)
	add(t, j, 501, large, "small")
	wants(t, folder, 500, 501, large, "small")
}

// What is too old goes, and nothing that is younger than seven eighths of that.
func TestMaxAge(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const age = 8 * time.Hour
		j := open(t, folder, Options{MaxAge: age})
		written := map[uint64]time.Time{}
		for minute := range 48 * 60 {
			if hour := minute / 60; hour < 20 || hour > 40 {
				r, err := j.Append([]byte("x"))
				check(t, err)
				written[r.Number] = r.Time
			}
			check(t, j.Trim())
			if minute%10 > 0 {
				time.Sleep(time.Minute)
				continue
			}
			f, err := read(folder, 0)
			check(t, err)
			there := map[uint64]bool{}
			for _, r := range f.records {
				there[r.Number] = true
				if time.Since(r.Time) >= age {
					t.Fatalf("a record is %v old", time.Since(r.Time))
				}
			}
			for number, at := range written {
				if !there[number] && time.Since(at) < age*7/8-time.Minute {
					t.Fatalf("a record has gone after %v", time.Since(at))
				}
			}
			if len(f.damage) > 0 {
				t.Errorf("it tells of %v", f.damage)
			}
			time.Sleep(time.Minute)
		}
		if files := segments(t, folder); len(files) > 10 {
			t.Errorf("there are %d files", len(files))
		}
		check(t, j.Close())
	})
}

func TestDrop(t *testing.T) {
	folder := t.TempDir()
	j := open(t, folder, Options{Segment: 500})
	payloads := many(100)
	add(t, j, 1, payloads...)
	all, err := list(folder)
	check(t, err)
	check(t, j.Drop(all[3].first-1))
	wants(t, folder, 0, all[2].first, payloads[all[2].first-1:]...)
	check(t, j.Drop(all[3].first))
	wants(t, folder, 0, all[3].first, payloads[all[3].first-1:]...)
	check(t, j.Drop(math.MaxUint64)) // leaves the one that is written to
	if left := segments(t, folder); len(left) != 1 {
		t.Errorf("there are %v", left)
	}
	add(t, j, 101, "x")
}

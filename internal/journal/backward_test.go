package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// TestBackward: reading backward finds what reading forward finds, in the other order,
// wherever it begins and however many segments there are.
func TestBackward(t *testing.T) {
	folder := t.TempDir() + "/j"
	j := open(t, folder, Options{Segment: 1 << 10})
	for i := range 500 {
		add(t, j, uint64(i+1), fmt.Sprintf("%d %s", i+1, bytes.Repeat([]byte("x"), i%90)))
	}
	if all, err := list(folder); err != nil || len(all) < 20 {
		t.Fatalf("there are %d segments, %v", len(all), err)
	}
	for _, before := range []uint64{0, 1, 2, 17, 250, 500, 501, 9999} {
		for _, every := range []uint64{1, 7, 1000} {
			var want []uint64
			for r, err := range Records(folder, 0) {
				check(t, err)
				if (before == 0 || r.Number < before) && r.Number%every == 0 {
					want = append([]uint64{r.Number}, want...)
				}
			}
			var got []uint64
			var kept [][]byte
			for r, err := range Backward(folder, before, func(r Record) bool { return r.Number%every == 0 }) {
				check(t, err)
				got, kept = append(got, r.Number), append(kept, r.Payload)
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("before %d every %d: %v, want %v", before, every, got, want)
			}
			for i, payload := range kept {
				if !bytes.HasPrefix(payload, fmt.Appendf(nil, "%d ", got[i])) {
					t.Errorf("the payload of %d is %q", got[i], payload)
				}
			}
		}
	}
}

// TestBackwardStops: whoever stops early has nothing running behind their back.
func TestBackwardStops(t *testing.T) {
	folder := t.TempDir() + "/j"
	j := open(t, folder, Options{Segment: 1 << 10})
	for i := range 200 {
		add(t, j, uint64(i+1), fmt.Sprint(i, bytes.Repeat([]byte("x"), 50)))
	}
	for stop := range 30 {
		var ended atomic.Bool
		n := 0
		for r, err := range Backward(folder, 0, func(Record) bool {
			if ended.Load() {
				t.Error("match is called after the end")
			}
			return true
		}) {
			check(t, err)
			if n++; r.Number != uint64(201-n) {
				t.Errorf("record %d came %dth", r.Number, n)
			}
			if n > stop {
				break
			}
		}
		ended.Store(true)
	}
}

// TestBackwardDamage: damage is reported in its place, and the others are read.
func TestBackwardDamage(t *testing.T) {
	folder := t.TempDir() + "/j"
	j := open(t, folder, Options{})
	records := add(t, j, 1, "one", "two", "three", "four")
	all, err := list(folder)
	check(t, err)
	file, err := os.OpenFile(all[0].path(folder), os.O_RDWR, 0)
	check(t, err)
	_, err = file.WriteAt([]byte{'!'}, records[1].Position.Offset+headerSize)
	check(t, errors.Join(err, file.Close()))
	var got string
	for r, err := range Backward(folder, 0, func(Record) bool { return true }) {
		var damage *Damage
		switch {
		case errors.As(err, &damage):
			got += fmt.Sprintf("damage of %d to %d ", damage.From, damage.To)
		default:
			check(t, err)
			got += string(r.Payload) + " "
		}
	}
	if got != "four three damage of 2 to 2 one " {
		t.Errorf("read %q", got)
	}
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	for r, err := range Backward(folder, 0, func(Record) bool { return true }) {
		t.Errorf("of no folder: %v, %v", r, err)
	}
	check(t, os.Mkdir(folder, 0o700))
}

// TestBound: above the bound there are only records that were written after a time.
func TestBound(t *testing.T) {
	folder := t.TempDir()
	if before, err := Bound(folder, time.Now()); before != 0 || err != nil {
		t.Errorf("in an empty folder it is %d, %v", before, err)
	}
	j := open(t, folder, Options{Segment: 1 << 10})
	all := add(t, j, 1, many(200)...)
	if n := len(segments(t, folder)); n < 3 {
		t.Fatalf("there are %d segments", n)
	}
	found := 0
	for _, r := range all {
		before, err := Bound(folder, r.Time)
		check(t, err)
		if before == 0 {
			continue
		}
		if found++; before <= r.Number || !all[before-1].Time.After(r.Time) {
			t.Errorf("behind the record %d it is %d", r.Number, before)
		}
	}
	if found == 0 {
		t.Error("there is never one")
	}
	for at, want := range map[time.Time]uint64{{}: 1, all[len(all)-1].Time: 0} {
		if before, err := Bound(folder, at); before != want || err != nil {
			t.Errorf("for %v it is %d, %v", at, before, err)
		}
	}
}

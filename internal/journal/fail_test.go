package journal

import (
	"bytes"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// limited lets no file get larger than that while do runs: the disk is full.
func limited(t *testing.T, bytes int64, do func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var before syscall.Rlimit
	check(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before))
	check(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: uint64(bytes), Max: before.Max}))
	defer func() { check(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before)) }()
	do()
}

// A write that breaks off fails, leaves nothing, and harms no other; its number is
// not given again.
func TestDiskFull(t *testing.T) {
	folder := t.TempDir()
	j := open(t, folder, Options{})
	first := add(t, j, 1, "one")[0]
	limited(t, first.Position.Offset+2*headerSize+20, func() {
		for _, appendTo := range []func([]byte) (Record, error){j.Append, j.AppendSync} {
			if r, err := appendTo(bytes.Repeat([]byte("lost"), 20)); err == nil {
				t.Errorf("there is %v", r)
			}
		}
		add(t, j, 4, "four") // which there is room for
	})
	add(t, j, 5, "five")
	check(t, j.Sync())
	for range 2 {
		f, err := read(folder, 0)
		check(t, err)
		if len(f.damage) > 0 || len(f.records) != 3 || f.records[1].Number != 4 || f.records[2].Number != 5 {
			t.Errorf("there are %v", f)
		}
		wants(t, folder, 1, 4, "four", "five")
		check(t, j.Close())
		j = open(t, folder, Options{})
	}
}

// replaceFile has a journal write to another file.
func (j *Journal) replaceFile(file *os.File) (before *os.File) {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	before, j.file = j.file, file
	return before
}

// Where what broke off cannot be undone the next record goes to another file.
func TestUndoFails(t *testing.T) {
	folder := t.TempDir()
	j := open(t, folder, Options{})
	add(t, j, 1, "one")
	null, err := os.Open(os.DevNull) // not open for writing
	check(t, err)
	before := j.replaceFile(null)
	if r, err := j.AppendSync([]byte("lost")); err == nil {
		t.Errorf("there is %v", r)
	}
	_, err = before.WriteAt([]byte("part of it"), j.end)
	check(t, errors.Join(err, before.Close()))
	add(t, j, 3, "three")
	f, err := read(folder, 0)
	check(t, err)
	if len(segments(t, folder)) != 2 || len(f.records) != 2 || len(f.damage) > 0 {
		t.Errorf("%v in %v", f, segments(t, folder))
	}
}

// When a sync fails whoever waits for it is told, and no later sync is taken for
// it. Readers are told of what is lost.
func TestSyncFails(t *testing.T) {
	folder := t.TempDir()
	j := open(t, folder, Options{})
	add(t, j, 1, "one")
	check(t, j.Sync())
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0) // which takes all, and cannot be synced
	check(t, err)
	before := j.replaceFile(null)
	if _, err := j.AppendSync([]byte("two")); err == nil {
		t.Error("it is synced")
	}
	if _, err := j.AppendSync([]byte("three")); err != nil {
		t.Error(err)
	}
	check(t, before.Close())
	add(t, j, 4, "four")
	check(t, j.Sync())
	f, err := read(folder, 0)
	check(t, err)
	if len(f.damage) != 1 || f.damage[0].From != 2 || f.damage[0].To != 2 || len(f.records) != 3 {
		t.Errorf("there are %v", f)
	}
	wants(t, folder, 2, 3, "three", "four")
}

// Whoever is in the middle of a group whose sync fails is told, too, and when
// nobody waits Failed is.
func TestSyncFailsWhileRotating(t *testing.T) {
	folder := t.TempDir()
	var told []error
	j := open(t, folder, Options{Segment: 200, Failed: func(err error) { told = append(told, err) }})
	add(t, j, 1, "one")
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	check(t, err)
	check(t, j.replaceFile(null).Close())
	group := j.group
	add(t, j, 2, "two")
	add(t, j, 3, strings.Repeat("large", 100))
	if len(told) != 1 || j.sync(group) == nil {
		t.Errorf("told of %v", told)
	}
	check(t, j.Sync())
}

// When no segment can be begun the last one goes on, and nothing is dropped.
func TestRotationFails(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "journal")
	failed := 0
	j := open(t, folder, Options{Segment: 200, MaxBytes: 2000, Failed: func(error) { failed++ }})
	payloads := many(60)
	add(t, j, 1, payloads[:10]...)
	check(t, os.Rename(folder, folder+" elsewhere"))
	add(t, j, 11, payloads[10:50]...)
	check(t, os.Rename(folder+" elsewhere", folder))
	wants(t, folder, 0, 1, payloads[:50]...)
	if failed < 30 {
		t.Errorf("%d failures were told", failed)
	}
	add(t, j, 51, payloads[50:]...)
	wants(t, folder, 50, 51, payloads[50:]...)
}

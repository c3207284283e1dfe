package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/flockofbirds/fob/internal/store"
	"github.com/flockofbirds/fob/internal/store/storetest"
)

func TestOpenMakesFolder(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "a", "b[c]*") // nothing of it a pattern
	path := filepath.Join(folder, "fob.db")
	openBolt(t, path)
	if info, err := os.Stat(folder); err != nil || info.Mode().Perm() != 0o700 {
		t.Error("the folder:", info.Mode(), err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Error("the database:", info.Mode(), err)
	}
	wantAlone(t, path)
}

// wantAlone checks that nothing but the database is in its folder.
func wantAlone(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 || entries[0].Name() != filepath.Base(path) {
		t.Error("in the folder:", entries, err)
	}
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fob.db")
	kv := openBolt(t, path)
	s := newStore(t, kv)
	aviary, err := s.Aviary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fn, code := storetest.NewFunction("hello")
	if err := s.CreateFunction(t.Context(), fn, code, "00aa"); err != nil {
		t.Fatal(err)
	}
	before, err := kv.List(t.Context(), "", "", 100)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error("closed again:", err)
	}

	kv = openBolt(t, path)
	s = newStore(t, kv)
	after, err := kv.List(t.Context(), "", "", 100)
	if err != nil || len(before) != len(after) {
		t.Fatal(before, after, err)
	}
	for i := range after {
		if before[i].Key != after[i].Key || before[i].Revision != after[i].Revision || before[i].Created != after[i].Created {
			t.Errorf("%+v became %+v", before[i], after[i])
		}
	}
	if again, err := s.Aviary(t.Context()); again != aviary {
		t.Errorf("the aviary was %s and is %s (%v)", aviary, again, err)
	}
	// Revisions go on where they were.
	if err := kv.Commit(t.Context(), store.Txn{Put: []store.Pair{{Key: "k"}}}); err != nil {
		t.Fatal(err)
	}
	e, err := kv.Get(t.Context(), "k")
	if err != nil || e.Revision <= after[0].Revision {
		t.Error(e, err)
	}
}

// TestFirstStartersRace has many initialise the same folder at once: each gets
// the lock in turn, and all see the one database.
func TestFirstStartersRace(t *testing.T) {
	for range 5 {
		path := filepath.Join(t.TempDir(), "data", "fob.db")
		var wg sync.WaitGroup
		aviaries := make(chan string, 8)
		for range 8 {
			wg.Go(func() {
				s, err := store.Open(t.Context(), path, true)
				if err != nil {
					t.Error(err)
					return
				}
				aviary, err := s.Aviary(t.Context())
				if err != nil {
					t.Error(err)
				}
				fn, code := storetest.NewFunction("")
				if err := s.CreateFunction(t.Context(), fn, code, ""); err != nil {
					t.Error(err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				aviaries <- aviary
			})
		}
		wg.Wait()
		close(aviaries)
		first := <-aviaries
		for aviary := range aviaries {
			if aviary != first {
				t.Errorf("aviaries %s and %s", first, aviary)
			}
		}
		s := newStore(t, openBolt(t, path))
		if functions, err := s.Functions(t.Context()); err != nil || len(functions) != 8 {
			t.Errorf("%d functions of 8 (%v)", len(functions), err)
		}
		wantAlone(t, path)
	}
}

// TestLeftoversAreCleared finds what initialisations leave that died before,
// and after, they linked their file into place.
func TestLeftoversAreCleared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fob.db")
	if err := os.WriteFile(path+".new-123", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	kv := openBolt(t, path)
	wantAlone(t, path)
	if err := kv.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(path, path+".new-456"); err != nil {
		t.Fatal(err)
	}
	openBolt(t, path)
	wantAlone(t, path)
}

func TestHeldLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fob.db")
	holder := openBolt(t, path)
	_, err := store.OpenBolt(t.Context(), path, false)
	wantMessage(t, err, "another dispatcher uses "+filepath.Dir(path), "--standby", "FOB_DATA")

	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan error)
	go func() {
		_, err := store.OpenBolt(ctx, path, true)
		waiting <- err
	}()
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Error("gave up waiting:", err)
	}

	go func() {
		kv, err := store.OpenBolt(t.Context(), path, true)
		if err == nil {
			err = kv.Close()
		}
		waiting <- err
	}()
	if err := holder.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; err != nil {
		t.Error("after the lock was released:", err)
	}
}

// That the lock is had is told before anything is read, which may take long, and
// once.
func TestLockIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fob.db")
	told := 0
	tell := func() {
		told++
		if _, err := store.OpenBolt(t.Context(), path, false); err == nil || !strings.Contains(err.Error(), "another dispatcher uses") {
			t.Errorf("it is told, and the lock is free: %v", err)
		}
		check(t, os.WriteFile(path, make([]byte, 1<<16), 0o600)) // what is read comes later
	}
	if _, err := store.OpenBolt(t.Context(), path, false, tell); err == nil {
		t.Error("what was made of the file meanwhile was not read")
	}
	if told != 1 {
		t.Errorf("it is told %d times", told)
	}
	holder := filepath.Join(t.TempDir(), "fob.db")
	openBolt(t, holder)
	if _, err := store.OpenBolt(t.Context(), holder, false, func() { t.Error("it is told of another's lock") }); err == nil {
		t.Error("two have the lock")
	}
}

func wantMessage(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Error("no error")
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error is %q, want %q in it", err, part)
		}
	}
}

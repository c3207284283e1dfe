package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// hooked is a KV that calls a hook before each commit. What the hook returns is that
// commit's error.
type hooked struct {
	KV
	before func(Txn) error
}

func (h *hooked) Commit(ctx context.Context, txn Txn) error {
	if err := h.before(txn); err != nil {
		return err
	}
	return h.KV.Commit(ctx, txn)
}

// withLarge returns fn with one version more, whose code no transaction takes.
func withLarge(fn *faas.Function, fill byte) (*faas.Function, string) {
	code := string(bytes.Repeat([]byte{fill}, 3*chunkSize+10))
	v := &faas.Version{FunctionID: fn.ID, Number: fn.Latest() + 1, Lang: "python", Settings: faas.DefaultSettings(), Created: time.Now(), Size: len(code), Digest: faas.Digest(code)}
	return fn.With(v), code
}

// wantNoStrays fails the test when there is code of no version, or a note of code that
// is being stored.
func wantNoStrays(t *testing.T, kv KV, fn *faas.Function) {
	t.Helper()
	s := &Store{kv: kv}
	want := 0
	if found, err := functionKind.get(t.Context(), kv, fn.ID); err != nil {
		t.Fatal(err)
	} else if found.record != nil {
		for _, v := range found.record.Versions {
			code, err := s.Code(t.Context(), fn.ID, v.Number)
			if err != nil || faas.Digest(code) != v.Digest {
				t.Errorf("version %d has other code: %v", v.Number, err)
			}
			want += len(chunks("", []byte(code)))
		}
	}
	for _, prefix := range []string{codeKind.prefix, stagedKind.prefix} {
		entries, err := kv.List(t.Context(), prefix, "", 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if want--; want < 0 || strings.HasPrefix(e.Key, stagedKind.prefix) {
				t.Errorf("%s is left", e.Key)
			}
		}
	}
	if want > 0 {
		t.Errorf("%d chunks are missing", want)
	}
}

// TestCodeAfterCrash ends the process before each of the commits that store a large
// code. At the next start either all of the version is there or nothing.
func TestCodeAfterCrash(t *testing.T) {
	fn, code := withLarge(&faas.Function{ID: "id", Name: "hello", Created: time.Now()}, 'a')
	next, nextCode := withLarge(fn, 'b')
	next = next.Without([]int{1})
	for cut := 0; ; cut++ {
		kv := NewMemory()
		s, err := New(t.Context(), kv)
		if err == nil {
			err = s.CreateFunction(t.Context(), fn, code, "")
		}
		if err != nil {
			t.Fatal(err)
		}
		commits := 0
		s.kv = &hooked{kv, func(Txn) error {
			if commits++; commits > cut {
				return errors.New("the process is killed")
			}
			return nil
		}}
		err = s.AddVersion(t.Context(), next, nextCode, "")
		if _, err := New(t.Context(), kv); err != nil {
			t.Fatal(err)
		}
		wantNoStrays(t, kv, fn)
		functions, readErr := (&Store{kv: kv}).Functions(t.Context())
		if readErr != nil || len(functions) != 1 || (functions[0].Live().Number == 2) != (err == nil) {
			t.Errorf("after %d commits: %v, %v; %v", cut, functions, readErr, err)
		}
		if err == nil {
			if cut != 4 { // three chunks, and the rest
				t.Errorf("it took %d commits", cut)
			}
			return
		}
	}
}

// TestCodeOfTheLoser: who is overtaken while storing a large code clears up at once, and
// takes nothing away from who has the same code.
func TestCodeOfTheLoser(t *testing.T) {
	first := &faas.Function{ID: "id", Created: time.Now()}
	fn, code := withLarge(first, 'a')
	next, nextCode := withLarge(fn, 'b')
	rivals := map[string]func(s *Store) error{
		"other code": func(s *Store) error {
			other, code := withLarge(fn, 'c')
			return s.AddVersion(t.Context(), other, code, "")
		},
		"the same code": func(s *Store) error { return s.AddVersion(t.Context(), next, nextCode, "") },
		"deletion":      func(s *Store) error { return s.DeleteFunction(t.Context(), fn.ID) },
		"deletion and return": func(s *Store) error {
			return errors.Join(s.DeleteFunction(t.Context(), fn.ID), s.CreateFunction(t.Context(), fn, code, ""))
		},
		"clearing up": func(s *Store) error { return s.dropAllStaged(t.Context()) },
	}
	for name, rival := range rivals {
		for at := 1; at <= 4; at++ {
			kv := NewMemory()
			s, err := New(t.Context(), kv)
			if err == nil {
				err = s.CreateFunction(t.Context(), fn, code, "")
			}
			if err != nil {
				t.Fatal(err)
			}
			commits, rivalErr := 0, error(nil)
			loser := &Store{kv: &hooked{kv, func(Txn) error {
				if commits++; commits == at {
					rivalErr = rival(s)
				}
				return nil
			}}}
			err = loser.AddVersion(t.Context(), next, nextCode, "")
			if rivalErr != nil {
				t.Errorf("%s before commit %d: %v", name, at, rivalErr)
			}
			if err != nil && faas.CodeOf(err) != faas.CodeConflict && faas.CodeOf(err) != faas.CodeUnknownFunction {
				t.Errorf("%s before commit %d: the loser hears %v", name, at, err)
			}
			wantNoStrays(t, kv, fn)
		}
	}
}

// TestOpenOnFullDisk: what a large code has left on a disk that is full keeps nobody
// from starting, and goes at the next start with room for it.
func TestOpenOnFullDisk(t *testing.T) {
	kv := NewMemory()
	if _, err := New(t.Context(), kv); err != nil {
		t.Fatal(err)
	}
	fn, code := withLarge(&faas.Function{ID: "id", Name: "hello", Created: time.Now()}, 'a')
	commits := 0
	full := &hooked{kv, func(Txn) error {
		if commits++; commits > 2 {
			return fmt.Errorf("the database: %w", syscall.ENOSPC)
		}
		return nil
	}}
	if err := (&Store{kv: full}).CreateFunction(t.Context(), fn, code, ""); faas.CodeOf(err) != faas.CodeNoSpace {
		t.Errorf("the disk is full, and it says %v", err)
	}
	s, err := New(t.Context(), full)
	if err != nil {
		t.Fatal(err)
	}
	if functions, err := s.Functions(t.Context()); err != nil || len(functions) != 0 {
		t.Errorf("functions: %v, %v", functions, err)
	}
	if _, err := New(t.Context(), kv); err != nil {
		t.Fatal(err)
	}
	wantNoStrays(t, kv, fn)
}

// TestLargestVersion: the largest settings of a function with the most versions leave
// room for a chunk of code.
func TestLargestVersion(t *testing.T) {
	kv := NewMemory()
	s, err := New(t.Context(), kv)
	if err != nil {
		t.Fatal(err)
	}
	fn := &faas.Function{ID: "id", Name: "hello", Created: time.Now(), Aliases: map[string]int{faas.Live: 1000}}
	var kept []keptVersion
	for n := 1; n <= 1000; n++ {
		fn.Versions = append(fn.Versions, n)
		kept = append(kept, keptVersion{n, faas.Digest(fmt.Sprint(n))})
	}
	record, err := functionKind.put(fn.ID, &functionRecord{Function: fn, Versions: kept})
	if err == nil {
		err = kv.Commit(t.Context(), Txn{Put: []Pair{record}})
	}
	if err != nil {
		t.Fatal(err)
	}
	fn, code := withLarge(fn, 'a')
	// As JSON each of these is six bytes.
	env := strings.Repeat("<", 32<<10-1)
	if err := fn.Live().Settings.Env.UnmarshalJSON([]byte(`{"A":"` + env + `"}`)); err != nil {
		t.Fatal(err)
	}
	if err := s.AddVersion(t.Context(), fn, code, "00aa"); err != nil {
		t.Errorf("%v: %v", err, errors.Unwrap(err))
	}
}

package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
)

// large returns code of that size in bytes, different for each of.
func large(of string, size int) string {
	line := []byte("# " + of + "\n")
	return string(bytes.Repeat(line, size/len(line)+1)[:size])
}

// largeCode stores code that is too large for one transaction, in sizes around the
// limit.
func largeCode(t *testing.T, s faas.Store) {
	fn, _ := NewFunction("hello")
	code := large("first", 3_000_000)
	fn = withCode(fn, code)
	if err := s.CreateFunction(t.Context(), fn, code, "00aa"); err != nil {
		t.Fatal(err)
	}
	want := map[int]string{1: code}
	for i, size := range []int{512 << 10, 512<<10 + 1, 1 << 20, 1<<21 - 1, 3 << 19, 0, 5_900_000} {
		code := large(fmt.Sprint("version", i), size)
		next, _ := NextFunction(fn)
		next = withCode(next, code)
		if i >= 3 { // what is dropped is large, too
			next = next.Without([]int{i - 2})
			delete(want, i-2)
		}
		if err := s.AddVersion(t.Context(), next, code, ""); err != nil {
			t.Fatal(err)
		}
		fn, want[next.Latest()] = next, code
	}
	// Code that is there already is not stored again.
	again, _ := NextFunction(fn)
	again = withCode(again, want[fn.Latest()])
	if err := s.AddVersion(t.Context(), again, "", ""); err != nil {
		t.Fatal(err)
	}
	want[again.Latest()], fn = want[fn.Latest()], again
	wantFunctions(t, s, fn)
	for number, code := range want {
		got, err := s.Code(t.Context(), fn.ID, number)
		if err != nil || got != code {
			t.Errorf("version %d has %d bytes of code (%v), want %d", number, len(got), err, len(code))
		}
	}

	// A change that comes too late leaves nothing, and takes nothing away.
	stale, _ := NextFunction(fn)
	stale.Created = stale.Created.Add(1)
	wantCode(t, s.AddVersion(t.Context(), withCode(stale, code), code, ""), faas.CodeConflict)
	taken, _ := NewFunction("hello")
	wantCode(t, s.CreateFunction(t.Context(), withCode(taken, code), code, ""), faas.CodeNameTaken)
	wantFunctions(t, s, fn)

	if err := s.DeleteFunction(t.Context(), fn.ID); err != nil {
		t.Fatal(err)
	}
	wantFunctions(t, s)
}

// concurrentCode has several goroutines add the same large code to one function, while
// others delete the function. If the function is there afterwards, it has its code.
func concurrentCode(t *testing.T, s faas.Store) {
	code := large("shared", 2_000_000)
	for range 5 {
		fn := mustCreate(t, s, "")
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				next, _ := NextFunction(fn)
				err := s.AddVersion(t.Context(), withCode(next, code), code, "")
				if _, ok := errors.AsType[*faas.Error](err); err != nil && !ok {
					t.Error(err)
				} else if c := faas.CodeOf(err); err != nil && c != faas.CodeConflict && c != faas.CodeUnknownFunction {
					t.Error(err)
				}
				if i == 3 {
					if err := s.DeleteFunction(t.Context(), fn.ID); err != nil && faas.CodeOf(err) != faas.CodeConflict {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		functions, err := s.Functions(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, fn := range functions {
			if fn.Live().Number == 2 {
				if got, err := s.Code(t.Context(), fn.ID, 2); err != nil || got != code {
					t.Errorf("it has %d bytes of code, want %d; %v", len(got), len(code), err)
				}
			}
		}
	}
}

package storetest

import (
	"sync"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
)

// concurrentNames has many functions created with one name. Exactly one may get it.
func concurrentNames(t *testing.T, s faas.Store) {
	var wg sync.WaitGroup
	won := make(chan *faas.Function, 32)
	for range 32 {
		wg.Go(func() {
			fn, code := NewFunction("wanted")
			if err := s.CreateFunction(t.Context(), fn, code, ""); err == nil {
				won <- fn
			} else {
				wantCode(t, err, faas.CodeNameTaken)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d got the name", len(won))
	}
	wantFunctions(t, s, <-won)
}

func concurrentVersions(t *testing.T, s faas.Store) {
	fn := mustCreate(t, s, "hello")
	for range 5 {
		var wg sync.WaitGroup
		won := make(chan *faas.Function, 16)
		for i := range 16 {
			wg.Go(func() {
				next, code := NextFunction(fn)
				next.Live().Settings.Queue = i
				if err := s.AddVersion(t.Context(), next, code, ""); err == nil {
					won <- next
				} else {
					wantCode(t, err, faas.CodeConflict)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%d added version %d", len(won), fn.Latest()+1)
		}
		fn = <-won
		wantFunctions(t, s, fn)
	}
}

// concurrentRenames renames two functions to one name, while a third is created with it.
// One gets it, and the others are as they were.
func concurrentRenames(t *testing.T, s faas.Store) {
	for range 20 {
		one, two := mustCreate(t, s, "one"), mustCreate(t, s, "two")
		three, code := NewFunction("prize")
		var wg sync.WaitGroup
		errs := make([]error, 3)
		wg.Go(func() { errs[0] = s.RenameFunction(t.Context(), one.ID, "prize") })
		wg.Go(func() { errs[1] = s.RenameFunction(t.Context(), two.ID, "prize") })
		wg.Go(func() { errs[2] = s.CreateFunction(t.Context(), three, code, "") })
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else {
				wantCode(t, err, faas.CodeNameTaken)
			}
		}
		if won != 1 {
			t.Fatalf("%d got the name: %v", won, errs)
		}
		all, err := s.Functions(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, fn := range all {
			if fn.ID == one.ID && (fn.Name == "prize") != (errs[0] == nil) || fn.ID == two.ID && (fn.Name == "prize") != (errs[1] == nil) {
				t.Fatalf("%s is called %s: %v", fn.ID, fn.Name, errs)
			}
			if err := s.DeleteFunction(t.Context(), fn.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// concurrentDeletes deletes a function while a version is added to it. If the delete
// succeeds, nothing of the function may be left.
func concurrentDeletes(t *testing.T, s faas.Store) {
	for range 20 {
		fn := mustCreate(t, s, "hello")
		var wg sync.WaitGroup
		var deleted, added error
		next, code := NextFunction(fn)
		wg.Go(func() { deleted = s.DeleteFunction(t.Context(), fn.ID) })
		wg.Go(func() { added = s.AddVersion(t.Context(), next, code, "") })
		wg.Wait()
		if added != nil && faas.CodeOf(added) != faas.CodeConflict {
			wantCode(t, added, faas.CodeUnknownFunction)
		}
		if deleted != nil {
			wantCode(t, deleted, faas.CodeConflict)
			wantFunctions(t, s, next)
			if err := s.DeleteFunction(t.Context(), fn.ID); err != nil {
				t.Fatal(err)
			}
		}
		wantFunctions(t, s)
		for number := 1; number <= 2; number++ {
			_, err := s.Code(t.Context(), fn.ID, number)
			wantCode(t, err, faas.CodeUnknownFunction)
		}
	}
}

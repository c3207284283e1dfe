package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/store"
)

// Store runs the suite for a faas.Store. open returns a new, empty store at each call;
// the suite closes it.
func Store(t *testing.T, open func(t *testing.T) faas.Store) {
	for name, test := range map[string]func(*testing.T, faas.Store){
		"create":              create,
		"create refused":      createRefused,
		"order of creation":   order,
		"versions":            versions,
		"conflicts":           conflicts,
		"rename":              renameFunction,
		"delete":              deleteFunction,
		"many versions":       manyVersions,
		"dropped versions":    droppedVersions,
		"shared code":         sharedCode,
		"large code":          largeCode,
		"sandboxes":           sandboxes,
		"tokens":              tokens,
		"aviary":              aviary,
		"concurrent names":    concurrentNames,
		"concurrent versions": concurrentVersions,
		"concurrent renames":  concurrentRenames,
		"concurrent deletes":  concurrentDeletes,
		"concurrent code":     concurrentCode,
		"after close":         afterClose,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			defer func() {
				if err := s.Close(); err != nil {
					t.Error("close:", err)
				}
			}()
			test(t, s)
		})
	}
}

// NewFunction returns a function with one version, as a dispatcher would make it, and
// that version's code. An empty name means no name.
func NewFunction(name string) (fn *faas.Function, code string) {
	fn = &faas.Function{ID: uuid.NewString(), Name: name, Created: time.Now()}
	v, code := nextVersion(fn)
	return fn.With(v), code
}

// NextFunction returns fn with one more version, and that version's code.
func NextFunction(fn *faas.Function) (next *faas.Function, code string) {
	v, code := nextVersion(fn)
	return fn.With(v), code
}

func nextVersion(fn *faas.Function) (*faas.Version, string) {
	number := fn.Latest() + 1
	code := fmt.Sprintf("def callme():\n    return %q, %d\n", fn.ID, number)
	settings := faas.DefaultSettings()
	settings.Memory += faas.Bytes(number) << 20
	v := &faas.Version{FunctionID: fn.ID, Number: number, Lang: "python", Settings: settings, Created: time.Now()}
	return WithCode(v, code), code
}

// WithCode returns v with that code.
func WithCode(v *faas.Version, code string) *faas.Version {
	other := *v
	other.Size, other.Digest = len(code), faas.Digest(code)
	return &other
}

// withCode returns fn with that code in its live version.
func withCode(fn *faas.Function, code string) *faas.Function {
	other := *fn
	other.Current = WithCode(fn.Current, code)
	return &other
}

func wantCode(t *testing.T, err error, want faas.Code) {
	t.Helper()
	if _, ok := errors.AsType[*faas.Error](err); !ok || faas.CodeOf(err) != want {
		t.Errorf("the error is %q (%v), want %q", faas.CodeOf(err), err, want)
	}
}

func mustCreate(t *testing.T, s faas.Store, name string) *faas.Function {
	t.Helper()
	fn, code := NewFunction(name)
	if err := s.CreateFunction(t.Context(), fn, code, ""); err != nil {
		t.Fatal(err)
	}
	return fn
}

// wantFunctions ignores a time's monotonic clock and location.
func wantFunctions(t *testing.T, s faas.Store, want ...*faas.Function) {
	t.Helper()
	got, err := s.Functions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d functions, want %d", len(got), len(want))
	}
	for i := range want {
		if g, w := plain(got[i]), plain(want[i]); !reflect.DeepEqual(g, w) {
			t.Errorf("function %d is\n%+v, want\n%+v", i, g, w)
		}
	}
}

func plain(fn *faas.Function) *faas.Function {
	f, v := *fn, *fn.Current
	f.Created = f.Created.Round(0).UTC()
	v.Created = v.Created.Round(0).UTC()
	f.Current = &v
	return &f
}

// wantVersion fails the test unless the version is stored as want. A nil want means
// that it must not be there.
func wantVersion(t *testing.T, s faas.Store, id string, number int, want *faas.Version) {
	t.Helper()
	got, err := s.Version(t.Context(), id, number)
	if want == nil {
		wantCode(t, err, faas.CodeUnknownFunction)
		_, err := s.Code(t.Context(), id, number)
		wantCode(t, err, faas.CodeUnknownFunction)
		return
	}
	if err != nil {
		t.Errorf("%s@%d: %v", id, number, err)
		return
	}
	got.Created = want.Created
	if *got != *want {
		t.Errorf("%s@%d is %+v, want %+v", id, number, got, want)
	}
}

func wantText(t *testing.T, s faas.Store, id string, version int, want string) {
	t.Helper()
	if got, err := s.Code(t.Context(), id, version); err != nil || got != want {
		t.Errorf("the code of %s@%d is %q (%v), want %q", id, version, got, err, want)
	}
}

func wantSandboxes(t *testing.T, s faas.Store, want map[string]faas.VersionKey) {
	t.Helper()
	got, err := s.Sandboxes(t.Context())
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("sandboxes are %v (%v), want %v", got, err, want)
	}
}

func create(t *testing.T, s faas.Store) {
	wantFunctions(t, s)
	wantSandboxes(t, s, nil)
	fn, _ := NewFunction("hello")
	code := "def callme():\r\n\treturn '\x00é\xff'" // kept to the byte
	fn = withCode(fn, code)
	if err := s.CreateFunction(t.Context(), fn, code, "00aa"); err != nil {
		t.Fatal(err)
	}
	nameless := mustCreate(t, s, "")
	alsoNameless := mustCreate(t, s, "")
	wantFunctions(t, s, fn, nameless, alsoNameless)
	wantText(t, s, fn.ID, 1, code)
	wantSandboxes(t, s, map[string]faas.VersionKey{"00aa": {FunctionID: fn.ID, Number: 1}})
	_, err := s.Code(t.Context(), fn.ID, 2)
	wantCode(t, err, faas.CodeUnknownFunction)
	_, err = s.Code(t.Context(), uuid.NewString(), 1)
	wantCode(t, err, faas.CodeUnknownFunction)
}

func createRefused(t *testing.T, s faas.Store) {
	fn := mustCreate(t, s, "hello")
	other, code := NewFunction("hello")
	wantCode(t, s.CreateFunction(t.Context(), other, code, "00aa"), faas.CodeNameTaken)
	same := *withCode(fn, code)
	wantCode(t, s.CreateFunction(t.Context(), &same, code, "00aa"), faas.CodeConflict)
	same.Name = ""
	wantCode(t, s.CreateFunction(t.Context(), &same, code, "00aa"), faas.CodeConflict)
	two, code := NextFunction(other)
	two.Name = "two"
	wantCode(t, s.CreateFunction(t.Context(), two, code, "00aa"), faas.CodeInternal)
	wantFunctions(t, s, fn)
	wantSandboxes(t, s, nil)
	_, err := s.Code(t.Context(), other.ID, 1)
	wantCode(t, err, faas.CodeUnknownFunction)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	other.Name = "free"
	err = s.CreateFunction(ctx, withCode(other, code), code, "")
	wantCode(t, err, faas.CodeInternal)
	if !errors.Is(err, context.Canceled) {
		t.Error("the cause is lost:", err)
	}
	wantFunctions(t, s, fn)
}

// order makes more functions than a store is likely to read at a time, all created at
// the same moment.
func order(t *testing.T, s faas.Store) {
	var all []*faas.Function
	now := time.Now()
	for range 1100 {
		fn, code := NewFunction("")
		fn.Created = now
		all = append(all, fn)
		if err := s.CreateFunction(t.Context(), fn, code, ""); err != nil {
			t.Fatal(err)
		}
	}
	// A new version does not change the place.
	next, code := NextFunction(all[3])
	if err := s.AddVersion(t.Context(), next, code, ""); err != nil {
		t.Fatal(err)
	}
	all[3] = next
	wantFunctions(t, s, all...)
}

func versions(t *testing.T, s faas.Store) {
	fn := mustCreate(t, s, "hello")
	two, code := NextFunction(fn)
	if err := s.AddVersion(t.Context(), two, code, "00bb"); err != nil {
		t.Fatal(err)
	}
	wantText(t, s, fn.ID, 2, code)
	wantSandboxes(t, s, map[string]faas.VersionKey{"00bb": {FunctionID: fn.ID, Number: 2}})
	// It must be possible to build on what came back from the store, and on an alias
	// that was moved.
	stored, err := s.Functions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	three, code := NextFunction(stored[0])
	three.Aliases["stable"] = 2
	if err := s.AddVersion(t.Context(), three, code, ""); err != nil {
		t.Fatal(err)
	}
	wantFunctions(t, s, three)
	wantText(t, s, fn.ID, 3, code)
}

func conflicts(t *testing.T, s faas.Store) {
	fn := mustCreate(t, s, "hello")
	two, code := NextFunction(fn)
	if err := s.AddVersion(t.Context(), two, code, ""); err != nil {
		t.Fatal(err)
	}
	rival, rivalCode := NextFunction(fn)
	wantCode(t, s.AddVersion(t.Context(), withCode(rival, rivalCode+"#"), rivalCode+"#", "00cc"), faas.CodeConflict)
	three, _ := NextFunction(two)
	four, code4 := NextFunction(three)
	wantCode(t, s.AddVersion(t.Context(), four, code4, ""), faas.CodeConflict)
	renamed, code3 := NextFunction(two)
	renamed.Name = "other"
	wantCode(t, s.AddVersion(t.Context(), renamed, code3, ""), faas.CodeConflict)
	lost, codeLost := NextFunction(func() *faas.Function { f, _ := NewFunction(""); return f }())
	wantCode(t, s.AddVersion(t.Context(), lost, codeLost, ""), faas.CodeUnknownFunction)
	wantFunctions(t, s, two)
	wantText(t, s, fn.ID, 2, code)
	wantSandboxes(t, s, nil)
}

// renameFunction: all of a function stays but its name, and the former name is free.
func renameFunction(t *testing.T, s faas.Store) {
	other := mustCreate(t, s, "other")
	fn := mustCreate(t, s, "hello")
	wantCode(t, s.RenameFunction(t.Context(), fn.ID, "other"), faas.CodeNameTaken)
	unknown, _ := NewFunction("")
	wantCode(t, s.RenameFunction(t.Context(), unknown.ID, "free"), faas.CodeUnknownFunction)
	wantFunctions(t, s, other, fn)
	rename := func(fn *faas.Function, name string) *faas.Function {
		t.Helper()
		if err := s.RenameFunction(t.Context(), fn.ID, name); err != nil {
			t.Fatal(err)
		}
		renamed := *fn
		renamed.Name = name
		return &renamed
	}
	fn = rename(fn, "swift")
	wantFunctions(t, s, other, fn)
	next, code := NextFunction(fn)
	if err := s.AddVersion(t.Context(), next, code, ""); err != nil {
		t.Fatal(err)
	}
	again := mustCreate(t, s, "hello")
	wantFunctions(t, s, other, next, again)
	other = rename(other, "another")
	next = rename(next, "other")
	nameless := mustCreate(t, s, "")
	nameless = rename(nameless, "named")
	wantFunctions(t, s, other, next, again, nameless)
	if err := s.DeleteFunction(t.Context(), next.ID); err != nil {
		t.Fatal(err)
	}
	last := mustCreate(t, s, "other")
	wantFunctions(t, s, other, again, nameless, last)
}

func deleteFunction(t *testing.T, s faas.Store) {
	keep := mustCreate(t, s, "keep")
	fn, code := NewFunction("hello")
	if err := s.CreateFunction(t.Context(), fn, code, "00aa"); err != nil {
		t.Fatal(err)
	}
	if err := s.RecordSandbox(t.Context(), "00bb", keep.Live().Key()); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteFunction(t.Context(), fn.ID); err != nil {
		t.Fatal(err)
	}
	wantFunctions(t, s, keep)
	wantSandboxes(t, s, map[string]faas.VersionKey{"00bb": keep.Live().Key()})
	_, err := s.Code(t.Context(), fn.ID, 1)
	wantCode(t, err, faas.CodeUnknownFunction)
	wantCode(t, s.DeleteFunction(t.Context(), fn.ID), faas.CodeUnknownFunction)
	two, code := NextFunction(fn)
	wantCode(t, s.AddVersion(t.Context(), two, code, ""), faas.CodeUnknownFunction)
	// Name and ID are free again; the place in the order is a new one.
	last := mustCreate(t, s, "last")
	fn = withCode(fn, code)
	if err := s.CreateFunction(t.Context(), fn, code, ""); err != nil {
		t.Fatal(err)
	}
	wantFunctions(t, s, keep, last, fn)
}

func manyVersions(t *testing.T, s faas.Store) {
	fn := mustCreate(t, s, "hello")
	for range 200 {
		next, code := NextFunction(fn)
		if err := s.AddVersion(t.Context(), next, code, ""); err != nil {
			t.Fatal(err)
		}
		fn = next
	}
	wantFunctions(t, s, fn)
	if err := s.DeleteFunction(t.Context(), fn.ID); err != nil {
		t.Fatal(err)
	}
	for _, number := range fn.Versions {
		wantVersion(t, s, fn.ID, number, nil)
	}
}

// droppedVersions drops some of a function's versions. Those that the function keeps
// must stay.
func droppedVersions(t *testing.T, s faas.Store) {
	fn := mustCreate(t, s, "hello")
	all := map[int]*faas.Version{1: fn.Live()}
	code := map[int]string{}
	for n := 2; n <= 8; n++ {
		fn, code[n] = NextFunction(fn)
		all[n] = fn.Live()
		switch n {
		case 4:
			fn = fn.Without([]int{2, 3})
		case 6:
			fn = fn.Without([]int{1})
		case 7:
			fn.Aliases["stable"] = 4
		}
		if err := s.AddVersion(t.Context(), fn, code[n], fmt.Sprintf("%016x", n)); err != nil {
			t.Fatal(err)
		}
	}
	wantFunctions(t, s, fn)
	for n := 1; n <= 9; n++ {
		if n < 4 || n > 8 {
			wantVersion(t, s, fn.ID, n, nil)
			continue
		}
		wantVersion(t, s, fn.ID, n, all[n])
		wantText(t, s, fn.ID, n, code[n])
	}
	// Only versions that exist can be kept, and an alias needs its version.
	next, text := NextFunction(fn)
	next.Versions = []int{3, 4, 5, 6, 7, 8, 9}
	wantCode(t, s.AddVersion(t.Context(), next, text, ""), faas.CodeConflict)
	next, text = NextFunction(fn)
	wantCode(t, s.AddVersion(t.Context(), next.Without([]int{4}), text, ""), faas.CodeInternal)
	wantFunctions(t, s, fn)
	wantVersion(t, s, fn.ID, 9, nil)
}

// sharedCode has versions with the same code. The code must stay as long as one of them
// does, and so must that of another function.
func sharedCode(t *testing.T, s faas.Store) {
	const one, two = "def callme(): return 1", "def callme(): return 2"
	other, _ := NewFunction("other")
	if err := s.CreateFunction(t.Context(), withCode(other, one), one, ""); err != nil {
		t.Fatal(err)
	}
	fn, _ := NewFunction("hello")
	fn = withCode(fn, one)
	if err := s.CreateFunction(t.Context(), fn, one, ""); err != nil {
		t.Fatal(err)
	}
	add := func(digestOf, code string, drop ...int) error {
		next, _ := NextFunction(fn)
		next = withCode(next, digestOf).Without(drop)
		err := s.AddVersion(t.Context(), next, code, "")
		if err == nil {
			fn = next
		}
		return err
	}
	for _, step := range []struct {
		code, given string
		drop        []int
		want        map[int]string
	}{
		{one, "", nil, map[int]string{1: one, 2: one}},
		{two, two, nil, map[int]string{1: one, 2: one, 3: two}},
		{one, one, []int{1}, map[int]string{2: one, 3: two, 4: one}},
		{two, "", []int{3}, map[int]string{2: one, 4: one, 5: two}}, // the last version with code one goes
		{two, "", []int{2, 4}, map[int]string{5: two, 6: two}},
		{one, one, []int{5}, map[int]string{6: two, 7: one}}, // it was gone
	} {
		if err := add(step.code, step.given, step.drop...); err != nil {
			t.Fatal(err)
		}
		wantFunctions(t, s, withCode(other, one), fn)
		for n := 1; n <= 8; n++ {
			if step.want[n] == "" {
				wantVersion(t, s, fn.ID, n, nil)
			} else {
				wantText(t, s, fn.ID, n, step.want[n])
			}
		}
	}
	// Code must match its digest, and must be given if it is new.
	wantCode(t, add("new", ""), faas.CodeInternal)
	wantCode(t, add("new", "other"), faas.CodeInternal)
	if err := s.DeleteFunction(t.Context(), fn.ID); err != nil {
		t.Fatal(err)
	}
	wantText(t, s, other.ID, 1, one)
}

func sandboxes(t *testing.T, s faas.Store) {
	fn := mustCreate(t, s, "hello")
	want := map[string]faas.VersionKey{}
	for i := range 5 {
		id := fmt.Sprintf("%016x", i)
		want[id] = faas.VersionKey{FunctionID: fn.ID, Number: i + 1}
		if err := s.RecordSandbox(t.Context(), id, want[id]); err != nil {
			t.Fatal(err)
		}
	}
	wantSandboxes(t, s, want)
	first, second := fmt.Sprintf("%016x", 0), fmt.Sprintf("%016x", 1)
	if err := s.ForgetSandboxes(t.Context(), first, "never recorded", second, first); err != nil {
		t.Fatal(err)
	}
	delete(want, first)
	delete(want, second)
	wantSandboxes(t, s, want)
	if err := s.ForgetSandboxes(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantSandboxes(t, s, want)
	// More than fit into a transaction.
	many := func() (all []string) {
		for i := range 250 {
			id := fmt.Sprintf("%016x", 1000+i)
			if err := s.RecordSandbox(t.Context(), id, fn.Live().Key()); err != nil {
				t.Fatal(err)
			}
			all = append(all, id)
		}
		return all
	}
	if err := s.ForgetSandboxes(t.Context(), many()...); err != nil {
		t.Fatal(err)
	}
	wantSandboxes(t, s, want)
	many()
	if err := s.DeleteFunction(t.Context(), fn.ID); err != nil {
		t.Fatal(err)
	}
	wantSandboxes(t, s, nil)
}

func tokens(t *testing.T, s faas.Store) {
	var want []*faas.StoredToken
	for i, id := range []string{"cc", "aa", "bb"} {
		token := &faas.StoredToken{Token: faas.Token{ID: id, Name: "x", Grants: []faas.Grant{{Scope: faas.ScopeRead, Function: "hello"}}, Created: time.Now().UTC()}}
		if i > 0 {
			token.Expires = token.Created.Add(time.Hour)
		}
		token.Hash[31] = byte(i)
		if err := s.CreateToken(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		token.Created, token.Expires = token.Created.Round(0), token.Expires.Round(0) // only the wall clock is stored
		want = append(want, token)
	}
	wantCode(t, s.CreateToken(t.Context(), &faas.StoredToken{Token: faas.Token{ID: "aa"}}), faas.CodeConflict)
	for _, id := range []string{"", "aa", "never there"} {
		if id != "" {
			if err := s.DeleteToken(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		if id == "aa" {
			want = append(want[:1], want[2])
		}
		if got, err := s.Tokens(t.Context()); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("the tokens are %+v (%v), want %+v", got, err, want)
		}
	}
}

func aviary(t *testing.T, s faas.Store) {
	first, err := s.Aviary(t.Context())
	if err != nil || !regexp.MustCompile(`^[0-9a-f]{8}$`).MatchString(first) {
		t.Fatalf("the aviary is %q (%v)", first, err)
	}
	if again, err := s.Aviary(t.Context()); again != first {
		t.Errorf("the aviary became %q (%v)", again, err)
	}
}

func afterClose(t *testing.T, s faas.Store) {
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := s.Functions(t.Context())
	wantCode(t, err, faas.CodeInternal)
	fn, code := NewFunction("")
	err = s.CreateFunction(t.Context(), fn, code, "")
	wantCode(t, err, faas.CodeInternal)
	if !errors.Is(err, store.ErrClosed) {
		t.Error("the cause is lost:", err)
	}
}

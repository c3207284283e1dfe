package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/store"
)

// Store runs the suite for a faas.Store. open returns an empty one, one of its
// own at each call; the suite closes it.
func Store(t *testing.T, open func(t *testing.T) faas.Store) {
	for name, test := range map[string]func(*testing.T, faas.Store){
		"create":              create,
		"create refused":      createRefused,
		"order of creation":   order,
		"versions":            versions,
		"conflicts":           conflicts,
		"delete":              deleteFunction,
		"many versions":       manyVersions,
		"sandboxes":           sandboxes,
		"tokens":              tokens,
		"aviary":              aviary,
		"concurrent names":    concurrentNames,
		"concurrent versions": concurrentVersions,
		"concurrent deletes":  concurrentDeletes,
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

// NewFunction returns a function with one version, as a dispatcher would make
// it, and that version's code. An empty name is none.
func NewFunction(name string) (fn *faas.Function, code string) {
	fn = &faas.Function{ID: uuid.NewString(), Name: name, Created: time.Now(), Aliases: map[string]int{faas.Live: 1}}
	v, code := nextVersion(fn, 1)
	fn.Versions = []*faas.Version{v}
	return fn, code
}

// NextFunction returns fn with one version more, and that version's code.
func NextFunction(fn *faas.Function) (next *faas.Function, code string) {
	v, code := nextVersion(fn, fn.Latest().Number+1)
	return fn.With(v), code
}

func nextVersion(fn *faas.Function, number int) (*faas.Version, string) {
	code := fmt.Sprintf("def callme():\n    return %q, %d\n", fn.ID, number)
	settings := faas.DefaultSettings()
	settings.Memory += faas.Bytes(number) << 20
	return &faas.Version{
		FunctionID: fn.ID, Number: number, Lang: "python", Settings: settings, Created: time.Now(),
		Size: len(code), Digest: "sha256:" + strings.Repeat("0", 64),
	}, code
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

// wantFunctions compares all but a time's monotonic clock and location.
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
	f := *fn
	f.Created = f.Created.Round(0).UTC()
	f.Versions = nil
	for _, v := range fn.Versions {
		w := *v
		w.Created = w.Created.Round(0).UTC()
		f.Versions = append(f.Versions, &w)
	}
	return &f
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
	same := *fn
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
	err = s.CreateFunction(ctx, other, code, "")
	wantCode(t, err, faas.CodeInternal)
	if !errors.Is(err, context.Canceled) {
		t.Error("the cause is lost:", err)
	}
	wantFunctions(t, s, fn)
}

// order makes more functions than a store is likely to read at a time, all of
// them created at the same moment.
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
	// A new version is no new place.
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
	// What came back from the store can be built on as well, and so can an
	// alias that was moved.
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
	wantCode(t, s.AddVersion(t.Context(), rival, rivalCode+"#", "00cc"), faas.CodeConflict)
	onRival, rivalCode := NextFunction(rival)
	wantCode(t, s.AddVersion(t.Context(), onRival, rivalCode, ""), faas.CodeConflict)
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

func deleteFunction(t *testing.T, s faas.Store) {
	keep := mustCreate(t, s, "keep")
	fn, code := NewFunction("hello")
	if err := s.CreateFunction(t.Context(), fn, code, "00aa"); err != nil {
		t.Fatal(err)
	}
	if err := s.RecordSandbox(t.Context(), "00bb", keep.Latest().Key()); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteFunction(t.Context(), fn.ID); err != nil {
		t.Fatal(err)
	}
	wantFunctions(t, s, keep)
	wantSandboxes(t, s, map[string]faas.VersionKey{"00bb": keep.Latest().Key()})
	_, err := s.Code(t.Context(), fn.ID, 1)
	wantCode(t, err, faas.CodeUnknownFunction)
	wantCode(t, s.DeleteFunction(t.Context(), fn.ID), faas.CodeUnknownFunction)
	two, code := NextFunction(fn)
	wantCode(t, s.AddVersion(t.Context(), two, code, ""), faas.CodeUnknownFunction)
	// Name and ID are free again, and the place in the order is a new one.
	last := mustCreate(t, s, "last")
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
	for _, v := range fn.Versions {
		_, err := s.Code(t.Context(), fn.ID, v.Number)
		wantCode(t, err, faas.CodeUnknownFunction)
	}
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
		token.Created, token.Expires = token.Created.Round(0), token.Expires.Round(0) // the wall clock alone is stored
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

package catalogue

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
)

// TestOrderOfAChange: a version is proven, then stored, and only then seen. Its sandbox
// is there before that, and the one before it is retired after it.
func TestOrderOfAChange(t *testing.T) {
	w := newWorld(t)
	wants := func(want string) {
		t.Helper()
		if got := w.runner.noted(); got != want {
			t.Errorf("it went\n%s, want\n%s", got, want)
		}
	}
	w.put("swift", "")
	wants("prove(1, 0) store(1, 0) publish(1, 0)")
	w.put("swift", "")
	wants("prove(2, 1) store(2, 1) publish(2, 1) changed(2, 2)")
	w.put("swift", "keep_versions=1")
	wants("prove(3, 2) drop(2, 2) store(3, 2) publish(3, 2) changed(3, 3)")
	ref := faas.Ref{Name: "swift"}
	if _, _, err := w.Patch(t.Context(), ref, settings("timeout=7s")); err != nil {
		t.Fatal(err)
	}
	wants("prove(4, 3) drop(3, 3) store(4, 3) publish(4, 3) changed(4, 4)")
	// To switch a function off starts nothing.
	if _, _, err := w.Patch(t.Context(), ref, settings("max_concurrency=0")); err != nil {
		t.Fatal(err)
	}
	wants("drop(4, 4) store(5, 4) changed(5, 5)")
	if _, change, err := w.Patch(t.Context(), ref, settings("max_concurrency=0")); err != nil || change != faas.Unchanged {
		t.Fatal(change, err)
	}
	wants("")
	if err := w.Delete(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	wants("deleted(5, 0)")
}

// TestAChangeThatFails changes nothing, whatever it fails at.
func TestAChangeThatFails(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		w.put("swift", "")
	}
	w.runner.noted()
	before := w.lookup(faas.Ref{Name: "swift"})
	broken := errors.New("broken")
	for _, c := range []struct {
		fail func(err error)
		want string
	}{
		{func(err error) { w.runner.err = err }, "prove(4, 3)"},
		{func(err error) { w.store.err = err }, "prove(4, 3) drop(3, 3) store(4, 3) undrop(3, 3) discard(4, 3)"},
	} {
		c.fail(broken)
		_, _, err := w.Put(t.Context(), faas.Ref{Name: "swift"}, faas.Draft{Code: "def callme(): pass", Settings: settings("keep_versions=1")})
		if !errors.Is(err, broken) {
			t.Errorf("the change ends with %v", err)
		}
		if got := w.runner.noted(); got != c.want {
			t.Errorf("it went\n%s, want\n%s", got, c.want)
		}
		if _, err := w.Create(t.Context(), "swallow", faas.Draft{Code: "def callme(): pass"}); !errors.Is(err, broken) {
			t.Errorf("the creation ends with %v", err)
		}
		w.runner.noted()
		if _, _, err := w.Resolve(t.Context(), faas.Ref{Name: "swallow"}); faas.CodeOf(err) != faas.CodeUnknownFunction {
			t.Errorf("what could not be created: %v", err)
		}
		if now := w.lookup(faas.Ref{Name: "swift"}); now != before {
			t.Errorf("the function is now %+v", now)
		}
		c.fail(nil)
	}
	w.put("swift", "")
	if now := w.put("swift", ""); now.Latest() != 5 {
		t.Errorf("the numbers go on with %v", now.Versions)
	}
}

// TestDroppedVersions: the live one stays until the change is stored, and what is used
// stays.
func TestDroppedVersions(t *testing.T) {
	w := newWorld(t)
	for range 4 {
		w.put("swift", "keep_versions=100")
	}
	w.runner.inUse = map[int]bool{2: true}
	fn := w.put("swift", "keep_versions=1")
	if want := []int{2, 4, 5}; !slices.Equal(fn.Versions, want) {
		t.Errorf("the versions are %v, want %v", fn.Versions, want)
	}
	if _, _, err := w.Resolve(t.Context(), faas.Ref{Name: "swift", Version: 1}); faas.CodeOf(err) != faas.CodeUnknownFunction {
		t.Errorf("a dropped version: %v", err)
	}
	w.runner.inUse = nil
	if fn = w.put("swift", "keep_versions=1"); !slices.Equal(fn.Versions, []int{5, 6}) {
		t.Errorf("the versions are %v", fn.Versions)
	}
}

// TestAChangeIsFinished: whoever asked for it need not wait once it is stored.
func TestAChangeIsFinished(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	proven := &cancelling{w.runner, cancel}
	registrar := NewRegistrar(w.Catalogue, proven)
	fn, err := registrar.Create(ctx, "swift", faas.Draft{Code: "def callme(): pass"})
	if err != nil || ctx.Err() == nil {
		t.Fatal(err)
	}
	w.restart()
	if now := w.lookup(faas.Ref{Name: "swift"}); now == nil || now.ID != fn.ID {
		t.Errorf("after a restart it is %+v", now)
	}
}

// cancelling is a runner whose client goes away while it proves.
type cancelling struct {
	*fakeRunner
	cancel func()
}

func (r *cancelling) Prove(ctx context.Context, v *faas.Version, code string) (faas.Proof, error) {
	defer r.cancel()
	return r.fakeRunner.Prove(ctx, v, code)
}

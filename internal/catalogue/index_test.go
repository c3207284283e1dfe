package catalogue

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
)

func TestIndexKeepsTheOrderOfCreation(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	x := newIndex(nil)
	var want []*faas.Function
	ids := func() (all []string) {
		for _, place := range x.order {
			all = append(all, place.ID)
		}
		return all
	}
	wanted := func() (all []string) {
		for _, fn := range want {
			all = append(all, fn.ID)
		}
		return all
	}
	for i := range 2000 {
		if len(want) == 0 || random.IntN(3) > 0 {
			id := fmt.Sprintf("id-%d-%d", random.IntN(1000), i)
			fn := &faas.Function{ID: id, Name: "name-" + id, Created: x.stamp()}
			x.put(fn)
			want = append(want, fn)
			continue
		}
		at := random.IntN(len(want))
		if random.IntN(2) == 0 { // a new version changes no place
			next := *want[at]
			x.put(&next)
			continue
		}
		x.delete(want[at])
		want = slices.Delete(want, at, at+1)
	}
	if !slices.Equal(ids(), wanted()) {
		t.Fatalf("the order is not that of creation")
	}
	for i, fn := range want {
		if at := x.behind(fn.Place()); at != i+1 {
			t.Fatalf("what comes after %s is at %d, want %d", fn.ID, at, i+1)
		}
		if x.get(faas.Ref{Name: "name-" + fn.ID}) != x.get(faas.Ref{ID: fn.ID}) {
			t.Fatalf("%s is not found by its name", fn.ID)
		}
	}
	if len(x.byID) != len(want) || len(x.byName) != len(want) {
		t.Error("the index keeps something of what was deleted")
	}
	x.delete(&faas.Function{ID: "never there", Created: want[3].Created})
	if !slices.Equal(ids(), wanted()) {
		t.Error("deleting what is not there changed something")
	}
	// After a restart the places are the same, also of those created at the same
	// time, as an older dispatcher may have done.
	want[7].Created = want[6].Created
	slices.SortFunc(want, func(a, b *faas.Function) int { return a.Place().Compare(b.Place()) })
	shuffled := slices.Clone(want)
	random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	last := x.last
	x = newIndex(shuffled)
	if !slices.Equal(ids(), wanted()) || x.last.After(last) || !x.stamp().After(want[len(want)-1].Created) {
		t.Error("the order is another when it is read again")
	}
}

// TestListPrefix: pages of the functions whose names begin alike are all of these,
// and nothing else.
func TestListPrefix(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"shop-a", "", "other", "shop", "shop-b", "Shop-x", "shop-c"} {
		if _, err := w.Create(t.Context(), name, faas.Draft{Code: "def callme(): pass"}); err != nil {
			t.Fatal(err)
		}
	}
	for prefix, want := range map[string]string{
		"":       "shop-a  other shop shop-b Shop-x shop-c",
		"shop":   "shop-a shop shop-b shop-c",
		"shop-":  "shop-a shop-b shop-c",
		"shop-b": "shop-b",
		"Shop":   "Shop-x",
		"hop":    "",
		"shop-*": "",
	} {
		var got []string
		for after := ""; ; {
			page, err := w.List(t.Context(), prefix, after, 2)
			if err != nil || len(page) > 2 {
				t.Fatalf("%q: %d functions, %v", prefix, len(page), err)
			}
			if len(page) == 0 {
				break
			}
			for _, fn := range page {
				got = append(got, fn.Name)
			}
			after = page[len(page)-1].Place().String()
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q lists %q, want %q", prefix, got, want)
		}
	}
}

func TestListPages(t *testing.T) {
	w := newWorld(t)
	var want []string
	for range 7 {
		want = append(want, w.create().ID)
	}
	pages := func(cursor func(fn *faas.Function) string) {
		t.Helper()
		var got []string
		for after := ""; ; {
			page, err := w.List(t.Context(), "", after, 3)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, fn := range page {
				got = append(got, fn.ID)
			}
			after = cursor(page[len(page)-1])
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of 3 give %v, want %v", got, want)
		}
	}
	place := func(fn *faas.Function) string { return fn.Place().String() }
	pages(place)
	pages(func(fn *faas.Function) string { return fn.ID }) // as they were before
	// What is deleted has its place still, after a restart too.
	for _, restart := range []bool{false, true} {
		page, err := w.List(t.Context(), "", "", 3)
		if err != nil {
			t.Fatal(err)
		}
		after := place(page[2])
		if err := w.Delete(t.Context(), faas.Ref{ID: page[2].ID}); err != nil {
			t.Fatal(err)
		}
		if restart {
			w.restart()
		}
		want = append(slices.Delete(want, 2, 3), w.create().ID)
		rest, err := w.List(t.Context(), "", after, 100)
		var got []string
		for _, fn := range rest {
			got = append(got, fn.ID)
		}
		if err != nil || !slices.Equal(got, want[2:]) {
			t.Errorf("after the deleted one come %v, %v; want %v", got, err, want[2:])
		}
		pages(place)
		if _, err := w.List(t.Context(), "", page[2].ID, 3); faas.CodeOf(err) != faas.CodeBadRequest {
			t.Errorf("a page after the ID of a deleted function: %v", err)
		}
	}
	ids, err := w.IDs(t.Context())
	if err != nil || !slices.Equal(ids, want) {
		t.Errorf("IDs: %v, %v", ids, err)
	}
}

func TestResolve(t *testing.T) {
	w := newWorld(t)
	w.put("swift", "")
	fn := w.put("swift", "")
	for _, c := range []struct {
		ref  string
		want int // 0: unknown
	}{
		{"swift", 2}, {"swift:live", 2}, {"swift@1", 1}, {"swift@2", 2}, {fn.ID, 2}, {fn.ID + "@1", 1}, {fn.ID + ":live", 2},
		{"swift@3", 0}, {"swift:gold", 0}, {"swallow", 0}, {"00000000-0000-0000-0000-000000000000", 0},
	} {
		ref, err := faas.ParseRef(c.ref)
		if err != nil {
			t.Fatal(err)
		}
		_, v, err := w.Resolve(t.Context(), ref)
		switch {
		case c.want == 0 && faas.CodeOf(err) != faas.CodeUnknownFunction:
			t.Errorf("%s: %v, %v; want that it is unknown", c.ref, v, err)
		case c.want != 0 && (err != nil || v.Number != c.want):
			t.Errorf("%s: %v, %v; want version %d", c.ref, v, err, c.want)
		}
	}
}

// TestRecentVersions: versions that are asked for are not read again and again, and
// there are never too many of them in memory.
func TestRecentVersions(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		w.put("swift", "")
	}
	fn := w.lookup(faas.Ref{Name: "swift"})
	resolve := func(number int) *faas.Version {
		t.Helper()
		_, v, err := w.Resolve(t.Context(), faas.Ref{Name: "swift", Version: number})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if first := resolve(1); first != resolve(1) || first.Number != 1 {
		t.Error("the version is read anew")
	}
	resolve(3) // which is the live one
	if _, err := w.Versions(t.Context(), fn, 0, 10); err != nil || len(w.recent.versions) != 1 {
		t.Errorf("%d versions are kept, %v", len(w.recent.versions), err)
	}
	for number := range maxRecent - 1 {
		w.recent.add(&faas.Version{FunctionID: "other", Number: number})
	}
	resolve(2)
	if n := len(w.recent.versions); n != 1 {
		t.Errorf("%d versions are kept", n)
	}
	if err := w.Delete(t.Context(), faas.Ref{Name: "swift"}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Resolve(t.Context(), faas.Ref{ID: fn.ID, Version: 2}); faas.CodeOf(err) != faas.CodeUnknownFunction {
		t.Errorf("a version of a deleted function: %v", err)
	}
}

package dispatch

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
)

func TestIndexKeepsTheOrderOfCreation(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	x := newIndex(nil)
	var want []string
	for i := range 2000 {
		if len(want) == 0 || random.IntN(3) > 0 {
			id := fmt.Sprintf("id-%d-%d", random.IntN(1000), i)
			x.put(&faas.Function{ID: id, Name: "name-" + id})
			want = append(want, id)
			continue
		}
		at := random.IntN(len(want))
		if random.IntN(2) == 0 { // a new version changes no place
			x.put(&faas.Function{ID: want[at], Name: "name-" + want[at]})
			continue
		}
		x.delete(&faas.Function{ID: want[at], Name: "name-" + want[at]})
		want = slices.Delete(want, at, at+1)
	}
	if !slices.Equal(x.order, want) {
		t.Fatalf("the order is not that of creation")
	}
	for i, id := range want {
		if at, ok := x.position(id); !ok || at != i {
			t.Fatalf("%s is at %d, %t; want %d", id, at, ok, i)
		}
		if x.get(faas.Ref{Name: "name-" + id}) != x.get(faas.Ref{ID: id}) {
			t.Fatalf("%s is not found by its name", id)
		}
	}
	if len(x.byID) != len(want) || len(x.byName) != len(want) || len(x.rank) != len(want) {
		t.Error("the index keeps something of what was deleted")
	}
	x.delete(&faas.Function{ID: "never there"})
	if !slices.Equal(x.order, want) {
		t.Error("deleting what is not there changed something")
	}
}

func TestListPages(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		var want []string
		for range 7 {
			want = append(want, w.create("version", "").ID)
		}
		var got []string
		for after := ""; ; {
			page, err := w.List(t.Context(), after, 3)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, fn := range page {
				got = append(got, fn.ID)
			}
			after = got[len(got)-1]
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of 3 give %v, want %v", got, want)
		}
		if err := w.Delete(t.Context(), faas.Ref{ID: want[2]}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.List(t.Context(), want[2], 3); faas.CodeOf(err) != faas.CodeBadRequest {
			t.Errorf("a page after a deleted function: %v", err)
		}
		ids, err := w.IDs(t.Context())
		if err != nil || !slices.Equal(ids, slices.Delete(slices.Clone(want), 2, 3)) {
			t.Errorf("IDs: %v, %v", ids, err)
		}
	})
}

func TestResolve(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn, _, err := w.Put(t.Context(), faas.Ref{Name: "swift"}, faas.Draft{Code: "version"})
		if err != nil {
			t.Fatal(err)
		}
		w.put(fn, "version", "")
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
	})
}

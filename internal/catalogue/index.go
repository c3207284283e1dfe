package catalogue

import (
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// index finds functions by ID and by name, and lists them in order of creation. The
// catalogue's mu guards it.
type index struct {
	byID   map[string]*faas.Function
	byName map[string]*faas.Function
	order  []faas.Place // in order of creation
	last   time.Time    // when the last function was created, even if it is gone
}

func newIndex(functions []*faas.Function) *index {
	x := &index{
		byID:   make(map[string]*faas.Function, len(functions)),
		byName: make(map[string]*faas.Function),
	}
	for _, fn := range functions {
		x.put(fn)
	}
	return x
}

// stamp returns the creation time of a function that is about to be created. It is
// later than all earlier ones, whatever the clock says, so that the function's place
// comes after theirs.
func (x *index) stamp() time.Time {
	t := now()
	if !t.After(x.last) {
		t = x.last.Add(time.Millisecond)
	}
	x.last = t
	return t
}

// put adds a function or replaces the one that has its ID.
func (x *index) put(fn *faas.Function) {
	if _, known := x.byID[fn.ID]; !known {
		place := fn.Place()
		x.order = slices.Insert(x.order, x.behind(place), place) // usually at the end
		if fn.Created.After(x.last) {
			x.last = fn.Created
		}
	}
	if had := x.byID[fn.ID]; had != nil && had.Name != fn.Name {
		delete(x.byName, had.Name)
	}
	x.byID[fn.ID] = fn
	if fn.Name != "" {
		x.byName[fn.Name] = fn
	}
}

func (x *index) delete(fn *faas.Function) {
	place := fn.Place()
	if i := x.behind(place); i > 0 && x.order[i-1].Compare(place) == 0 {
		x.order = slices.Delete(x.order, i-1, i)
	}
	delete(x.byID, fn.ID)
	if fn.Name != "" {
		delete(x.byName, fn.Name)
	}
}

// behind returns the position in order of the first function after a place, whether or
// not a function still has that place.
func (x *index) behind(place faas.Place) int {
	return sort.Search(len(x.order), func(i int) bool { return x.order[i].Compare(place) > 0 })
}

// get returns the function that a ref names, or nil.
func (x *index) get(ref faas.Ref) *faas.Function {
	if ref.ID != "" {
		return x.byID[ref.ID]
	}
	return x.byName[ref.Name]
}

// list returns up to limit functions whose names begin with prefix, in order of
// creation. It begins after a place or after the function with that ID; "" stands for
// the beginning.
func (x *index) list(prefix, after string, limit int) ([]*faas.Function, error) {
	begin := 0
	if after != "" {
		place, err := faas.ParsePlace(after, func(id string) *faas.Function { return x.byID[id] })
		if err != nil {
			return nil, err
		}
		begin = x.behind(place)
	}
	page := make([]*faas.Function, 0, min(limit, len(x.order)-begin))
	for _, place := range x.order[begin:] {
		if len(page) == limit {
			break
		}
		if fn := x.byID[place.ID]; strings.HasPrefix(fn.Name, prefix) {
			page = append(page, fn)
		}
	}
	return page, nil
}

// ids returns the IDs of all functions in order of creation.
func (x *index) ids() []string {
	ids := make([]string, len(x.order))
	for i, place := range x.order {
		ids[i] = place.ID
	}
	return ids
}

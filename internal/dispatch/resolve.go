package dispatch

import (
	"context"
	"slices"
	"sort"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// index finds functions by ID and by name, and lists them in order of
// creation. The dispatcher's mu guards it.
type index struct {
	byID   map[string]*faas.Function
	byName map[string]*faas.Function
	order  []faas.Place // of creation
	last   time.Time    // when a function was created last, also one that is gone
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

// stamp returns when a function is created that is about to be: after all that were,
// whatever the clock says, so that its place is behind theirs.
func (x *index) stamp() time.Time {
	t := now()
	if !t.After(x.last) {
		t = x.last.Add(time.Millisecond)
	}
	x.last = t
	return t
}

// put adds a function or replaces the one with its ID.
func (x *index) put(fn *faas.Function) {
	if _, known := x.byID[fn.ID]; !known {
		place := fn.Place()
		x.order = slices.Insert(x.order, x.behind(place), place) // at the end, in most cases
		if fn.Created.After(x.last) {
			x.last = fn.Created
		}
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

// behind returns where in the order the first function is that comes after a place,
// whether there still is one at that place or not.
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

// Resolve implements faas.Registry: NAME@3 is a version, NAME:alias what the
// alias points to, and a bare ref what live points to.
func (d *Dispatcher) Resolve(ctx context.Context, ref faas.Ref) (*faas.Function, *faas.Version, error) {
	d.mu.RLock()
	fn := d.functions.get(ref)
	d.mu.RUnlock()
	if fn == nil {
		return nil, nil, faas.UnknownFunction(ref)
	}
	number := ref.Version
	if number == 0 {
		if ref.Alias == "" || ref.Alias == faas.Live {
			return fn, fn.Live(), nil
		}
		var ok bool
		if number, ok = fn.Aliases[ref.Alias]; !ok {
			return nil, nil, faas.Errorf(faas.CodeUnknownFunction, "function %s has no alias %s", ref.ID+ref.Name, ref.Alias)
		}
	}
	v, err := d.versionOf(ctx, fn, number)
	if err != nil {
		return nil, nil, err
	}
	return fn, v, nil
}

// versionOf returns a version of a function by its number: from memory the live one
// and those that have been called, the others from the store.
func (d *Dispatcher) versionOf(ctx context.Context, fn *faas.Function, number int) (*faas.Version, error) {
	if live := fn.Live(); live.Number == number {
		return live, nil
	}
	if !fn.Has(number) {
		return nil, faas.UnknownVersion(fn, number)
	}
	d.mu.RLock()
	f := d.flocks[faas.VersionKey{FunctionID: fn.ID, Number: number}]
	d.mu.RUnlock()
	if f != nil {
		return f.version, nil
	}
	v, err := d.cfg.Store.Version(ctx, fn.ID, number)
	if faas.CodeOf(err) == faas.CodeUnknownFunction { // since fn was looked up
		if fn = d.lookup(faas.Ref{ID: fn.ID}); fn != nil {
			err = faas.UnknownVersion(fn, number)
		}
	}
	return v, err
}

// Versions implements faas.Registry.
func (d *Dispatcher) Versions(ctx context.Context, fn *faas.Function, before, limit int) ([]*faas.Version, error) {
	var page []*faas.Version
	for _, number := range slices.Backward(fn.Versions) {
		if before > 0 && number >= before {
			continue
		}
		if len(page) == limit {
			break
		}
		v, err := d.versionOf(ctx, fn, number)
		if faas.CodeOf(err) == faas.CodeUnknownFunction { // dropped meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		page = append(page, v)
	}
	return page, nil
}

// List implements faas.Registry.
func (d *Dispatcher) List(_ context.Context, after string, limit int) ([]*faas.Function, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	begin := 0
	if after != "" {
		place, err := faas.ParsePlace(after, func(id string) *faas.Function { return d.functions.byID[id] })
		if err != nil {
			return nil, err
		}
		begin = d.functions.behind(place)
	}
	end := min(begin+limit, len(d.functions.order))
	page := make([]*faas.Function, 0, end-begin)
	for _, place := range d.functions.order[begin:end] {
		page = append(page, d.functions.byID[place.ID])
	}
	return page, nil
}

// IDs implements faas.Registry.
func (d *Dispatcher) IDs(context.Context) ([]string, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	ids := make([]string, len(d.functions.order))
	for i, place := range d.functions.order {
		ids[i] = place.ID
	}
	return ids, nil
}

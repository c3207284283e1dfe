package dispatch

import (
	"context"
	"slices"
	"sort"

	"github.com/flockofbirds/fob/internal/faas"
)

// index finds functions by ID and by name, and lists them in order of
// creation. The dispatcher's mu guards it.
type index struct {
	byID   map[string]*faas.Function
	byName map[string]*faas.Function
	order  []string // IDs in order of creation
	rank   map[string]int
	next   int
}

func newIndex(functions []*faas.Function) *index {
	x := &index{
		byID:   make(map[string]*faas.Function, len(functions)),
		byName: make(map[string]*faas.Function),
		rank:   make(map[string]int, len(functions)),
	}
	for _, fn := range functions {
		x.put(fn)
	}
	return x
}

// put adds a function or replaces the one with its ID.
func (x *index) put(fn *faas.Function) {
	if _, known := x.byID[fn.ID]; !known {
		x.order = append(x.order, fn.ID)
		x.rank[fn.ID] = x.next
		x.next++
	}
	x.byID[fn.ID] = fn
	if fn.Name != "" {
		x.byName[fn.Name] = fn
	}
}

func (x *index) delete(fn *faas.Function) {
	if i, ok := x.position(fn.ID); ok {
		x.order = slices.Delete(x.order, i, i+1)
	}
	delete(x.rank, fn.ID)
	delete(x.byID, fn.ID)
	if fn.Name != "" {
		delete(x.byName, fn.Name)
	}
}

// get returns the function that a ref names, or nil.
func (x *index) get(ref faas.Ref) *faas.Function {
	if ref.ID != "" {
		return x.byID[ref.ID]
	}
	return x.byName[ref.Name]
}

// position is where an ID stands in the order.
func (x *index) position(id string) (int, bool) {
	rank, ok := x.rank[id]
	if !ok {
		return 0, false
	}
	return sort.Search(len(x.order), func(i int) bool { return x.rank[x.order[i]] >= rank }), true
}

// Resolve implements faas.Registry: NAME@3 is a version, NAME:alias what the
// alias points to, and a bare ref what live points to.
func (d *Dispatcher) Resolve(_ context.Context, ref faas.Ref) (*faas.Function, *faas.Version, error) {
	d.mu.RLock()
	fn := d.functions.get(ref)
	d.mu.RUnlock()
	if fn == nil {
		return nil, nil, faas.UnknownFunction(ref)
	}
	number := ref.Version
	if number == 0 {
		alias := ref.Alias
		if alias == "" {
			alias = faas.Live
		}
		var ok bool
		if number, ok = fn.Aliases[alias]; !ok {
			return nil, nil, faas.Errorf(faas.CodeUnknownFunction, "function %s has no alias %s", ref.ID+ref.Name, alias)
		}
	}
	v := fn.Version(number)
	if v == nil {
		return nil, nil, faas.Errorf(faas.CodeUnknownFunction, "function %s has no version %d; its latest is %d", ref.ID+ref.Name, number, fn.Latest().Number)
	}
	return fn, v, nil
}

// List implements faas.Registry.
func (d *Dispatcher) List(_ context.Context, after string, limit int) ([]*faas.Function, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	begin := 0
	if after != "" {
		i, ok := d.functions.position(after)
		if !ok {
			return nil, faas.UnknownPlace(after)
		}
		begin = i + 1
	}
	end := min(begin+limit, len(d.functions.order))
	page := make([]*faas.Function, 0, end-begin)
	for _, id := range d.functions.order[begin:end] {
		page = append(page, d.functions.byID[id])
	}
	return page, nil
}

// IDs implements faas.Registry.
func (d *Dispatcher) IDs(context.Context) ([]string, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Clone(d.functions.order), nil
}

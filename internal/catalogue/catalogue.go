// Package catalogue keeps what is registered: functions, their versions and aliases,
// which function may use which secret, and what the operator permits. It owns the
// records of functions and decides when a change becomes visible. It has a Runner prove
// that a version works.
package catalogue

import (
	"context"
	"sync"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/faas"
)

// Config is what a Catalogue needs.
type Config struct {
	Store   faas.FunctionStore
	Secrets faas.SecretKeeper
	Policy  Policy
	Log     zerolog.Logger
}

// Catalogue answers what is registered. A Registrar changes it.
type Catalogue struct {
	store  faas.FunctionStore
	keeper faas.SecretKeeper
	policy Policy
	log    zerolog.Logger
	named  named
	recent recent

	mu        sync.RWMutex
	functions *index
}

// Open reads all functions from the store.
func Open(ctx context.Context, cfg Config) (*Catalogue, error) {
	functions, err := cfg.Store.Functions(ctx)
	if err != nil {
		return nil, err
	}
	return &Catalogue{
		store: cfg.Store, keeper: cfg.Secrets, policy: cfg.Policy, log: cfg.Log,
		named:     named{times: make(map[string]int)},
		recent:    recent{versions: make(map[faas.VersionKey]*faas.Version)},
		functions: newIndex(functions),
	}, nil
}

// Resolve implements faas.Registry. NAME@3 is version 3, NAME:alias the version that
// the alias points to, and a bare ref the live version.
func (c *Catalogue) Resolve(ctx context.Context, ref faas.Ref) (*faas.Function, *faas.Version, error) {
	fn := c.lookup(ref)
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
	v, err := c.version(ctx, fn, number)
	if err != nil {
		return nil, nil, err
	}
	if v != fn.Live() {
		c.recent.add(v)
	}
	return fn, v, nil
}

// Versions implements faas.Registry.
func (c *Catalogue) Versions(ctx context.Context, fn *faas.Function, before, limit int) ([]*faas.Version, error) {
	var page []*faas.Version
	for i := len(fn.Versions) - 1; i >= 0 && len(page) < limit; i-- {
		number := fn.Versions[i]
		if before > 0 && number >= before {
			continue
		}
		v, err := c.version(ctx, fn, number)
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
func (c *Catalogue) List(_ context.Context, prefix, after string, limit int) ([]*faas.Function, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.functions.list(prefix, after, limit)
}

// IDs implements faas.Registry.
func (c *Catalogue) IDs(context.Context) ([]string, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.functions.ids(), nil
}

// Code implements faas.Registry.
func (c *Catalogue) Code(ctx context.Context, v *faas.Version) (string, error) {
	return c.store.Code(ctx, v.FunctionID, v.Number)
}

// Permitted fails with CodeNotPermitted if a version's settings ask for more than the
// operator now allows.
func (c *Catalogue) Permitted(v *faas.Version) error {
	return c.policy.permit(v.Settings, faas.CodeNotPermitted)
}

// lookup returns the function that a ref names, or nil.
func (c *Catalogue) lookup(ref faas.Ref) *faas.Function {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.functions.get(ref)
}

// show makes a function, or its new state, visible.
func (c *Catalogue) show(fn *faas.Function) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.functions.put(fn)
}

// hide makes a function invisible.
func (c *Catalogue) hide(fn *faas.Function) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.functions.delete(fn)
}

// version returns a version of a function by its number. The live one and recent ones
// are in memory; the others come from the store.
func (c *Catalogue) version(ctx context.Context, fn *faas.Function, number int) (*faas.Version, error) {
	if live := fn.Live(); live.Number == number {
		return live, nil
	}
	if !fn.Has(number) {
		return nil, faas.UnknownVersion(fn, number)
	}
	if v := c.recent.get(faas.VersionKey{FunctionID: fn.ID, Number: number}); v != nil {
		return v, nil
	}
	v, err := c.store.Version(ctx, fn.ID, number)
	if faas.CodeOf(err) == faas.CodeUnknownFunction { // it was dropped after fn was looked up
		if fn = c.lookup(faas.Ref{ID: fn.ID}); fn != nil {
			err = faas.UnknownVersion(fn, number)
		}
	}
	return v, err
}

// maxRecent is how many versions are kept in memory besides the live ones.
const maxRecent = 1000

// recent keeps versions that somebody asked for by number or alias, so that calls to
// them need not read the store. It never goes out of date: versions do not change, and
// the function says which versions it still has.
type recent struct {
	mu       sync.RWMutex
	versions map[faas.VersionKey]*faas.Version
}

func (r *recent) get(key faas.VersionKey) *faas.Version {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.versions[key]
}

// add keeps a version. When there are too many, it forgets all others.
func (r *recent) add(v *faas.Version) {
	if r.get(v.Key()) == v {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.versions) >= maxRecent {
		clear(r.versions)
	}
	r.versions[v.Key()] = v
}

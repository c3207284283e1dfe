package dispatch

import (
	"context"

	"github.com/flockofbirds/fob/internal/faas"
)

// Catalogue tells what is registered, as far as a dispatcher has to know. Every
// error is (or wraps) a *faas.Error.
type Catalogue interface {
	// Resolve, List and Code are as faas.Registry's.
	Resolve(ctx context.Context, ref faas.Ref) (*faas.Function, *faas.Version, error)
	List(ctx context.Context, prefix, after string, limit int) ([]*faas.Function, error)
	Code(ctx context.Context, v *faas.Version) (string, error)

	// Permitted fails with CodeNotPermitted for a version whose settings ask for
	// more than the operator allows by now.
	Permitted(v *faas.Version) error

	// HaveSecrets fails with CodeMissingSecret unless OpenSecrets would succeed, as
	// far as can be told without opening them. OpenSecrets returns the values that a
	// version names, by name. They are the caller's to overwrite.
	HaveSecrets(ctx context.Context, v *faas.Version) error
	OpenSecrets(ctx context.Context, v *faas.Version) (map[string][]byte, error)
}

// Drop takes those versions of a function that nothing uses, at most that many, refuses
// calls of them, and returns their numbers. A version that was called keeps its flock,
// which has ended; no flock is made for the others.
func (d *Dispatcher) Drop(fn *faas.Function, versions []int, most int) (unused []int) {
	after := fn.Without(versions)
	for _, number := range versions {
		if len(unused) == most {
			break
		}
		key, why := faas.VersionKey{FunctionID: fn.ID, Number: number}, faas.UnknownVersion(after, number)
		d.mu.Lock()
		f := d.flocks[key]
		if f == nil {
			d.going[key] = why
		}
		d.mu.Unlock()
		if f == nil || f.end(why) {
			unused = append(unused, number)
		}
	}
	return unused
}

// Undrop takes Drop back.
func (d *Dispatcher) Undrop(fn *faas.Function, unused []int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget(fn, unused)
}

// forget forgets versions' flocks, which have ended, and that they were to go. The
// caller holds mu.
func (d *Dispatcher) forget(fn *faas.Function, versions []int) {
	for _, number := range versions {
		key := faas.VersionKey{FunctionID: fn.ID, Number: number}
		delete(d.flocks, key)
		delete(d.going, key)
	}
}

// Changed says that calls now see after instead of before, and that some of before's
// versions were dropped. The quota becomes after's, and the flock that was live is
// retired.
func (d *Dispatcher) Changed(before, after *faas.Function, dropped []int) {
	d.mu.Lock()
	q := d.quota(after)
	old := d.flocks[before.Live().Key()]
	d.forget(after, dropped)
	d.mu.Unlock()
	q.set(after.Live().Settings.MaxConcurrency)
	if old != nil {
		old.retire(true)
	}
	for _, number := range dropped {
		d.cfg.Metrics.ForgetVersion(after.ID, number)
	}
}

// Deleted says that a function is gone. Its calls that run go on.
func (d *Dispatcher) Deleted(fn *faas.Function) {
	var flocks []*flock
	d.mu.Lock()
	delete(d.quotas, fn.ID)
	for _, number := range fn.Versions {
		key := faas.VersionKey{FunctionID: fn.ID, Number: number}
		if f := d.flocks[key]; f != nil {
			flocks = append(flocks, f)
			delete(d.flocks, key)
		}
	}
	d.mu.Unlock()
	for _, f := range flocks {
		f.disband()
	}
	d.cfg.Metrics.Forget(fn.ID)
}

// end has a flock take no more calls, unless it has sandboxes, starts one, or calls
// wait: then it changes nothing and reports false.
func (f *flock) end(why error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.starting > 0 || f.line.len() > 0 || !f.empty() {
		return false
	}
	if f.shutErr == nil {
		f.shutErr = why
	}
	return true
}

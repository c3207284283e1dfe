package dispatch

import (
	"context"

	"github.com/flockofbirds/fob/internal/faas"
)

// Catalogue is what a dispatcher has to know about what is registered. Every error is
// (or wraps) a *faas.Error.
type Catalogue interface {
	// Resolve, List and Code are like faas.Registry's.
	Resolve(ctx context.Context, ref faas.Ref) (*faas.Function, *faas.Version, error)
	List(ctx context.Context, prefix, after string, limit int) ([]*faas.Function, error)
	Code(ctx context.Context, v *faas.Version) (string, error)

	// Permitted fails with CodeNotPermitted if a version's settings ask for more than
	// the operator now allows.
	Permitted(v *faas.Version) error

	// HaveSecrets fails with CodeMissingSecret if OpenSecrets would fail, as far as this
	// can be told without opening anything. OpenSecrets returns the values of the secrets
	// that a version names, by name. The caller should overwrite them after use.
	HaveSecrets(ctx context.Context, v *faas.Version) error
	OpenSecrets(ctx context.Context, v *faas.Version) (map[string][]byte, error)
}

// Drop picks up to most of these versions of a function that nothing uses, refuses
// calls to them from then on, and returns their numbers. A picked version that has a
// flock keeps it, but the flock has ended; the others get none.
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

// Undrop undoes Drop.
func (d *Dispatcher) Undrop(fn *faas.Function, unused []int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget(fn, unused)
}

// forget forgets the flocks of versions, which have ended, and that these versions were
// dropped. The caller holds mu.
func (d *Dispatcher) forget(fn *faas.Function, versions []int) {
	for _, number := range versions {
		key := faas.VersionKey{FunctionID: fn.ID, Number: number}
		delete(d.flocks, key)
		delete(d.going, key)
	}
}

// Changed reports that calls now see after instead of before, and which versions were
// dropped. It sets the quota to after's, and retires the flock that was live.
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
}

// Deleted reports that a function is gone. Calls that run may finish.
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

// end has a flock take no more calls. If the flock has or starts a sandbox, or calls
// wait, end does nothing and reports false.
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

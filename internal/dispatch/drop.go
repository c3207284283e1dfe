package dispatch

import "github.com/flockofbirds/fob/internal/faas"

// maxDrop is how many versions a change drops at most: they go in the transaction
// that stores the change, each with its code, and etcd allows 128 operations in one.
const maxDrop = 40

// drop is what a change of a function drops.
type drop struct {
	versions []int
	flocks   []*flock // of these versions, which take no more calls
}

// drop hides versions of a function, so that nobody comes to use one while it is
// deleted. Those that something uses stay, and so does the live one, which calls go to
// until the change is stored. The caller holds the function's lock.
func (d *Dispatcher) drop(fn *faas.Function, surplus []int) drop {
	after := fn.Without(surplus)
	flockOf := func(number int) *flock { return d.flocks[faas.VersionKey{FunctionID: fn.ID, Number: number}] }
	var unused []int
	ended := make(map[*flock]bool)
	for _, number := range surplus {
		if number == fn.Live().Number {
			continue
		}
		if len(unused) == maxDrop {
			break
		}
		d.mu.RLock()
		f := flockOf(number)
		d.mu.RUnlock()
		if f != nil && !f.end(faas.UnknownVersion(after, number)) {
			continue
		}
		ended[f] = true
		unused = append(unused, number)
	}
	if len(unused) == 0 {
		return drop{}
	}
	var dropped drop
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, number := range unused {
		f := flockOf(number)
		if f != nil && !ended[f] { // somebody has come to use it
			continue
		}
		dropped.versions = append(dropped.versions, number)
		if f != nil {
			dropped.flocks = append(dropped.flocks, f)
		}
	}
	d.functions.put(fn.Without(dropped.versions)) // from here on no flock of theirs is made
	return dropped
}

// undrop takes a drop back, because the change could not be stored.
func (d *Dispatcher) undrop(fn *faas.Function, dropped drop) {
	if len(dropped.versions) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.functions.put(fn)
	d.unflock(dropped)
}

// forget drops what else there is of versions that the store has dropped.
func (d *Dispatcher) forget(fn *faas.Function, dropped drop) {
	d.mu.Lock()
	d.unflock(dropped)
	d.mu.Unlock()
	for _, number := range dropped.versions {
		d.cfg.Metrics.ForgetVersion(fn.ID, number)
	}
}

// unflock forgets flocks that have ended. The caller holds mu.
func (d *Dispatcher) unflock(dropped drop) {
	for _, f := range dropped.flocks {
		delete(d.flocks, f.version.Key())
	}
}

// end has a flock take no more calls, unless it has sandboxes, starts one, or calls
// wait: then it changes nothing and reports false.
func (f *flock) end(why error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.starting > 0 || f.line.len() > 0 || len(f.birds)+len(f.paused)+len(f.leaving) > 0 {
		return false
	}
	if f.shutErr == nil {
		f.shutErr = why
	}
	return true
}

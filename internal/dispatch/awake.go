package dispatch

import (
	"maps"
	"slices"
	"sync"
)

// awake is the set of flocks that have something: a sandbox, a call that
// waits, or a min_scale to keep. The others cost a tick nothing, however many
// functions there are. Its lock comes after a flock's.
type awake struct {
	mu     sync.Mutex
	flocks map[*flock]struct{}
}

func (a *awake) add(f *flock) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.flocks[f] = struct{}{}
}

func (a *awake) remove(f *flock) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.flocks, f)
}

// all lists them as of now.
func (a *awake) all() []*flock {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Keys(a.flocks))
}

// wake has the tick look at a flock. The caller holds mu.
func (f *flock) wake() {
	if f.awake {
		return
	}
	f.awake = true
	f.quota.flocks = append(f.quota.flocks, f)
	f.d.awake.add(f)
}

// sleep undoes wake if there is nothing to look at. The caller holds mu.
func (f *flock) sleep() {
	kept := f.shutErr == nil && !f.retired && f.quota.limit > 0 && f.version.Settings.MinScale > 0
	if !f.awake || kept || f.line.len()+f.starting > 0 || !f.empty() {
		return
	}
	f.awake = false
	f.quota.flocks = slices.DeleteFunc(f.quota.flocks, func(other *flock) bool { return other == f })
	f.d.awake.remove(f)
}

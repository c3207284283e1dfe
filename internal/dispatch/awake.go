package dispatch

import (
	"maps"
	"slices"
	"sync"
)

// awake is the set of flocks that the tick has to look at, because they have a sandbox,
// a waiting call, or a min_scale to keep. Other flocks cost a tick nothing, however
// many functions there are. awake's lock is taken after a flock's.
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

// all returns the flocks that are awake now.
func (a *awake) all() []*flock {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Keys(a.flocks))
}

// wake makes the tick look at a flock. The caller holds mu.
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

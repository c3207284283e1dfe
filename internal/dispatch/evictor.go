package dispatch

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

const (
	// roomPatience is how long a start for a waiting call stands in line for room while
	// no idle sandbox can be evicted.
	roomPatience = 2 * time.Second

	// roomLimit is how long a start stands in line at most, for example if the engine
	// cannot remove what was evicted.
	roomLimit = time.Minute

	// roomPoll is how often the evictor looks for idle sandboxes while somebody stands
	// in line. Calls do not report that they have ended, because that would cost them
	// time.
	roomPoll = 20 * time.Millisecond

	// blankIdle is how long a sandbox must have been idle to make room for a blank one,
	// which nobody has asked for yet.
	blankIdle = 10 * time.Second
)

// evictor makes starts wait for room, and makes room by evicting idle sandboxes.
type evictor struct {
	*lifetime
	capacity  *capacity
	pools     *pools
	awake     *awake
	evictions prometheus.Counter
	log       zerolog.Logger
}

// reserve takes room for a sandbox of a version, or for more memory of one. If need be,
// it evicts idle sandboxes of others. patience is how long it waits while none is idle.
// The caller must assign the room to a sandbox or give it back.
func (e *evictor) reserve(ctx context.Context, r room, v *faas.Version, patience time.Duration) error {
	if !e.fits(v) {
		return faas.TooMuchMemory(faas.CodeNoCapacity, v.Settings.Memory, faas.Bytes(e.capacity.max.memory))
	}
	w := &claim{room: r, by: v.Key(), since: time.Now(), patience: patience, given: make(chan error, 1)}
	if e.capacity.join(w) && !e.background(e.makeRoom) {
		e.capacity.close(draining())
	}
	timer := time.NewTimer(roomLimit)
	defer timer.Stop()
	var err error
	select {
	case err := <-w.given:
		return err
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = e.capacity.full
	}
	if !e.capacity.withdraw(w) && <-w.given == nil { // it was given room just now
		e.capacity.give(r)
	}
	return err
}

// fits reports whether there can be a sandbox of a version at all.
func (e *evictor) fits(v *faas.Version) bool {
	return int64(v.Settings.Memory) <= e.capacity.max.memory
}

// crowded reports whether another sandbox of a version would need room that sandboxes
// of other functions have.
func (e *evictor) crowded(v *faas.Version) bool {
	free, line := e.capacity.look()
	for _, c := range e.pools.blanks() {
		free = free.plus(c.room)
	}
	return len(line) > 0 || !(room{1, int64(v.Settings.Memory)}).within(free)
}

// makeRoom makes room until nobody stands in line.
func (e *evictor) makeRoom() {
	poll := time.NewTicker(roomPoll)
	defer poll.Stop()
	for {
		free, line := e.capacity.look()
		e.evict(victims(free, line, append(e.pools.blanks(), e.idle(time.Now())...)))
		if !e.capacity.giveUp(time.Now()) {
			return
		}
		select {
		case <-e.ctx.Done():
			e.capacity.close(draining())
			return
		case <-e.capacity.joined:
		case <-poll.C:
		}
	}
}

// reserveBlank takes room for a blank sandbox if there is some. If not, it evicts
// sandboxes that have been idle for a while, so that there may be some later.
func (e *evictor) reserveBlank(r room) bool {
	if e.capacity.try(r) {
		return true
	}
	if free, line := e.capacity.look(); len(line) == 0 {
		e.evict(victims(free, []*claim{{room: r}}, e.idle(time.Now().Add(-blankIdle))))
	}
	return false
}

// evictDown evicts what exceeds the bounds. After a start with lower bounds there may
// be more sandboxes than they allow.
func (e *evictor) evictDown() {
	free, _ := e.capacity.look()
	if !(room{}).within(free) {
		e.evict(victims(free, nil, append(e.pools.blanks(), e.idle(time.Now())...)))
	}
}

// candidate is a sandbox that could be evicted.
type candidate struct {
	room
	inst  sandbox.Instance
	of    faas.VersionKey // zero for a blank one
	idle  time.Time       // since when; zero for a blank one
	evict func() bool     // removes it and reports true, unless it is in use by now
}

// victims chooses which candidates to evict for those in line, the first candidates
// first. free is the room that is free without evictions; if it is negative, that much
// has to be made in any case. Whoever is in line gets all that they need or nothing,
// and never before those in front of them, so nothing is evicted that does not help. A
// version does not evict its own sandboxes.
func victims(free room, line []*claim, candidates []candidate) []candidate {
	var chosen []candidate
	candidates = slices.Clone(candidates)
	for len(candidates) > 0 && !(room{}).within(free) {
		free = free.plus(candidates[0].room)
		chosen, candidates = append(chosen, candidates[0]), candidates[1:]
	}
	for _, w := range line {
		var left, more []candidate
		for _, c := range candidates {
			if w.within(free) || c.of == w.by {
				left = append(left, c)
				continue
			}
			free = free.plus(c.room)
			more = append(more, c)
		}
		if !w.within(free) {
			break
		}
		free = free.minus(w.room)
		chosen, candidates = append(chosen, more...), left
	}
	return chosen
}

// idle returns the sandboxes that nobody has used since that time and that min_scale
// does not keep, the least recently used first.
func (e *evictor) idle(until time.Time) []candidate {
	var all []candidate
	for _, f := range e.awake.all() {
		all = append(all, f.evictable(until)...)
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return a.idle.Compare(b.idle) })
	return all
}

// evict evicts the candidates that are still idle.
func (e *evictor) evict(chosen []candidate) {
	for _, c := range chosen {
		if c.evict() {
			e.capacity.removing(c.inst.ID())
			e.evictions.Inc()
			e.log.Debug().Str("sandbox", c.inst.ID()).Str("function", c.of.FunctionID).Int("version", c.of.Number).
				Time("idle_since", c.idle).Msg("evicting a sandbox to make room")
		}
	}
}

// evictable returns the flock's birds that could be evicted.
func (f *flock) evictable(until time.Time) []candidate {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []candidate
	for _, b := range f.idle() {
		if !b.idleSince.After(until) {
			all = append(all, candidate{
				room: room{1, b.inst.Spec().Limits.Memory}, inst: b.inst,
				of: f.version.Key(), idle: b.idleSince,
				evict: b.evict,
			})
		}
	}
	slices.SortFunc(all, func(a, b candidate) int { return a.idle.Compare(b.idle) })
	return all[:min(len(all), f.spare())]
}

// evict drains a bird, unless it is in use by now or is being resumed for a call.
func (b *bird) evict() bool {
	f := b.flock
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.spare() == 0 || !slices.Contains(f.idle(), b) {
		return false
	}
	b.drain()
	return true
}

// spare returns how many birds, including paused ones, min_scale does not keep. The
// caller holds mu.
func (f *flock) spare() int {
	n := len(f.birds) + len(f.paused)
	if f.retired || f.quota.limit == 0 {
		return n
	}
	return max(0, n-f.version.Settings.MinScale)
}

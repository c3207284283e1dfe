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
	// roomPatience is how long a start that a call waits for stands in line
	// while no sandbox is idle that could make room.
	roomPatience = 2 * time.Second

	// roomLimit is how long it stands there at all, such as when the engine
	// cannot remove what was evicted.
	roomLimit = time.Minute

	// roomPoll is how often it is looked for idle sandboxes while somebody
	// stands in line. Calls are not to pay for telling.
	roomPoll = 20 * time.Millisecond

	// blankIdle is how long a sandbox must have been idle to make room for a
	// blank one, which nobody has asked for yet.
	blankIdle = 10 * time.Second
)

// evictor has starts wait for room, and makes it by letting idle sandboxes go.
type evictor struct {
	*lifetime
	capacity  *capacity
	pools     *pools
	awake     *awake
	evictions prometheus.Counter
	log       zerolog.Logger
}

// reserve takes room for a sandbox of a version, or for more memory of one,
// evicting idle sandboxes of others if it must. patience is how long it waits
// when none is idle. The room is to be held by a sandbox or given back.
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
	if !e.capacity.withdraw(w) && <-w.given == nil { // just now
		e.capacity.give(r)
	}
	return err
}

// fits reports whether there can be a sandbox of a version at all.
func (e *evictor) fits(v *faas.Version) bool {
	return int64(v.Settings.Memory) <= e.capacity.max.memory
}

// crowded reports whether there is room for one more of a version only if it is taken
// from other functions' sandboxes.
func (e *evictor) crowded(v *faas.Version) bool {
	free, line := e.capacity.look()
	for _, c := range e.pools.blanks() {
		free = free.plus(c.room)
	}
	return len(line) > 0 || !(room{1, int64(v.Settings.Memory)}).within(free)
}

// makeRoom sees to those in line for room, until there is nobody.
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

// reserveBlank takes room for a blank sandbox, if there is some. If not it evicts
// what has been idle for a while, so that there may be some later.
func (e *evictor) reserveBlank(r room) bool {
	if e.capacity.try(r) {
		return true
	}
	if free, line := e.capacity.look(); len(line) == 0 {
		e.evict(victims(free, []*claim{{room: r}}, e.idle(time.Now().Add(-blankIdle))))
	}
	return false
}

// evictDown evicts what is above the caps: after a start with lower ones there
// may be more sandboxes than that.
func (e *evictor) evictDown() {
	free, _ := e.capacity.look()
	if !(room{}).within(free) {
		e.evict(victims(free, nil, append(e.pools.blanks(), e.idle(time.Now())...)))
	}
}

// candidate is a sandbox that could make room.
type candidate struct {
	room
	inst  sandbox.Instance
	of    faas.VersionKey // none for a blank one
	idle  time.Time       // since when; not set for a blank one
	evict func() bool     // removes it and reports true, unless it is in use by now
}

// victims chooses whom of the candidates, the first ones first, to evict for
// those in line. free is what is free without that; below zero it is what must
// be made room for in any case. Who is in line gets all that it needs or
// nothing, and nobody gets anything before those in front: what does not help
// is not done. No version evicts its own.
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

// idle lists the sandboxes of functions that nobody has used since that time
// and that min_scale does not keep, the least recently used first.
func (e *evictor) idle(until time.Time) []candidate {
	var all []candidate
	for _, f := range e.awake.all() {
		all = append(all, f.evictable(until)...)
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return a.idle.Compare(b.idle) })
	return all
}

// evict lets candidates go that are still idle.
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

// evictable lists the flock's birds that could be evicted.
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

// evict lets a bird go, unless it is in use by now, or being resumed for that.
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

// spare is how many birds, paused ones included, min_scale does not keep. The
// caller holds mu.
func (f *flock) spare() int {
	n := len(f.birds) + len(f.paused)
	if f.retired || f.quota.limit == 0 {
		return n
	}
	return max(0, n-f.version.Settings.MinScale)
}

package dispatch

import (
	"context"
	"slices"
	"time"

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

// reserve takes room for a sandbox of a version, or for more memory of one,
// evicting idle sandboxes of others if it must. patience is how long it waits
// when none is idle. The room is to be held by a sandbox or given back.
func (d *Dispatcher) reserve(ctx context.Context, r room, v *faas.Version, patience time.Duration) error {
	if !d.fits(v) {
		return faas.TooMuchMemory(faas.CodeNoCapacity, v.Settings.Memory, faas.Bytes(d.capacity.max.memory))
	}
	w := &claim{room: r, by: v.Key(), since: time.Now(), patience: patience, given: make(chan error, 1)}
	if d.capacity.join(w) && !d.background(d.makeRoom) {
		d.capacity.close(draining())
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
		err = d.capacity.full
	}
	if !d.capacity.withdraw(w) && <-w.given == nil { // just now
		d.capacity.give(r)
	}
	return err
}

// fits reports whether there can be a sandbox of a version at all.
func (d *Dispatcher) fits(v *faas.Version) bool {
	return int64(v.Settings.Memory) <= d.capacity.max.memory
}

// crowded reports whether there is room for one more of a version only if it is taken
// from other functions' sandboxes.
func (d *Dispatcher) crowded(v *faas.Version) bool {
	free, line := d.capacity.look()
	for _, c := range d.blanks() {
		free = free.plus(c.room)
	}
	return len(line) > 0 || !(room{1, int64(v.Settings.Memory)}).within(free)
}

// makeRoom sees to those in line for room, until there is nobody.
func (d *Dispatcher) makeRoom() {
	poll := time.NewTicker(roomPoll)
	defer poll.Stop()
	for {
		free, line := d.capacity.look()
		d.evict(victims(free, line, append(d.blanks(), d.idle(time.Now())...)))
		if !d.capacity.giveUp(time.Now()) {
			return
		}
		select {
		case <-d.ctx.Done():
			d.capacity.close(draining())
			return
		case <-d.capacity.joined:
		case <-poll.C:
		}
	}
}

// reserveBlank takes room for a blank sandbox, if there is some. If not it evicts
// what has been idle for a while, so that there may be some later.
func (d *Dispatcher) reserveBlank(r room) bool {
	if d.capacity.try(r) {
		return true
	}
	if free, line := d.capacity.look(); len(line) == 0 {
		d.evict(victims(free, []*claim{{room: r}}, d.idle(time.Now().Add(-blankIdle))))
	}
	return false
}

// evictDown evicts what is above the caps: after a start with lower ones there
// may be more sandboxes than that.
func (d *Dispatcher) evictDown() {
	free, _ := d.capacity.look()
	if !(room{}).within(free) {
		d.evict(victims(free, nil, append(d.blanks(), d.idle(time.Now())...)))
	}
}

// candidate is a sandbox that could make room.
type candidate struct {
	room
	inst  sandbox.Instance
	of    faas.VersionKey // none for a blank one
	idle  time.Time       // since when; not set for a blank one
	leave func() bool     // lets it go, unless it is in use by now
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
func (d *Dispatcher) idle(until time.Time) []candidate {
	var all []candidate
	for _, f := range d.awake.all() {
		all = append(all, f.evictable(until)...)
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return a.idle.Compare(b.idle) })
	return all
}

// blanks lists the blank sandboxes. They go before any that has a function.
func (d *Dispatcher) blanks() []candidate {
	var all []candidate
	for _, p := range d.pools {
		all = append(all, p.evictable()...)
	}
	return all
}

// evict lets candidates go that are still idle.
func (d *Dispatcher) evict(chosen []candidate) {
	for _, c := range chosen {
		if c.leave() {
			d.capacity.leave(c.inst.ID())
			d.cfg.Metrics.Evictions.Inc()
			d.log.Debug().Str("sandbox", c.inst.ID()).Str("function", c.of.FunctionID).Int("version", c.of.Number).
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
				leave: func() bool { return f.evict(b) },
			})
		}
	}
	slices.SortFunc(all, func(a, b candidate) int { return a.idle.Compare(b.idle) })
	return all[:min(len(all), f.spare())]
}

// evict lets a bird go, unless it is in use by now, or being resumed for that.
func (f *flock) evict(b *bird) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.spare() == 0 || !slices.Contains(f.idle(), b) {
		return false
	}
	f.drain(b)
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

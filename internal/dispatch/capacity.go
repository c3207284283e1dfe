package dispatch

import (
	"slices"
	"sync"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// room is what sandboxes occupy.
type room struct {
	sandboxes int
	memory    int64 // bytes that they may use
}

func (r room) plus(o room) room  { return room{r.sandboxes + o.sandboxes, r.memory + o.memory} }
func (r room) minus(o room) room { return room{r.sandboxes - o.sandboxes, r.memory - o.memory} }

// within reports whether r exceeds o in neither respect.
func (r room) within(o room) bool { return r.sandboxes <= o.sandboxes && r.memory <= o.memory }

// capacity counts the room that sandboxes occupy, from before the engine creates them
// until they are removed, and keeps it within bounds. Starts for which there is no room
// wait in line, first come first served, so that a large one is not passed over for
// ever.
type capacity struct {
	max  room
	full *faas.Error // the error for those who waited in vain

	mu      sync.Mutex
	used    room
	leaving room              // the part of used that is being removed
	places  map[string]*place // by sandbox ID
	line    []*claim
	moved   time.Time // when room was last given to somebody in line, or last made
	making  bool      // somebody is making room for the line
	joined  chan struct{}
}

// place is the room of one sandbox.
type place struct {
	memory  int64
	leaving bool
}

// A claim is a start that waits for room.
type claim struct {
	room
	by       faas.VersionKey
	since    time.Time
	patience time.Duration // how long it waits while nothing can be evicted for it
	given    chan error    // gets one value, nil with the room, unless the claim is withdrawn
}

func newCapacity(maxSandboxes int, maxMemory int64) *capacity {
	return &capacity{
		max:    room{maxSandboxes, maxMemory},
		places: make(map[string]*place),
		joined: make(chan struct{}, 1),
		full: faas.Errorf(faas.CodeNoCapacity, "there is no room for another sandbox, and no other function's is idle: "+
			"there may be %d (FOB_MAX_SANDBOXES), with %v of memory together (FOB_MAX_MEMORY); try again, or raise these",
			maxSandboxes, faas.Bytes(maxMemory)).After(time.Second),
	}
}

// blanks returns how many blank sandboxes of that memory in bytes the pools together
// may hold: a quarter of all sandboxes.
func (c *capacity) blanks(memory int64) int {
	if n := min(c.max.sandboxes, int(c.max.memory/memory)); n >= 4 {
		return ceilDiv(n, 4)
	}
	return 0
}

// try takes room if there is enough and nobody waits for it.
func (c *capacity) try(r room) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.line) > 0 || !c.used.plus(r).within(c.max) {
		return false
	}
	c.used = c.used.plus(r)
	return true
}

// join puts a claim in line. idle reports that nobody makes room for the line, so the
// caller must.
func (c *capacity) join(w *claim) (idle bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line = append(c.line, w)
	c.grant(w.since)
	idle = !c.making && len(c.line) > 0
	c.making = c.making || idle
	select {
	case c.joined <- struct{}{}:
	default:
	}
	return idle
}

// withdraw takes a claim out of the line. It reports false if the claim has been given
// something already.
func (c *capacity) withdraw(w *claim) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.line, w)
	if i < 0 {
		return false
	}
	c.line = slices.Delete(c.line, i, i+1)
	c.grant(time.Now()) // it may have blocked those behind it
	return true
}

// grant gives those in line room, as far as there is some. The caller holds mu.
func (c *capacity) grant(now time.Time) {
	for len(c.line) > 0 && c.used.plus(c.line[0].room).within(c.max) {
		c.used = c.used.plus(c.line[0].room)
		c.shift(nil)
		c.moved = now
	}
}

// shift takes the first claim out of the line, with an error or nil. The caller holds
// mu.
func (c *capacity) shift(err error) {
	c.line[0].given <- err
	c.line = slices.Delete(c.line, 0, 1)
}

// giveUp takes claims whose patience is over out of the line, the first ones first. It
// reports false when the line is empty; from then on nobody makes room for it.
func (c *capacity) giveUp(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.line) > 0 {
		w, since := c.line[0], c.moved
		if since.Before(w.since) {
			since = w.since
		}
		coming := w.within(c.max.minus(c.used).plus(c.leaving))
		if coming || now.Sub(since) < w.patience {
			break
		}
		c.shift(c.full)
		c.grant(now)
	}
	c.making = len(c.line) > 0
	return c.making
}

// close takes everybody out of the line with an error.
func (c *capacity) close(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.line) > 0 {
		c.shift(err)
	}
	c.making = false
}

// hold assigns room that was taken to a sandbox.
func (c *capacity) hold(id string, memory int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.places[id] = &place{memory: memory}
}

// admit counts a sandbox that exists already, even beyond the bounds.
func (c *capacity) admit(id string, memory int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.places[id] = &place{memory: memory}
	c.used = c.used.plus(room{1, memory})
}

// knows reports whether a sandbox is counted.
func (c *capacity) knows(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.places[id] != nil
}

// extend adds memory that was taken to a sandbox's.
func (c *capacity) extend(id string, memory int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.places[id].memory += memory
}

// shrink gives back a sandbox's memory above that many bytes.
func (c *capacity) shrink(id string, memory int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.places[id]
	if p.memory <= memory {
		return
	}
	c.used.memory -= p.memory - memory
	p.memory = memory
	c.grant(time.Now())
}

// give gives back room that no sandbox got.
func (c *capacity) give(r room) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used = c.used.minus(r)
	c.grant(time.Now())
}

// removing notes that a sandbox is being removed: its room will soon be free.
func (c *capacity) removing(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.places[id]; p != nil && !p.leaving {
		p.leaving = true
		c.leaving = c.leaving.plus(room{1, p.memory})
		c.moved = time.Now()
	}
}

// removed gives back the room of a sandbox that has been removed.
func (c *capacity) removed(id string) {
	c.removing(id)
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.places[id]
	if p == nil {
		return
	}
	delete(c.places, id)
	c.used = c.used.minus(room{1, p.memory})
	c.leaving = c.leaving.minus(room{1, p.memory})
	c.grant(time.Now())
}

// look returns the room that will be free when all removals have ended, and the line.
func (c *capacity) look() (free room, line []*claim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.max.minus(c.used).plus(c.leaving), slices.Clone(c.line)
}

// memory returns how many bytes all sandboxes may use, including those that are about
// to start or being removed.
func (c *capacity) memory() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used.memory
}

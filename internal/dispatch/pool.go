package dispatch

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// pool keeps blank sandboxes of one language ready, so that a cold start only has to
// load the code and not to start a container. They have the default limits, and are
// resized when they are taken. They have the default network and runtime, which cannot
// be changed.
type pool struct {
	d    *Dispatcher
	spec sandbox.Spec

	mu    sync.Mutex
	size  poolSize
	share int // how many sandboxes it is to keep, of those that the pools may hold together
	blank []sandbox.Instance
	short chan struct{} // has a token when there may be something to do

	coming bool                  // the engine is making one
	taker  chan sandbox.Instance // who waits for that one: gets it, or nil
}

// The pool leaves the machine to sandboxes that somebody waits for. While such a
// sandbox is started or loaded, the pool starts none, but it waits no longer than
// poolPatience. If there is no room, it looks again after poolPause.
const (
	poolPatience = 2 * time.Second
	poolPause    = 250 * time.Millisecond
)

func newPool(d *Dispatcher, lang string, least, most int) *pool {
	s := faas.DefaultSettings()
	size := newPoolSize(least, most, time.Now())
	return &pool{
		d: d,
		spec: sandbox.Spec{
			Lang:    lang,
			Network: d.cfg.Network.Bridged(),
			Runtime: d.cfg.Runtime,
			Limits:  sandbox.Limits{Memory: int64(s.Memory), CPUs: s.CPUs},
		},
		size:  size,
		share: size.target,
		short: make(chan struct{}, 1),
	}
}

// take returns a living blank sandbox that can become what spec says, or nil. If there
// is none, but the engine is making one for which nobody waits, take waits for that,
// until ctx ends.
func (p *pool) take(ctx context.Context, spec sandbox.Spec) sandbox.Instance {
	if spec.Network != p.spec.Network || spec.Runtime != p.spec.Runtime || p.d.hatchery.fixed.Load() && spec.Limits != p.spec.Limits {
		return nil
	}
	p.mu.Lock()
	inst := p.pop()
	taker := p.taken(inst != nil)
	p.mu.Unlock()
	if inst == nil {
		p.d.pools.allot()
	}
	if taker == nil {
		return inst
	}
	select {
	case inst := <-taker:
		return inst
	case <-ctx.Done():
	}
	p.mu.Lock()
	waiting := p.taker == taker
	if waiting {
		p.taker = nil
	}
	p.mu.Unlock()
	if !waiting { // it came just now
		if inst := <-taker; inst != nil {
			p.keep(inst)
		}
	}
	return nil
}

// pop takes out a living sandbox, or returns nil. The caller holds mu.
func (p *pool) pop() sandbox.Instance {
	for len(p.blank) > 0 {
		inst := p.blank[0]
		p.blank = p.blank[1:]
		p.wake()
		select {
		case <-inst.Done():
			p.d.aviary.dispose(inst)
		default:
			return inst
		}
	}
	return nil
}

// taken records that a sandbox was taken, or that there was none. In the latter case,
// if the engine is making one and nobody waits for it, taken returns the channel on
// which it will come. The caller holds mu.
func (p *pool) taken(found bool) chan sandbox.Instance {
	p.size = p.size.taken(found, len(p.blank), time.Now())
	if found || p.size.most == 0 {
		return nil
	}
	p.d.cfg.Metrics.PoolDry.WithLabelValues(p.spec.Lang).Inc()
	if !p.coming || p.taker != nil {
		return nil
	}
	p.taker = make(chan sandbox.Instance, 1)
	return p.taker
}

func (p *pool) wake() {
	select {
	case p.short <- struct{}{}:
	default:
	}
}

// count returns how many blank sandboxes there are, and how many there should be.
func (p *pool) count() (size, target int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.blank), p.share
}

// run keeps the pool at its size until the dispatcher closes. It starts one sandbox at
// a time, to leave the machine to the calls.
func (p *pool) run() {
	for p.d.ctx.Err() == nil {
		if size, target := p.count(); size >= target {
			p.trim(size - target)
			select {
			case <-p.d.ctx.Done():
			case <-p.short:
			}
			continue
		}
		p.d.hatchery.rush.wait(p.d.ctx, poolPatience)
		if size, target := p.count(); size >= target { // one was given back
			continue
		}
		// If starts fail, the trials try again for the pool.
		if p.d.outage.doubted(p.spec.Lang).failed != nil || !p.d.evictor.reserveBlank(p.room()) {
			p.d.sleep(poolPause)
			continue
		}
		p.start() // if it fails, it raises a doubt; try again
	}
}

// room returns the room that one of its sandboxes takes.
func (p *pool) room() room { return room{1, p.spec.Limits.Memory} }

// start has the engine make a sandbox. It goes to whoever waits for it, or into the
// pool. While there is a doubt, the start is a trial. The caller has reserved the room.
func (p *pool) start() error {
	doubt := p.d.outage.doubted(p.spec.Lang)
	err := p.d.aviary.turn(p.d.ctx, p.spec)
	if err == nil {
		err = p.create()
		p.d.aviary.creating.Release(1)
	}
	if err != nil && doubt.err != nil {
		p.d.outage.tried(p.spec.Lang, err, time.Now())
	}
	return err
}

// create does what start does, now.
func (p *pool) create() error {
	p.mu.Lock()
	p.coming = true
	p.mu.Unlock()
	inst, err := p.d.aviary.create(p.d.ctx, p.spec)
	p.mu.Lock()
	p.coming = false
	taker := p.taker
	p.taker = nil
	p.mu.Unlock()
	if err == nil {
		p.d.background(func() { p.watch(inst) })
	}
	switch {
	case taker != nil:
		taker <- inst
	case err == nil:
		p.keep(inst)
	}
	return err
}

// watch drops a sandbox if it dies while it is in the pool.
func (p *pool) watch(inst sandbox.Instance) {
	select {
	case <-inst.Done():
	case <-p.d.ctx.Done():
		return
	}
	if p.drop(inst) {
		p.d.log.Warn().Str("sandbox", inst.ID()).Msg("a blank sandbox died")
		p.d.aviary.remove(inst)
	}
}

// keep adds a blank sandbox that is new or was not used after all, unless it has died
// meanwhile.
func (p *pool) keep(inst sandbox.Instance) {
	p.mu.Lock()
	p.blank = append(p.blank, inst)
	p.wake() // there may be too many now
	p.mu.Unlock()
	select {
	case <-inst.Done(): // watch may have looked before it was added
		if p.drop(inst) {
			p.d.aviary.dispose(inst)
		}
	default:
	}
}

// drop takes a sandbox out, and reports whether it was there.
func (p *pool) drop(inst sandbox.Instance) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.blank, inst)
	if i < 0 {
		return false
	}
	p.blank = slices.Delete(p.blank, i, i+1)
	p.wake()
	return true
}

// trim removes n sandboxes.
func (p *pool) trim(n int) {
	for range n {
		p.mu.Lock()
		inst := p.pop()
		p.mu.Unlock()
		if inst == nil {
			return
		}
		p.d.aviary.dispose(inst)
	}
}

// evictable returns its sandboxes as candidates.
func (p *pool) evictable() []candidate {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []candidate
	for _, inst := range p.blank {
		all = append(all, candidate{room: p.room(), inst: inst, evict: func() bool {
			there := p.drop(inst)
			if there {
				p.d.aviary.dispose(inst)
			}
			return there
		}})
	}
	return all
}

// clear removes all blank sandboxes.
func (p *pool) clear() {
	p.mu.Lock()
	blank := p.blank
	p.blank = nil
	p.mu.Unlock()
	var all sync.WaitGroup
	for _, inst := range blank {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := inst.Remove(ctx); err != nil {
				p.d.log.Warn().Err(err).Str("sandbox", inst.ID()).Msg("could not remove a blank sandbox; the next start will")
			}
		})
	}
	all.Wait()
}

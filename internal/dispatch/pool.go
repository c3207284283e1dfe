package dispatch

import (
	"context"
	"sync"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// pool keeps blank sandboxes of one language started, so that a cold start is
// a load and not a container start. They have the default limits, to be
// resized when taken, and the default network, which cannot be changed.
type pool struct {
	d      *Dispatcher
	spec   sandbox.Spec
	target int

	mu    sync.Mutex
	blank []sandbox.Instance
	short chan struct{} // has a token when there may be something to do
}

func newPool(d *Dispatcher, lang string, size int) *pool {
	s := faas.DefaultSettings()
	return &pool{
		d: d,
		spec: sandbox.Spec{
			Lang:    lang,
			Network: s.Network,
			Limits:  sandbox.Limits{Memory: int64(s.Memory), CPUs: s.CPUs},
		},
		target: size,
		short:  make(chan struct{}, 1),
	}
}

// take returns a living blank sandbox that has that network, or nil.
func (p *pool) take(network string) sandbox.Instance {
	if network != p.spec.Network {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.blank) > 0 {
		inst := p.blank[0]
		p.blank = p.blank[1:]
		p.wake()
		select {
		case <-inst.Done():
			p.d.dispose(inst)
		default:
			return inst
		}
	}
	return nil
}

func (p *pool) wake() {
	select {
	case p.short <- struct{}{}:
	default:
	}
}

// size is how many blank sandboxes there are.
func (p *pool) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.blank)
}

// run keeps the pool full until the dispatcher closes. It starts one sandbox
// at a time, to leave the machine to the calls.
func (p *pool) run() {
	pause := firstPause
	for {
		for p.size() < p.target {
			inst, err := p.d.startSandbox(p.d.ctx, p.spec)
			if p.d.ctx.Err() != nil {
				if err == nil {
					p.keep(inst) // for clear
				}
				return
			}
			if err != nil {
				p.d.log.Warn().Err(err).Str("lang", p.spec.Lang).Dur("again_in", pause).Msg("could not start a sandbox for the pool")
				select {
				case <-p.d.ctx.Done():
					return
				case <-time.After(pause):
				}
				pause = min(2*pause, longestPause)
				continue
			}
			pause = firstPause
			p.keep(inst)
		}
		select {
		case <-p.d.ctx.Done():
			return
		case <-p.short:
		}
	}
}

// keep adds a blank sandbox, and drops it again should it die.
func (p *pool) keep(inst sandbox.Instance) {
	p.mu.Lock()
	p.blank = append(p.blank, inst)
	p.mu.Unlock()
	p.d.background(func() {
		select {
		case <-inst.Done():
		case <-p.d.ctx.Done():
			return
		}
		if p.drop(inst) {
			p.d.log.Warn().Str("sandbox", inst.ID()).Msg("a blank sandbox died")
			p.d.remove(inst)
		}
	})
}

// drop takes a sandbox out, and reports whether it was there.
func (p *pool) drop(inst sandbox.Instance) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.blank {
		if other == inst {
			p.blank = append(p.blank[:i:i], p.blank[i+1:]...)
			p.wake()
			return true
		}
	}
	return false
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

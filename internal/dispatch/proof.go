package dispatch

import (
	"context"

	"github.com/flockofbirds/fob/internal/faas"
)

// proof is a bird whose version is just being registered.
type proof struct {
	d *Dispatcher
	v *faas.Version
	b *bird
}

// Prove loads a version into a sandbox that takes no calls yet.
func (d *Dispatcher) Prove(ctx context.Context, v *faas.Version, code string) (faas.Proof, error) {
	if d.ctx.Err() != nil {
		return nil, draining()
	}
	b, err := d.hatchery.hatch(ctx, v, code, roomPatience)
	if err != nil {
		return nil, err
	}
	return &proof{d, v, b}, nil
}

// SandboxID implements faas.Proof.
func (p *proof) SandboxID() string { return p.b.inst.ID() }

// Publish implements faas.Proof.
func (p *proof) Publish(fn *faas.Function) {
	p.d.mu.Lock()
	q := p.d.quota(fn)
	p.d.mu.Unlock()
	f := newFlock(p.d, p.v, q)
	p.b.recorded = true
	f.add(p.b)
	p.d.mu.Lock()
	p.d.flocks[p.v.Key()] = f
	closed := p.d.closed
	p.d.mu.Unlock()
	if closed { // Close did not see it
		f.shut()
	}
}

// Discard implements faas.Proof.
func (p *proof) Discard() {
	p.b.close()
	p.d.aviary.dispose(p.b.inst)
}

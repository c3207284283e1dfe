package dispatch

import (
	"errors"
	"slices"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// longestRenewal is the longest pause between two attempts to replace sandboxes while
// the function's code cannot be loaded in new ones.
const longestRenewal = time.Hour

// renewal replaces a flock's adopted sandboxes that would be made differently today,
// for example after an upgrade, from another image or driver. It replaces one after the
// other, each when its successor is loaded, so that no call fails or waits and
// min_scale is kept. For a moment there may be one sandbox more than max_scale. Until
// they are replaced, and as long as no successor can be made, the old sandboxes serve.
type renewal struct {
	f     *flock
	birds []*bird // that may have to be replaced; the flock's mu guards them
}

// add has an adopted bird replaced if need be.
func (r *renewal) add(b *bird) {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	r.birds = append(r.birds, b)
	if len(r.birds) == 1 {
		r.f.d.background(r.run)
	}
}

// left returns the birds for which it is not settled whether they are replaced.
func (r *renewal) left() []*bird {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	return slices.Clone(r.birds)
}

// settle records that birds are settled, and reports whether all are.
func (r *renewal) settle(settled ...*bird) bool {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	r.birds = slices.DeleteFunc(r.birds, func(b *bird) bool { return slices.Contains(settled, b) })
	return len(r.birds) == 0
}

// run tries until all birds are settled.
func (r *renewal) run() {
	d, v := r.f.d, r.f.version
	pause, complained := firstPause, false
	faulty := false // the code could not be loaded last time
	for {
		birds := r.left()
		var failed error
		for _, b := range birds {
			settled, err := r.try(b, faulty)
			if settled && r.settle(b) {
				return
			}
			if settled || err != nil {
				faulty = faas.CodeOf(err).FunctionsFault()
			}
			if failed = err; err != nil {
				break
			}
		}
		if failed != nil && !complained {
			complained = true
			d.outage.complain(failed).Str("function", v.FunctionID).Int("version", v.Number).
				Msg("outdated sandboxes of an earlier dispatcher cannot be replaced yet, and go on serving")
		}
		hopeless := faas.CodeOf(failed) == faas.CodeUnknownLanguage || !d.evictor.fits(v)
		if failed != nil && hopeless && r.settle(birds...) || !d.sleep(pause) {
			return
		}
		longest := longestPause
		if faulty {
			longest = longestRenewal
		}
		pause = min(2*pause, longest)
	}
}

// try replaces a bird if need be, and reports whether the bird is settled. faulty says
// that the code could not be loaded last time; in that case no sandbox is given up for
// it.
func (r *renewal) try(b *bird, faulty bool) (settled bool, err error) {
	d, v := r.f.d, r.f.version
	if d.renewing.Acquire(d.ctx, 1) != nil {
		return true, nil // the dispatcher is closing
	}
	defer d.renewing.Release(1)
	if r.onItsWayOut(b, false) {
		return true, nil
	}
	d.hatchery.rush.wait(d.ctx, poolPatience)
	outdated, err := b.inst.Outdated(d.ctx)
	if err == nil && !outdated {
		return true, nil
	}
	var next *bird
	switch {
	case err != nil:
	case r.onItsWayOut(b, true):
		return true, nil
	case d.evictor.crowded(v) && (faulty || r.makeWay(b)): // rather than evicting another function's
		return !faulty, nil
	default:
		next, err = r.f.hatchStored()
	}
	switch {
	case d.ctx.Err() != nil && err != nil:
		return true, nil
	case errors.Is(err, d.capacity.full):
		return !faulty && r.makeWay(b), nil
	case err != nil:
		return false, err
	}
	if !r.replace(b, next) {
		next.close()
		d.aviary.dispose(next.inst)
		return true, nil
	}
	d.log.Info().Str("sandbox", b.inst.ID()).Str("by", next.inst.ID()).Str("function", v.FunctionID).Int("version", v.Number).
		Msg("replaced an outdated sandbox of an earlier dispatcher")
	return true, nil
}

// onItsWayOut reports whether a bird is leaving. If send is set, it makes an idle bird
// that nothing keeps leave first.
func (r *renewal) onItsWayOut(b *bird, send bool) bool {
	f := r.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if send && b.inFlight == 0 && (f.retired || f.quota.limit == 0) {
		b.drain()
	}
	return b.draining
}

// makeWay drains an idle bird before its successor is there, because there is no room
// for both. The scaler starts the successor.
func (r *renewal) makeWay(b *bird) bool {
	f := r.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if b.inFlight == 0 && f.starting == 0 { // otherwise the successor of the last one may still be coming
		b.drain()
		f.d.capacity.removing(b.inst.ID()) // so that nothing is evicted for the successor
		f.rescale(time.Now())
	}
	return b.draining
}

// replace takes in a bird in another's place, which drains. If the other one is
// draining already, it does nothing and reports false.
func (r *renewal) replace(old, next *bird) bool {
	f := r.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if old.draining || f.shutErr != nil {
		return false
	}
	old.drain()
	f.join(next)
	return true
}

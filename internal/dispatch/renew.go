package dispatch

import (
	"errors"
	"slices"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// longestRenewal is the longest pause between two attempts to replace sandboxes by
// such as the function's code does not load in.
const longestRenewal = time.Hour

// mayRenew has an adopted bird replaced if need be.
func (f *flock) mayRenew(b *bird) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.adopted = append(f.adopted, b)
	if len(f.adopted) == 1 {
		f.d.background(func() { f.d.renew(f) })
	}
}

// renewed notes that it is settled whether some adopted birds are replaced, and returns
// how many are left.
func (f *flock) renewed(settled ...*bird) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.adopted = slices.DeleteFunc(f.adopted, func(b *bird) bool { return slices.Contains(settled, b) })
	return len(f.adopted)
}

// renew replaces the adopted sandboxes of a flock that would be made in another way
// today, of another image or driver, such as after an upgrade. They are replaced one
// after the other, each once its successor is loaded, so that no call fails or waits for
// it and min_scale is kept: for that moment there is one more than max_scale. Until then,
// and as long as no successor can be had, the old ones serve.
func (d *Dispatcher) renew(f *flock) {
	pause, complained := firstPause, false
	faulty := false // the code did not load the last time
	for {
		f.mu.Lock()
		adopted := slices.Clone(f.adopted)
		f.mu.Unlock()
		var failed error
		for _, b := range adopted {
			settled, err := d.tryRenew(b, faulty)
			if settled && f.renewed(b) == 0 {
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
			d.complain(failed).Str("function", f.version.FunctionID).Int("version", f.version.Number).
				Msg("sandboxes of an earlier dispatcher, which would be made in another way today, cannot be replaced yet, and serve on")
		}
		hopeless := faas.CodeOf(failed) == faas.CodeUnknownLanguage || !d.fits(f.version)
		if failed != nil && hopeless && f.renewed(adopted...) == 0 || !d.sleep(pause) {
			return
		}
		longest := longestPause
		if faulty {
			longest = longestRenewal
		}
		pause = min(2*pause, longest)
	}
}

// tryRenew does what renew says to one of them, and reports whether that is settled.
// faulty says that the code did not load the last time: nothing makes way for that.
func (d *Dispatcher) tryRenew(b *bird, faulty bool) (settled bool, err error) {
	if d.renewing.Acquire(d.ctx, 1) != nil {
		return true, nil // closed
	}
	defer d.renewing.Release(1)
	f := b.flock
	if f.leaves(b, false) {
		return true, nil
	}
	d.rush.wait(d.ctx, poolPatience)
	outdated, err := b.inst.Outdated(d.ctx)
	if err == nil && !outdated {
		return true, nil
	}
	var next *bird
	switch {
	case err != nil:
	case f.leaves(b, true):
		return true, nil
	case d.crowded(f.version) && (faulty || f.makeWay(b)): // rather than another function's
		return !faulty, nil
	default:
		next, err = f.hatch()
	}
	switch {
	case d.ctx.Err() != nil && err != nil:
		return true, nil
	case errors.Is(err, d.capacity.full):
		return !faulty && f.makeWay(b), nil
	case err != nil:
		return false, err
	}
	if !f.replace(b, next) {
		next.close()
		d.dispose(next.inst)
		return true, nil
	}
	d.log.Info().Str("sandbox", b.inst.ID()).Str("by", next.inst.ID()).Str("function", f.version.FunctionID).Int("version", f.version.Number).
		Msg("replaced a sandbox of an earlier dispatcher, which would be made in another way today")
	return true, nil
}

// leaves reports whether a bird is on its way out. One that is idle, and nothing
// keeps, is sent on it.
func (f *flock) leaves(b *bird, send bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if send && b.inFlight == 0 && (f.retired || f.quota.limit == 0) {
		f.drain(b)
	}
	return b.draining
}

// makeWay lets a bird go before its successor is there, for want of room for both, if
// it is idle. The scaler sees to the successor.
func (f *flock) makeWay(b *bird) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b.inFlight == 0 && f.starting == 0 { // else the last one's may still be coming
		f.drain(b)
		f.d.capacity.leave(b.inst.ID()) // so that nothing else makes room for the successor
		f.rescale(time.Now())
	}
	return b.draining
}

// replace takes in a bird in another's place, which leaves once it has finished its
// calls. It does nothing, and reports false, when that one leaves already.
func (f *flock) replace(old, next *bird) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if old.draining || f.shutErr != nil {
		return false
	}
	f.drain(old)
	f.join(next)
	return true
}

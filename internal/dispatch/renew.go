package dispatch

import (
	"errors"
	"time"
)

// renew replaces an adopted sandbox that would be made in another way today, of
// another image or driver, such as after an upgrade. They are replaced one after the
// other, each once its successor is loaded, so that no call fails or waits for it and
// min_scale is kept: for that moment there is one more than max_scale. Until then,
// and as long as no successor can be had, the old one serves.
func (d *Dispatcher) renew(b *bird) {
	for pause := firstPause; !d.tryRenew(b, pause == firstPause); pause = min(2*pause, longestPause) {
		if !d.sleep(pause) {
			return
		}
	}
}

// tryRenew does what renew says, once, and reports whether that is settled.
func (d *Dispatcher) tryRenew(b *bird, first bool) (settled bool) {
	if d.renewing.Acquire(d.ctx, 1) != nil {
		return true // closed
	}
	defer d.renewing.Release(1)
	f := b.flock
	if f.leaves(b, false) {
		return true
	}
	d.rush.wait(d.ctx, poolPatience)
	outdated, err := b.inst.Outdated(d.ctx)
	if err == nil && !outdated {
		return true
	}
	var next *bird
	if err == nil {
		if f.leaves(b, true) {
			return true
		}
		next, err = f.hatch()
	}
	switch {
	case d.ctx.Err() != nil && err != nil:
		return true
	case errors.Is(err, d.capacity.full):
		return f.makeWay(b)
	case err != nil:
		if first {
			d.complain(err).Str("sandbox", b.inst.ID()).Str("function", f.version.FunctionID).
				Msg("a sandbox of an earlier dispatcher, which would be made in another way today, cannot be replaced yet, and serves on")
		}
		return false
	}
	if !f.replace(b, next) {
		next.close()
		d.dispose(next.inst)
		return true
	}
	d.log.Info().Str("sandbox", b.inst.ID()).Str("by", next.inst.ID()).Str("function", f.version.FunctionID).Int("version", f.version.Number).
		Msg("replaced a sandbox of an earlier dispatcher, which would be made in another way today")
	return true
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
	if b.inFlight == 0 {
		f.drain(b)
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

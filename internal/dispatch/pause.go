package dispatch

import (
	"context"
	"time"
)

// pauseTimeout bounds how long the engine may take to pause or resume a sandbox.
const pauseTimeout = 10 * time.Second

// suspend removes an idle bird from those that take calls, and pauses it. The caller
// holds the flock's mu.
func (b *bird) suspend() {
	b.withdraw()
	b.paused, b.pausing = true, true
	b.flock.paused = append(b.flock.paused, b)
	b.flock.d.background(b.pause)
}

// pause has the engine pause a bird.
func (b *bird) pause() {
	f := b.flock
	ctx, cancel := context.WithTimeout(f.d.ctx, pauseTimeout)
	defer cancel()
	err := b.inst.Pause(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	b.pausing = false
	if err != nil {
		b.unfit(err, "could not pause a sandbox")
	}
	f.rescale(time.Now()) // a call may have come that needs it
}

// awaken has up to n paused birds resumed, those paused last first, and returns how
// many. It skips birds that are still being paused. The caller holds mu.
func (f *flock) awaken(n int) (resumed int) {
	for i := len(f.paused) - 1; i >= 0 && resumed < n; i-- {
		if b := f.paused[i]; !b.pausing {
			f.paused = append(f.paused[:i], f.paused[i+1:]...)
			b.begun = time.Now()
			f.starting++
			resumed++
			f.d.background(b.resume)
		}
	}
	return resumed
}

// resume has the engine resume a bird, which then takes calls again.
func (b *bird) resume() {
	f := b.flock
	ctx, cancel := context.WithTimeout(f.d.ctx, pauseTimeout)
	defer cancel()
	err := b.inst.Resume(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.starting--
	b.paused = false
	switch {
	case err != nil:
		b.unfit(err, "could not resume a sandbox")
	case !b.draining: // it has not died meanwhile
		f.d.cfg.Metrics.ColdStarts.WithLabelValues("resumed").Inc()
		b.enlist()
	}
	f.rescale(time.Now()) // to start another one if this one could not be resumed
}

// unfit drains a bird of which nobody knows whether it is paused. The caller holds the
// flock's mu.
func (b *bird) unfit(err error, message string) {
	d := b.flock.d
	if d.ctx.Err() != nil { // it stays for the next start
		return
	}
	d.outage.complain(err).Str("sandbox", b.inst.ID()).Msg(message)
	b.drain()
}

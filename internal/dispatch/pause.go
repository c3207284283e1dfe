package dispatch

import (
	"context"
	"time"
)

// pauseTimeout bounds the engine's pausing or resuming of a sandbox.
const pauseTimeout = 10 * time.Second

// suspend takes an idle bird from those that take calls, and pauses it. The
// caller holds mu.
func (f *flock) suspend(b *bird) {
	f.remove(b)
	b.paused, b.pausing = true, true
	f.paused = append(f.paused, b)
	f.d.background(func() { f.pause(b) })
}

// pause has the engine pause a bird.
func (f *flock) pause(b *bird) {
	ctx, cancel := context.WithTimeout(f.d.ctx, pauseTimeout)
	defer cancel()
	err := b.inst.Pause(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	b.pausing = false
	if err != nil {
		f.unfit(b, err, "could not pause a sandbox")
	}
	f.rescale(time.Now()) // somebody may have come who needs it
}

// awaken has up to n paused birds resumed, those paused last first, and returns
// how many. One that is still being paused is left for when it is. The caller
// holds mu.
func (f *flock) awaken(n int) (resumed int) {
	for i := len(f.paused) - 1; i >= 0 && resumed < n; i-- {
		if b := f.paused[i]; !b.pausing {
			f.paused = append(f.paused[:i], f.paused[i+1:]...)
			b.begun = time.Now()
			f.starting++
			resumed++
			f.d.background(func() { f.resume(b) })
		}
	}
	return resumed
}

// resume has the engine let a bird go on, which then takes calls again.
func (f *flock) resume(b *bird) {
	ctx, cancel := context.WithTimeout(f.d.ctx, pauseTimeout)
	defer cancel()
	err := b.inst.Resume(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.starting--
	b.paused = false
	switch {
	case err != nil:
		f.unfit(b, err, "could not resume a sandbox")
	case !b.draining: // it may have died
		f.d.cfg.Metrics.ColdStarts.WithLabelValues("resumed").Inc()
		f.enlist(b)
	}
	f.rescale(time.Now()) // what could not be resumed is started anew
}

// unfit sends a bird away of which it is not known whether it is paused. The
// caller holds mu.
func (f *flock) unfit(b *bird, err error, message string) {
	if f.d.ctx.Err() != nil { // it stays for the next start
		return
	}
	f.d.complain(err).Str("sandbox", b.inst.ID()).Msg(message)
	f.drain(b)
}

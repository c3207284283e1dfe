package dispatch

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// flock is a version's sandboxes and the line of calls that wait for a slot in
// one of them. A free slot and a waiting call never exist at the same time.
type flock struct {
	d       *Dispatcher
	version *faas.Version

	mu          sync.Mutex
	line        line
	plain       bool    // it is known not to take the request
	birds       []*bird // that take calls
	leaving     []*bird // that only finish theirs
	starting    int
	lastJoin    time.Time // of a bird
	failures    int       // of starts, one after the other; those at once count as one
	lastFailure time.Time
	lastErr     error         // of the last failure
	run         time.Duration // average of the last calls
	recheck     *time.Timer   // set while somebody waits
	retired     bool          // live points to another version
	shutErr     error         // why it takes no more calls, once it does not
}

// After a failed start the next one waits: not at all after the first when there
// is nothing else that could serve, then firstPause and twice as long each time.
// Code that raises at import is to cost no container a call.
const (
	firstPause   = time.Second
	longestPause = time.Minute
)

// pause is how long after the last failed start none is tried.
func (f *flock) pause() time.Duration {
	if f.failures == 0 || f.failures == 1 && len(f.birds) == 0 {
		return 0
	}
	return min(firstPause<<min(f.failures-1, 10), longestPause)
}

func newFlock(d *Dispatcher, v *faas.Version) *flock {
	return &flock{d: d, version: v}
}

// acquire takes a slot, waiting in line if it must, and notes how long that
// took. The caller must release it.
func (f *flock) acquire(ctx context.Context, t *faas.Timing) (*bird, error) {
	f.mu.Lock()
	if f.shutErr != nil {
		defer f.mu.Unlock()
		return nil, f.shutErr
	}
	if b := f.free(); b != nil {
		b.inFlight++
		f.mu.Unlock()
		return b, nil
	}
	now := time.Now()
	if len(f.birds) == 0 && f.starting == 0 && now.Sub(f.lastFailure) < f.pause() {
		defer f.mu.Unlock()
		return nil, f.lastErr
	}
	s := f.version.Settings
	w := f.line.join(now)
	f.rescale(w.since)
	if f.recheck == nil {
		f.recheck = time.AfterFunc(growPatience, f.checkLine)
	}
	if f.overfull() && f.line.leave(w) {
		waiting := f.line.len()
		f.mu.Unlock()
		f.d.cfg.Metrics.Throttled.WithLabelValues(f.label()...).Inc()
		return nil, faas.Errorf(faas.CodeOverLimit, "the function is busy: %d calls wait already (its settings are max_scale=%d, concurrency=%d, queue=%d)",
			waiting, s.MaxScale, s.Concurrency, s.Queue).After(time.Second)
	}
	f.mu.Unlock()

	timer := time.NewTimer(time.Duration(s.QueueTimeout))
	defer timer.Stop()
	var err error
	select {
	case g := <-w.given:
		return w.accept(g, t)
	case <-timer.C:
		err = faas.Errorf(faas.CodeNoCapacity, "no sandbox came free within the function's queue_timeout of %v", time.Duration(s.QueueTimeout)).After(time.Second)
	case <-ctx.Done():
		err = ctx.Err()
	}
	f.mu.Lock()
	left := f.line.leave(w)
	f.mu.Unlock()
	if !left { // it was given something just now
		b, grantErr := w.accept(<-w.given, t)
		if grantErr != nil {
			return nil, grantErr
		}
		if ctx.Err() == nil {
			return b, nil
		}
		f.release(b)
	}
	t.Queue = time.Since(w.since)
	return nil, err
}

// accept takes what a waiter was given, and says how long it took: time since
// the start of the sandbox that it got counts as start, time before as queue.
func (w *waiter) accept(g grant, t *faas.Timing) (*bird, error) {
	waited := time.Since(w.since)
	if g.err != nil {
		t.Queue = waited
		return nil, g.err
	}
	if g.bird.ready.After(w.since) {
		t.Start = min(waited, time.Since(g.bird.begun))
	}
	t.Queue = waited - t.Start
	return g.bird, nil
}

// free returns the bird to send the next call to, or nil: of those with a free
// slot the busiest, so that the others go idle and can be let go.
func (f *flock) free() *bird {
	var best *bird
	for _, b := range f.birds {
		if b.inFlight < f.version.Settings.Concurrency && (best == nil || b.inFlight > best.inFlight) {
			best = b
		}
	}
	return best
}

// overfull reports whether more calls wait than may. One that a sandbox is
// being started for does not count as queued.
func (f *flock) overfull() bool {
	s := f.version.Settings
	return f.line.len() > s.Queue+f.starting*s.Concurrency
}

// checkLine has the scaler look again as long as calls wait.
func (f *flock) checkLine() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.recheck = nil
	if f.line.len() > 0 {
		f.rescale(time.Now())
		f.recheck = time.AfterFunc(growPatience, f.checkLine)
	}
}

// finish gives a slot back after a call that took that long.
func (f *flock) finish(b *bird, run time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.run == 0 {
		f.run = run
	} else {
		f.run += (run - f.run) / 16
	}
	f.handOn(b)
}

// release gives a slot back of which nothing is to be learnt.
func (f *flock) release(b *bird) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.handOn(b)
}

// handOn gives a slot to the first call in line if there is one. The caller
// holds mu.
func (f *flock) handOn(b *bird) {
	if !b.draining && f.line.give(b) {
		return // the slot has only changed hands
	}
	b.inFlight--
	if b.inFlight > 0 {
		return
	}
	b.idleSince = time.Now()
	if b.draining {
		close(b.leave)
	}
}

// dismiss lets a bird take no more calls; it is removed once it has finished
// those that it has. Dismissing it again changes nothing.
func (f *flock) dismiss(b *bird) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drain(b)
	f.rescale(time.Now())
}

// drain does what dismiss says. The caller holds mu.
func (f *flock) drain(b *bird) {
	if b.draining {
		return
	}
	b.draining = true
	f.birds = slices.DeleteFunc(f.birds, func(other *bird) bool { return other == b })
	f.leaving = append(f.leaving, b)
	if b.inFlight == 0 {
		close(b.leave)
	}
}

// gone forgets a bird whose sandbox has been removed.
func (f *flock) gone(b *bird) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leaving = slices.DeleteFunc(f.leaving, func(other *bird) bool { return other == b })
}

// scale does what the scaler decides as of now.
func (f *flock) scale(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rescale(now)
}

// rescale does what scale says. The caller holds mu.
func (f *flock) rescale(now time.Time) {
	if f.shutErr != nil {
		return
	}
	var idle []*bird
	l := load{Waiting: f.line.len(), Birds: len(f.birds), Starting: f.starting, Full: f.overfull(), Run: f.run, Retired: f.retired}
	if since, waiting := f.line.since(); waiting {
		if since.Before(f.lastJoin) {
			since = f.lastJoin
		}
		l.Waited = now.Sub(since)
	}
	for _, b := range f.birds {
		l.InFlight += b.inFlight
		if b.inFlight == 0 {
			idle = append(idle, b)
		}
	}
	slices.SortFunc(idle, func(a, b *bird) int { return a.idleSince.Compare(b.idleSince) })
	for _, b := range idle {
		l.Idle = append(l.Idle, b.idleSince)
	}
	decision := decide(f.version.Settings, l, now)
	if now.Sub(f.lastFailure) >= f.pause() {
		for range decision.Start {
			f.starting++
			f.d.background(f.start)
		}
	}
	for _, b := range idle[:decision.Stop] {
		f.drain(b)
	}
}

// start adds a bird, or tells those who wait why there is none.
func (f *flock) start() {
	b, err := f.hatch()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.starting--
	if err != nil {
		if f.starting == 0 { // several at once count as one
			f.failures++
		}
		f.lastFailure, f.lastErr = time.Now(), err
		f.d.log.Warn().Err(err).Str("function", f.version.FunctionID).Int("version", f.version.Number).Msg("could not start a sandbox")
		if len(f.birds) == 0 && f.starting == 0 {
			f.line.fail(err)
		}
		return
	}
	f.join(b)
}

// add takes in a bird that was hatched outside of the flock.
func (f *flock) add(b *bird) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.join(b)
}

// join lets a bird take calls. The caller holds mu.
func (f *flock) join(b *bird) {
	b.flock = f
	b.ready = time.Now()
	b.idleSince = b.ready
	f.lastJoin, f.failures = b.ready, 0
	f.birds = append(f.birds, b)
	f.plain = !b.takesRequest
	f.d.background(b.live)
	if f.shutErr != nil {
		f.drain(b)
		return
	}
	for b.inFlight < f.version.Settings.Concurrency && f.line.give(b) {
		b.inFlight++
	}
}

// retire says whether live points to another version.
func (f *flock) retire(retired bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.retired = retired
}

// disband sends its birds away once they have finished what they do, because
// the function was deleted.
func (f *flock) disband() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shutErr = faas.Errorf(faas.CodeUnknownFunction, "function %s was deleted", f.version.FunctionID)
	f.line.fail(f.shutErr)
	for _, b := range slices.Clone(f.birds) {
		f.drain(b)
	}
}

// shut takes no more calls, for the dispatcher is closing; the birds stay.
func (f *flock) shut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shutErr = draining()
	f.line.fail(f.shutErr)
}

// sandboxes tells about its birds.
func (f *flock) sandboxes() []faas.SandboxInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	infos := make([]faas.SandboxInfo, 0, len(f.birds)+len(f.leaving))
	for _, b := range f.birds {
		infos = append(infos, b.info())
	}
	for _, b := range f.leaving {
		infos = append(infos, b.info())
	}
	return infos
}

// count adds its birds to counts by state.
func (f *flock) count(counts map[string]int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	counts["starting"] += f.starting
	counts["draining"] += len(f.leaving)
	for _, b := range f.birds {
		if b.inFlight > 0 {
			counts["busy"]++
		} else {
			counts["idle"]++
		}
	}
}

// label is how metrics call the version: function and version.
func (f *flock) label() []string { return versionLabels(f.version) }

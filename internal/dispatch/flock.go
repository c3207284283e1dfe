package dispatch

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/telemetry"
)

// flock is a version's sandboxes and the line of calls that wait for a slot in
// one of them. A free slot, a call that waits for it and a quota that lets it
// run never exist at the same time.
type flock struct {
	d       *Dispatcher
	version *faas.Version
	quota   *quota // of the function

	mu          *sync.Mutex // the quota's
	line        line
	plain       bool    // it is known not to take the request
	birds       []*bird // that take calls
	paused      []*bird // that would first have to be resumed
	leaving     []*bird // that only finish theirs
	adopted     []*bird // that may have to be renewed, wherever they are
	starting    int     // or being resumed
	demand      demand
	peak        peak      // of the sandboxes that demand wanted
	awake       bool      // the tick looks at it
	turned      time.Time // when it last came to have birds that take calls, or to have none
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

// backoff is how long after the last failed start none is tried.
func (f *flock) backoff() time.Duration {
	if f.failures == 0 || f.failures == 1 && len(f.birds) == 0 {
		return 0
	}
	return min(firstPause<<min(f.failures-1, 10), longestPause)
}

func newFlock(d *Dispatcher, v *faas.Version, q *quota) *flock {
	f := &flock{d: d, version: v, quota: q, mu: &q.mu}
	f.demand.window = time.Duration(v.Settings.StableWindow) / shortWindow
	return f
}

// acquire takes a slot, waiting in line if it must, and notes how long that
// took. The caller must release it.
func (f *flock) acquire(ctx context.Context, t *faas.Timing) (*bird, error) {
	now := time.Now()
	f.mu.Lock()
	if f.shutErr != nil {
		defer f.mu.Unlock()
		return nil, f.shutErr
	}
	if b := f.free(); b != nil && f.quota.admits() {
		f.take(b, now)
		f.mu.Unlock()
		return b, nil
	}
	w, err := f.queue(now)
	f.mu.Unlock()
	if err != nil {
		return nil, err
	}

	g, err := f.wait(ctx, w)
	if err == nil {
		return w.accept(g, t)
	}
	f.mu.Lock()
	left := f.line.leave(w)
	f.noteLine(time.Now())
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

// take has a call run in a bird. The caller holds mu.
func (f *flock) take(b *bird, now time.Time) {
	b.inFlight++
	f.quota.running++
	f.demand.add(1, now)
	f.noteLine(now)
}

// queue puts a call in line, or says why it may not wait. The caller holds mu.
func (f *flock) queue(now time.Time) (*waiter, error) {
	if f.quota.limit == 0 {
		f.throttled(1)
		return nil, switchedOff()
	}
	if f.failing(now) {
		return nil, f.lastErr
	}
	w := f.line.join(now)
	f.wake()
	f.rescale(now)
	if f.recheck == nil {
		f.recheck = time.AfterFunc(growPatience, f.checkLine)
	}
	if f.overfull() && f.line.leave(w) {
		f.noteLine(now)
		return nil, f.busy()
	}
	return w, nil
}

// busy counts a call that the line has no place for, and is what it is told.
func (f *flock) busy() error {
	f.throttled(1)
	s, limit := f.version.Settings, ""
	if f.quota.limited() {
		limit = fmt.Sprintf(", max_concurrency=%d", f.quota.limit)
	}
	return faas.Errorf(faas.CodeOverLimit, "the function is busy: %d calls wait already (its settings are max_scale=%d, concurrency=%d, queue=%d%s)",
		f.line.len(), s.MaxScale, s.Concurrency, s.Queue, limit).After(time.Second)
}

// refusal is what a call that came now would be told at once, or nil when it
// would get a slot or a place in line. It is asked for before a body is read,
// which takes as long as the client likes; acquire decides.
func (f *flock) refusal() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch s := f.version.Settings; {
	case f.shutErr != nil:
		return f.shutErr
	case f.quota.limit == 0:
		f.throttled(1)
		return switchedOff()
	case f.quota.admits() && f.free() != nil:
		return nil
	case f.failing(time.Now()):
		return f.lastErr
	case f.quota.admits() && len(f.birds)+f.starting < s.MaxScale: // there may soon be slots
		return nil
	case f.line.len() >= s.Queue+f.starting*s.Concurrency:
		return f.busy()
	}
	return nil
}

// failing reports whether there is no sandbox, and none is started for a while
// after those that failed. The caller holds mu.
func (f *flock) failing(now time.Time) bool {
	return len(f.birds)+len(f.paused)+f.starting == 0 && now.Sub(f.lastFailure) < f.backoff()
}

// throttled counts calls that were refused because of the function's limits.
func (f *flock) throttled(calls int) {
	f.d.cfg.Metrics.Throttled.WithLabelValues(f.label()...).Add(float64(calls))
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
	// Where there is a limit, a call of another version may be before it.
	limited := f.quota.limited()
	now := time.Now()
	if !b.draining && !limited && f.line.give(b) {
		f.noteLine(now)
		return // the slot has only changed hands
	}
	b.inFlight--
	f.quota.running--
	f.demand.add(-1, now)
	if limited {
		f.quota.serve(now)
	}
	if b.inFlight > 0 {
		return
	}
	b.idleSince = now
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
	f.remove(b)
	f.leaving = append(f.leaving, b)
	if b.inFlight == 0 {
		close(b.leave)
	}
}

// remove takes a bird from those that may take calls. The caller holds mu.
func (f *flock) remove(b *bird) {
	is := func(other *bird) bool { return other == b }
	f.paused = slices.DeleteFunc(f.paused, is)
	before := len(f.birds)
	if f.birds = slices.DeleteFunc(f.birds, is); before > 0 && len(f.birds) == 0 {
		f.turned = time.Now()
		f.noteLine(f.turned)
	}
}

// gone forgets a bird whose sandbox has been removed.
func (f *flock) gone(b *bird) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leaving = slices.DeleteFunc(f.leaving, func(other *bird) bool { return other == b })
}

// add takes in a bird that was hatched outside of the flock.
func (f *flock) add(b *bird) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.join(b)
}

// join takes in a bird. The caller holds mu.
func (f *flock) join(b *bird) {
	b.flock = f
	f.failures, f.plain = 0, !b.takesRequest
	f.d.background(b.live)
	f.wake()
	f.enlist(b)
}

// enlist lets a bird take calls. The caller holds mu.
func (f *flock) enlist(b *bird) {
	now := time.Now()
	if len(f.birds) == 0 {
		f.turned = now
	}
	b.ready, b.idleSince, f.lastJoin = now, now, now
	f.birds = append(f.birds, b)
	f.noteLine(now)
	if f.shutErr != nil {
		f.drain(b)
		return
	}
	for b.inFlight < f.version.Settings.Concurrency && f.quota.admits() && f.line.give(b) {
		f.take(b, now)
	}
}

// retire says whether live points to another version.
func (f *flock) retire(retired bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.retired = retired
	f.wake()
}

// disband sends its birds away once they have finished what they do, because
// the function was deleted.
func (f *flock) disband() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shutErr = faas.Errorf(faas.CodeUnknownFunction, "function %s was deleted", f.version.FunctionID)
	f.refuse(f.shutErr)
	for _, b := range slices.Concat(f.birds, f.paused) {
		f.drain(b)
	}
}

// shut takes no more calls, for the dispatcher is closing; the birds stay.
func (f *flock) shut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shutErr = draining()
	f.refuse(f.shutErr)
}

// refuse sends away all that wait. The caller holds mu.
func (f *flock) refuse(err error) {
	f.line.fail(err)
	f.noteLine(time.Now())
}

// sandboxes tells about its birds.
func (f *flock) sandboxes() []faas.SandboxInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	birds := slices.Concat(f.birds, f.paused, f.leaving)
	infos := make([]faas.SandboxInfo, 0, len(birds))
	for _, b := range birds {
		infos = append(infos, b.info())
	}
	return infos
}

// count adds its birds to counts by state.
func (f *flock) count(counts map[string]int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	counts["starting"] += f.starting
	counts["paused"] += len(f.paused)
	counts["draining"] += len(f.leaving)
	for _, b := range f.birds {
		if b.inFlight > 0 {
			counts["busy"]++
		} else {
			counts["idle"]++
		}
	}
}

// depth says how many calls wait.
func (f *flock) depth() telemetry.Queue {
	f.mu.Lock()
	defer f.mu.Unlock()
	label := f.label()
	return telemetry.Queue{Function: label[0], Version: label[1], Waiting: f.line.len()}
}

// label is how metrics call the version: function and version.
func (f *flock) label() []string { return versionLabels(f.version) }

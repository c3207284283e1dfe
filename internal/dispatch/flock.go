package dispatch

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// A flock is the sandboxes of one version, with the line of calls that wait for
// a slot in one of them. A free slot, a waiting call and a quota that lets the
// call run never exist at the same time.
type flock struct {
	d       *Dispatcher
	version *faas.Version
	quota   *quota // of the function

	mu *sync.Mutex // the quota's
	roost
	line     line
	plain    bool // it is known not to take the request
	starting int  // or being resumed
	demand   demand
	peak     peak      // of the sandboxes that demand wanted
	awake    bool      // the tick looks at it
	turned   time.Time // when it last came to have birds that take calls, or to have none
	lastJoin time.Time // of a bird
	setbacks setbacks
	run      time.Duration // average of the last calls
	recheck  *time.Timer   // set while somebody waits
	retired  bool          // live points to another version
	shutErr  error         // why it takes no more calls, once it does not
	renewal  renewal
}

func newFlock(d *Dispatcher, v *faas.Version, q *quota) *flock {
	f := &flock{d: d, version: v, quota: q, mu: &q.mu}
	f.demand.window = time.Duration(v.Settings.StableWindow) / shortWindow
	f.renewal.f = f
	return f
}

// acquire takes a slot, waiting in line if it must, and notes how long that
// took. The caller must release it.
func (f *flock) acquire(ctx context.Context, t *faas.Timing) (slot, error) {
	now := time.Now()
	f.mu.Lock()
	if f.shutErr != nil {
		defer f.mu.Unlock()
		return slot{}, f.shutErr
	}
	if b := f.free(f.version.Settings.Concurrency); b != nil && f.quota.admits() {
		b.startCall(now)
		f.mu.Unlock()
		return slot{f, b}, nil
	}
	w, err := f.queue(now)
	f.mu.Unlock()
	if err != nil {
		return slot{}, err
	}

	g, err := w.wait(ctx)
	if err == nil {
		return w.accept(g, t)
	}
	f.mu.Lock()
	left := f.line.leave(w)
	f.noteLine(time.Now())
	f.mu.Unlock()
	if !left { // it was given something just now
		s, grantErr := w.accept(<-w.given, t)
		if grantErr != nil {
			return slot{}, grantErr
		}
		if ctx.Err() == nil {
			return s, nil
		}
		s.release()
	}
	t.Queue = time.Since(w.since)
	return slot{}, err
}

// queue puts a call in line, or says why it may not wait. The caller holds mu.
func (f *flock) queue(now time.Time) (*waiter, error) {
	if f.quota.limit == 0 {
		f.throttled(1)
		return nil, switchedOff()
	}
	if f.failing(now) {
		return nil, f.setbacks.err
	}
	if f.line.len() == 0 {
		f.succeeding = f.spent() > 0
	}
	w := f.line.join(now)
	w.flock = f
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
	case f.quota.admits() && f.free(s.Concurrency) != nil:
		return nil
	case f.failing(time.Now()):
		return f.setbacks.err
	case f.quota.admits() && len(f.birds)+f.starting+f.spent() < s.MaxScale: // there may soon be slots
		return nil
	case f.line.len() >= s.Queue+f.starting*slots(s):
		return f.busy()
	}
	return nil
}

// failing reports whether there is no sandbox, and none is started for a while
// after those that failed. The caller holds mu.
func (f *flock) failing(now time.Time) bool {
	return len(f.birds)+len(f.paused)+f.starting == 0 && f.setbacks.hold(now, false)
}

// throttled counts calls that were refused because of the function's limits.
func (f *flock) throttled(calls int) {
	f.d.cfg.Metrics.Throttled.WithLabelValues(versionLabels(f.version)...).Add(float64(calls))
}

// overfull reports whether more calls wait than may. One that a sandbox is
// being started for does not count as queued.
func (f *flock) overfull() bool {
	s := f.version.Settings
	return f.line.len() > s.Queue+f.starting*slots(s)
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

// add takes in a bird that was hatched outside of the flock.
func (f *flock) add(b *bird) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.join(b)
}

// join takes in a bird. The caller holds mu.
func (f *flock) join(b *bird) {
	b.flock = f
	f.setbacks.n, f.plain = 0, !b.takesRequest
	f.d.background(b.live)
	f.wake()
	b.enlist()
}

// retire says whether live points to another version.
func (f *flock) retire(retired bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.retired = retired
	f.wake()
}

// refuse sends away all that wait. The caller holds mu.
func (f *flock) refuse(err error) {
	f.line.fail(err)
	f.noteLine(time.Now())
}

// disband takes no more calls, for the function was deleted, and sends its birds away
// once they have finished what they do.
func (f *flock) disband() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shutErr = faas.Errorf(faas.CodeUnknownFunction, "function %s was deleted", f.version.FunctionID)
	f.refuse(f.shutErr)
	for _, b := range slices.Concat(f.birds, f.paused) {
		b.drain()
	}
}

// shut takes no more calls, for the dispatcher is closing; the birds stay.
func (f *flock) shut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shutErr = draining()
	f.refuse(f.shutErr)
}

// each shows all its birds, as long as show wants more.
func (f *flock) each(show func(*bird) (more bool)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range slices.Concat(f.birds, f.paused, f.leaving) {
		if !show(b) {
			return
		}
	}
}

// census is how many calls wait in a flock, and how many sandboxes it has, by state.
type census struct {
	waiting, starting, idle, busy, paused, draining int
}

func (f *flock) census() census {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := census{waiting: f.line.len(), starting: f.starting, paused: len(f.paused), draining: len(f.leaving)}
	for _, b := range f.birds {
		if b.inFlight > 0 {
			c.busy++
		} else {
			c.idle++
		}
	}
	return c
}

// versionLabels are the metric labels function and version. The label is the
// ID, which stays the same however the function is called.
func versionLabels(v *faas.Version) []string {
	return []string{v.FunctionID, strconv.Itoa(v.Number)}
}

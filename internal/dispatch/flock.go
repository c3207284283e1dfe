package dispatch

import (
	"context"
	"fmt"
	"slices"
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
	plain    bool // the function is known not to take the request
	starting int  // birds that are being started or resumed
	demand   demand
	peak     peak      // of the sandboxes that demand wanted
	awake    bool      // the tick looks at it
	turned   time.Time // when it last got its first bird that takes calls, or lost its last
	lastJoin time.Time // when a bird last joined
	setbacks setbacks
	aim      aim           // what the scaler wants
	crowded  bool          // the last start found no room
	run      time.Duration // average time of recent calls
	recheck  *time.Timer   // set while somebody waits
	retired  bool          // live points to another version
	shutErr  error         // why it takes no more calls; nil while it does
	renewal  renewal
}

func newFlock(d *Dispatcher, v *faas.Version, q *quota) *flock {
	f := &flock{d: d, version: v, quota: q, mu: &q.mu, aim: aim{0, whyIdle}}
	f.demand.window = time.Duration(v.Settings.StableWindow) / shortWindow
	f.renewal.f = f
	return f
}

// acquire returns a slot. If need be, it waits in line, and records in t how long that
// took. The caller must release the slot.
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
		return slot{flock: f, bird: b}, nil
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

// queue puts a call in line, or returns why it may not wait. The caller holds mu.
func (f *flock) queue(now time.Time) (*waiter, error) {
	if f.quota.limit == 0 {
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

// busy returns the refusal of a call for which the line has no place.
func (f *flock) busy() error {
	s, limit := f.version.Settings, ""
	if f.quota.limited() {
		limit = fmt.Sprintf(", max_concurrency=%d", f.quota.limit)
	}
	return faas.Errorf(faas.CodeOverLimit, "the function is busy: %d calls wait already (its settings are max_scale=%d, concurrency=%d, queue=%d%s)",
		f.line.len(), s.MaxScale, s.Concurrency, s.Queue, limit).After(time.Second)
}

// refusal returns the error that a call would get at once if it came now, or nil if it
// would get a slot or a place in line. It is asked before a body is read, which takes
// as long as the client likes. acquire decides in the end.
func (f *flock) refusal() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch s := f.version.Settings; {
	case f.shutErr != nil:
		return f.shutErr
	case f.quota.limit == 0:
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

// failing reports whether there is no sandbox and none will be started for a while,
// because starts have failed. The caller holds mu.
func (f *flock) failing(now time.Time) bool {
	return len(f.birds)+len(f.paused)+f.starting == 0 && f.setbacks.hold(now, false)
}

// overfull reports whether more calls wait than may. A call for which a sandbox is
// being started does not count.
func (f *flock) overfull() bool {
	s := f.version.Settings
	return f.line.len() > s.Queue+f.starting*slots(s)
}

// checkLine has the scaler decide again for as long as calls wait.
func (f *flock) checkLine() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.recheck = nil
	if f.line.len() > 0 {
		f.rescale(time.Now())
		f.recheck = time.AfterFunc(growPatience, f.checkLine)
	}
}

// add takes in a bird that was hatched elsewhere.
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

// retire sets whether live points to another version.
func (f *flock) retire(retired bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.retired = retired
	f.wake()
}

// refuse takes all waiting calls out of the line with an error. The caller holds mu.
func (f *flock) refuse(err error) {
	f.line.fail(err)
	f.noteLine(time.Now())
}

// disband has the flock take no more calls, because the function was deleted, and
// drains its birds.
func (f *flock) disband() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shutErr = faas.Errorf(faas.CodeUnknownFunction, "function %s was deleted", f.version.FunctionID)
	f.refuse(f.shutErr)
	for _, b := range slices.Concat(f.birds, f.paused) {
		b.drain()
	}
}

// shut has the flock take no more calls, because the dispatcher is closing. The birds
// stay.
func (f *flock) shut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shutErr = draining()
	f.refuse(f.shutErr)
}

// each calls show for all birds until it returns false.
func (f *flock) each(show func(*bird) (more bool)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range slices.Concat(f.birds, f.paused, f.leaving) {
		if !show(b) {
			return
		}
	}
}

// census counts the calls of a flock, and its sandboxes by state.
type census struct {
	running, waiting                       int // calls
	starting, idle, busy, paused, draining int // sandboxes

	aim aim
}

func (f *flock) census() census {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := census{waiting: f.line.len(), starting: f.starting, paused: len(f.paused), draining: len(f.leaving), aim: f.aim}
	for _, b := range f.leaving {
		c.running += b.inFlight
	}
	for _, b := range f.birds {
		c.running += b.inFlight
		if b.inFlight > 0 {
			c.busy++
		} else {
			c.idle++
		}
	}
	return c
}

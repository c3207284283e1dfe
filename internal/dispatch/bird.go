package dispatch

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/flockofbirds/fob/internal/egress"
	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// reasonPatience is how long a failed call waits to learn why its sandbox died.
const reasonPatience = 10 * time.Second

// A bird is one sandbox of a flock: it has the flock's version loaded and takes
// calls.
type bird struct {
	inst         sandbox.Instance
	conn         *sandbox.Conn
	gate         *egress.Gate // its way out; nil unless its network is a list of hosts
	log          *logListener // of what it prints; nil if that is not kept
	takesRequest bool
	recorded     bool          // the store knows which version it holds
	begun        time.Time     // when its start or load began
	loading      time.Time     // when the load began; zero if it was adopted
	drained      chan struct{} // closed when it is draining and has no call left
	removed      chan struct{} // closed when none of its code runs any more

	// Its flock's mu guards these.
	flock     *flock
	ready     time.Time
	idleSince time.Time
	inFlight  int
	calls     int  // how many it has been given
	spent     bool // it has been given its last call
	paused    bool
	pausing   bool // the engine is pausing it
	draining  bool
}

// close closes a bird's connections and its way out. What it has printed is still read.
func (b *bird) close() {
	b.conn.Close()
	if b.gate != nil {
		b.gate.Close()
	}
	if b.log != nil {
		b.log.close()
	}
}

// live accompanies a bird through its life. It records what the sandbox holds, notices
// its death, and removes it when it has drained. When the dispatcher closes, the
// sandbox stays.
func (b *bird) live() {
	f, d := b.flock, b.flock.d
	if !b.recorded {
		d.aviary.record(b.inst, f.version.Key())
	}
	select {
	case <-b.inst.Done():
		b.dismiss()
		d.log.Warn().Str("sandbox", b.inst.ID()).Str("function", f.version.FunctionID).Msg("a sandbox died")
		// Calls in it ask for the reason before they give their slots back.
		select {
		case <-b.drained:
		case <-d.ctx.Done():
		}
	case <-b.drained:
	case <-d.ctx.Done():
		b.close()
		return
	}
	b.close()
	if d.aviary.remove(b.inst) {
		close(b.removed)
	}
	b.gone()
	d.aviary.forget(b.inst)
}

// info describes the bird. The caller holds the flock's mu.
func (b *bird) info() faas.SandboxInfo {
	state := "ready"
	switch {
	case b.draining:
		state = "draining"
	case b.paused:
		state = "paused"
	case b.inFlight > 0:
		state = "busy"
	}
	host, port := b.inst.Addr()
	return faas.SandboxInfo{ID: b.inst.ID(), State: state, Host: host, Port: port, InFlight: b.inFlight, Started: b.inst.Created()}
}

// died returns an error that says how the sandbox ended.
func (b *bird) died(ctx context.Context, when string, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, reasonPatience)
	defer cancel()
	exit, err := b.inst.Exit(ctx)
	var why string
	switch {
	case err != nil:
		why = "the connection to the sandbox broke"
	case exit.OutOfMem:
		why = fmt.Sprintf("the sandbox ran out of memory (the function's setting memory is %v)", faas.Bytes(b.inst.Spec().Limits.Memory))
	case exit.Removed:
		why = "the sandbox was removed"
	default:
		why = fmt.Sprintf("the sandbox exited with code %d", exit.Code)
	}
	return faas.Errorf(faas.CodeSandboxDied, "%s %s", why, when).Because(cause)
}

// startCall counts a call that begins in the bird. The caller holds the flock's mu.
func (b *bird) startCall(now time.Time) {
	f := b.flock
	b.inFlight++
	f.quota.running++
	f.demand.add(1, now)
	f.noteLine(now)
	b.spend(now)
}

// handOn gives a slot in the bird to the first call in line, if there is one. The
// caller holds the flock's mu.
func (b *bird) handOn() {
	// With a limit, a call of another version may be first.
	f := b.flock
	limited := f.quota.limited()
	now := time.Now()
	if !b.draining && !limited && f.line.give(b) {
		f.noteLine(now)
		b.spend(now)
		return // the slot only changes hands
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
		close(b.drained)
	}
	if b.spent { // max_scale may have held back its successor
		f.rescale(now)
	}
}

// enlist lets the bird take calls. The caller holds the flock's mu.
func (b *bird) enlist() {
	f, now := b.flock, time.Now()
	if f.unserved() {
		f.turned = now
	}
	b.ready, b.idleSince, f.lastJoin = now, now, now
	f.birds = append(f.birds, b)
	f.noteLine(now)
	if f.shutErr != nil {
		b.drain()
		return
	}
	for !b.draining && b.inFlight < f.version.Settings.Concurrency && f.quota.admits() && f.line.give(b) {
		b.startCall(now)
	}
}

// withdraw removes the bird from those that take calls. The caller holds the flock's
// mu.
func (b *bird) withdraw() {
	f := b.flock
	before := len(f.birds)
	f.remove(b)
	if before > 0 && f.unserved() {
		f.turned = time.Now()
		f.noteLine(f.turned)
	}
}

// dismiss has the bird take no more calls, and be removed once its calls have finished.
// It does nothing if the bird was dismissed already.
func (b *bird) dismiss() {
	f := b.flock
	f.mu.Lock()
	defer f.mu.Unlock()
	b.drain()
	f.rescale(time.Now())
}

// drain does what dismiss does. The caller holds the flock's mu.
func (b *bird) drain() {
	if b.draining {
		return
	}
	b.draining = true
	b.withdraw()
	b.flock.leaving = append(b.flock.leaving, b)
	if b.inFlight == 0 {
		close(b.drained)
	}
}

// gone forgets the bird, because its sandbox has been removed.
func (b *bird) gone() {
	f := b.flock
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leaving = slices.DeleteFunc(f.leaving, func(other *bird) bool { return other == b })
}

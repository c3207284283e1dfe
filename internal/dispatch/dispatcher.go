// Package dispatch goes from a version to a result: a call waits for a slot in one
// of the version's sandboxes, and is sent. One noun a file: the flock that is a
// version's sandboxes, the birds in it, the line of waiting calls, the quota that a
// function's flocks share, the pool of blank sandboxes, the scaler. What is
// registered is the catalogue's, which has new versions proven here.
package dispatch

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/semaphore"

	"github.com/flockofbirds/fob/internal/buffer"
	"github.com/flockofbirds/fob/internal/egress"
	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
	"github.com/flockofbirds/fob/internal/telemetry"
)

// Config is what a Dispatcher needs. All but Pool, PoolMax, Buffers and Runtime must
// be set.
type Config struct {
	Engine    sandbox.Engine
	Catalogue Catalogue
	Store     faas.SandboxStore
	Log       zerolog.Logger
	Metrics   *telemetry.Metrics

	Langs       []string       // languages that there are drivers for
	Pool        map[string]int // blank sandboxes kept at least, by language
	PoolMax     int            // blank sandboxes of a language at most, unless Pool has more
	Buffers     *buffer.Budget // for what is held of answers; nil for no bound
	MaxBody     int64          // bytes of a request's or answer's body that is not streamed
	Network     faas.Network   // of the pool's sandboxes
	Egress      *egress.Proxy  // for functions whose network is a list of hosts
	Runtime     string         // OCI runtime of functions that say nothing, and of the pool's sandboxes; empty is the engine's own
	LoadTimeout time.Duration  // for loading code into a sandbox, imports included
	Tick        time.Duration  // between two looks at idle sandboxes

	MaxSandboxes int   // that there may be, blank ones included
	MaxMemory    int64 // bytes that they may use together
}

// Dispatcher implements faas.Invoker and faas.Locator over an engine, and proves new
// versions for the catalogue.
type Dispatcher struct {
	cfg Config
	log zerolog.Logger

	pools     map[string]*pool
	allotting sync.Mutex // their shares

	capacity *capacity
	creating *semaphore.Weighted // of the sandboxes that the engine makes at once
	renewing *semaphore.Weighted // of the adopted ones that are being replaced
	rush     rush
	fixed    atomic.Bool // the engine cannot resize blank sandboxes
	outage   outage

	mu     sync.RWMutex
	flocks map[faas.VersionKey]*flock
	quotas map[string]*quota         // by function ID, of those that have a flock
	going  map[faas.VersionKey]error // why versions that are being dropped get no flock
	closed bool

	awake awake // flocks

	// ctx ends when Close is called, and with it every start in progress.
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // everything that runs in the background
}

// New adopts the sandboxes of the catalogue's functions that live on, removes the
// rest of the aviary in the background, and starts to fill the pools.
func New(ctx context.Context, cfg Config) (*Dispatcher, error) {
	d := &Dispatcher{
		cfg:      cfg,
		log:      cfg.Log,
		pools:    make(map[string]*pool),
		flocks:   make(map[faas.VersionKey]*flock),
		quotas:   make(map[string]*quota),
		going:    make(map[faas.VersionKey]error),
		awake:    awake{flocks: make(map[*flock]struct{})},
		creating: semaphore.NewWeighted(maxCreating),
		renewing: semaphore.NewWeighted(1),
		capacity: newCapacity(cfg.MaxSandboxes, cfg.MaxMemory),
		outage:   outage{look: make(chan struct{}, 1), doubts: make(map[string]*doubt)},
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	for _, lang := range cfg.Langs {
		d.pools[lang] = newPool(d, lang, cfg.Pool[lang], cfg.PoolMax)
	}
	d.allot()
	if err := d.adopt(ctx); err != nil {
		d.Close()
		return nil, err
	}
	for _, p := range d.pools {
		d.background(p.run)
	}
	d.background(d.tick)
	d.background(d.sweep)
	d.background(d.watchEngine)
	return d, nil
}

// background runs work that Close waits for. Once closed it does nothing, and
// reports false.
func (d *Dispatcher) background(work func()) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return false
	}
	d.work.Go(work)
	return true
}

// Close ends all background work and leaves the sandboxes of functions running
// for the next start; blank ones are removed, since they are not adopted.
// Calls should have ended before.
func (d *Dispatcher) Close() {
	d.mu.Lock()
	d.closed = true
	flocks := d.snapshot()
	d.mu.Unlock()
	// First, so that those who wait learn why, and not that a start was ended.
	for _, f := range flocks {
		f.shut()
	}
	d.cancel()
	d.work.Wait()
	for _, p := range d.pools {
		p.clear()
	}
}

// snapshot returns the flocks at this moment. The caller holds mu.
func (d *Dispatcher) snapshot() []*flock {
	flocks := make([]*flock, 0, len(d.flocks))
	for _, f := range d.flocks {
		flocks = append(flocks, f)
	}
	return flocks
}

// flock returns the flock of a version, or makes an empty one. It fails once
// the version is dropped or deleted, and for one that is not permitted any more.
func (d *Dispatcher) flock(v *faas.Version) (*flock, error) {
	key := v.Key()
	d.mu.RLock()
	f := d.flocks[key]
	d.mu.RUnlock()
	if f != nil {
		return f, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.flocks[key]; f != nil {
		return f, nil
	}
	if d.closed {
		return nil, draining()
	}
	if why := d.going[key]; why != nil {
		return nil, why
	}
	// While mu is held: who changes what is registered tells us next, and has to wait.
	fn, _, err := d.cfg.Catalogue.Resolve(d.ctx, faas.Ref{ID: v.FunctionID})
	if err != nil {
		return nil, err
	}
	if !fn.Has(v.Number) {
		return nil, faas.UnknownVersion(fn, v.Number)
	}
	if err := d.cfg.Catalogue.Permitted(v); err != nil {
		return nil, err
	}
	f = newFlock(d, v, d.quota(fn))
	f.retired = fn.Aliases[faas.Live] != v.Number
	d.flocks[key] = f
	return f, nil
}

// quota returns the quota of a function, or makes it and has the metrics know the
// function. The caller holds mu.
func (d *Dispatcher) quota(fn *faas.Function) *quota {
	q := d.quotas[fn.ID]
	if q == nil {
		q = newQuota(fn.Live().Settings.MaxConcurrency)
		d.quotas[fn.ID] = q
		d.cfg.Metrics.Know(fn.ID)
	}
	return q
}

// tick looks at every flock that has something, and at every pool, again and
// again, so that the decisions that depend on time are made.
func (d *Dispatcher) tick() {
	ticker := time.NewTicker(d.cfg.Tick)
	defer ticker.Stop()
	for {
		select {
		case <-d.ctx.Done():
			return
		case now := <-ticker.C:
			d.Scale(now)
			d.evictDown()
			d.allot()
		}
	}
}

// Scale makes the scaler's decisions for every flock as of now.
func (d *Dispatcher) Scale(now time.Time) {
	for _, f := range d.awake.all() {
		f.scale(now)
	}
}

// Sandboxes implements faas.Locator.
func (d *Dispatcher) Sandboxes(_ context.Context, v *faas.Version) ([]faas.SandboxInfo, error) {
	d.mu.RLock()
	f := d.flocks[v.Key()]
	d.mu.RUnlock()
	if f == nil {
		return nil, nil
	}
	return f.sandboxes(), nil
}

// Snapshot is what the metrics ask for at each scrape.
func (d *Dispatcher) Snapshot() telemetry.Snapshot {
	s := telemetry.Snapshot{Sandboxes: d.Stats(), Memory: d.capacity.memory(), Pools: make(map[string]telemetry.Pool)}
	for lang, p := range d.pools {
		size, target := p.count()
		s.Pools[lang] = telemetry.Pool{Size: size, Target: target}
	}
	for _, f := range d.awake.all() {
		s.Queues = append(s.Queues, f.depth())
	}
	return s
}

// Stats counts sandboxes by state.
func (d *Dispatcher) Stats() map[string]int {
	counts := map[string]int{"blank": 0, "idle": 0, "busy": 0, "paused": 0, "draining": 0, "starting": 0}
	for _, f := range d.awake.all() {
		f.count(counts)
	}
	for _, p := range d.pools {
		size, _ := p.count()
		counts["blank"] += size
	}
	return counts
}

// dispose removes a sandbox without keeping anybody waiting, unless that is
// Close: then there is no later. It returns what is closed once it is removed.
func (d *Dispatcher) dispose(inst sandbox.Instance) <-chan struct{} {
	removed := make(chan struct{})
	work := func() {
		if d.remove(inst) {
			close(removed)
		}
	}
	if !d.background(work) {
		work()
	}
	return removed
}

// await waits for a removal, and reports false when it takes longer than
// patience, or than the dispatcher is open.
func (d *Dispatcher) await(removed <-chan struct{}, patience time.Duration) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-removed:
		return true
	case <-d.ctx.Done():
	case <-timer.C:
	}
	return false
}

// sleep waits that long, and reports false when the dispatcher closes meanwhile.
func (d *Dispatcher) sleep(wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-d.ctx.Done():
		return false
	}
}

// createTimeout bounds the engine's making of a sandbox. It has nothing to do
// with how long a call is willing to wait: the next one is glad of it too.
const createTimeout = time.Minute

// maxCreating is how many sandboxes the engine makes at once. More would only
// make each slower, and a function may ask for a thousand.
const maxCreating = 4

// startSandbox has the engine make a sandbox in its turn, in room that was
// reserved.
func (d *Dispatcher) startSandbox(ctx context.Context, spec sandbox.Spec) (sandbox.Instance, error) {
	if err := d.mayCreate(ctx, spec); err != nil {
		return nil, err
	}
	defer d.creating.Release(1)
	return d.createSandbox(ctx, spec)
}

// mayCreate waits until the engine is prepared for sandboxes of a language and it is
// one's turn to have one made, in room that was reserved. When that fails the room is
// given back. Nothing but ctx bounds it: a driver image may be missing, and to build it
// takes minutes where the network is slow.
func (d *Dispatcher) mayCreate(ctx context.Context, spec sandbox.Spec) error {
	err := d.cfg.Engine.Prepare(ctx, spec.Lang)
	if err != nil && ctx.Err() == nil {
		d.outage.started(spec.Lang, err)
	}
	if err == nil {
		err = d.creating.Acquire(ctx, 1)
	}
	if err != nil {
		d.capacity.give(room{1, spec.Limits.Memory})
	}
	return err
}

// createSandbox has the engine make a sandbox now. When that fails the room is given
// back.
func (d *Dispatcher) createSandbox(ctx context.Context, spec sandbox.Spec) (sandbox.Instance, error) {
	within, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	inst, err := d.cfg.Engine.Create(within, spec)
	if err == nil || ctx.Err() == nil { // else nobody waits for it any more
		d.outage.started(spec.Lang, err)
	}
	if err != nil {
		d.capacity.give(room{1, spec.Limits.Memory})
		return nil, err
	}
	d.capacity.hold(inst.ID(), spec.Limits.Memory)
	return inst, nil
}

// closePatience is how long Close waits for an engine that is removing a
// sandbox; what is left, the next start removes.
const closePatience = 5 * time.Second

// remove takes a sandbox away for good, trying again until the engine lets it.
// It reports false when the dispatcher closes before that.
func (d *Dispatcher) remove(inst sandbox.Instance) bool {
	const patience = time.Minute
	d.capacity.leave(inst.ID())
	wait := 100 * time.Millisecond
	for {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		stop := context.AfterFunc(d.ctx, func() { time.AfterFunc(closePatience, cancel) })
		err := inst.Remove(ctx)
		stop()
		cancel()
		if err == nil {
			d.capacity.left(inst.ID())
			return true
		}
		d.complain(err).Str("sandbox", inst.ID()).Msg("could not remove a sandbox; trying again")
		if !d.sleep(wait) { // the next start removes it
			return false
		}
		wait = min(2*wait, longestStep)
	}
}

// draining is what is told to those who come too late.
func draining() error {
	return faas.Errorf(faas.CodeDraining, "the dispatcher is shutting down").After(time.Second)
}

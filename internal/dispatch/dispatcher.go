// Package dispatch goes from a version to a result: a call waits for a slot in one
// of the version's sandboxes, and is sent. One noun a file: the flock that is a
// version's sandboxes, the birds in it, the line of waiting calls, the quota that a
// function's flocks share, the pool of blank sandboxes, the scaler. What is
// registered is the catalogue's, which has new versions proven here.
package dispatch

import (
	"context"
	"math"
	"sync"
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
	*lifetime
	cfg Config
	log zerolog.Logger

	capacity *capacity
	outage   *outage
	aviary   *aviary
	pools    *pools
	evictor  *evictor
	hatchery *hatchery
	awake    *awake              // flocks
	renewing *semaphore.Weighted // of the adopted sandboxes that are being replaced

	mu     sync.RWMutex
	flocks map[faas.VersionKey]*flock
	quotas map[string]*quota         // by function ID, of those that have a flock
	going  map[faas.VersionKey]error // why versions that are being dropped get no flock
	closed bool
}

// New adopts the sandboxes of the catalogue's functions that live on, removes the
// rest of the aviary in the background, and starts to fill the pools.
func New(ctx context.Context, cfg Config) (*Dispatcher, error) {
	d := &Dispatcher{
		lifetime: newLifetime(),
		cfg:      cfg,
		log:      cfg.Log,
		capacity: newCapacity(cfg.MaxSandboxes, cfg.MaxMemory),
		awake:    &awake{flocks: make(map[*flock]struct{})},
		renewing: semaphore.NewWeighted(1),
		flocks:   make(map[faas.VersionKey]*flock),
		quotas:   make(map[string]*quota),
		going:    make(map[faas.VersionKey]error),
	}
	d.outage = newOutage(d.lifetime, cfg, d.forgive)
	d.aviary = &aviary{
		lifetime: d.lifetime, engine: cfg.Engine, records: cfg.Store, capacity: d.capacity, outage: d.outage, log: d.log,
		creating: semaphore.NewWeighted(maxCreating),
	}
	d.pools = newPools(d)
	d.outage.pools = d.pools
	d.evictor = &evictor{lifetime: d.lifetime, capacity: d.capacity, pools: d.pools, awake: d.awake, evictions: cfg.Metrics.Evictions, log: d.log}
	d.hatchery = &hatchery{lifetime: d.lifetime, cfg: cfg, log: d.log, aviary: d.aviary, pools: d.pools, evictor: d.evictor}
	adoption := &adoption{d.hatchery, d.flock}
	err := adoption.run(ctx)
	if err == nil {
		err = d.rouse(ctx)
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	for _, p := range d.pools.all {
		d.background(p.run)
	}
	d.background(d.tick)
	d.background(d.aviary.sweep)
	d.background(d.outage.watch)
	return d, nil
}

// rouse has the tick look at the functions that have a min_scale to keep.
func (d *Dispatcher) rouse(ctx context.Context) error {
	functions, err := d.cfg.Catalogue.List(ctx, "", "", math.MaxInt)
	if err != nil {
		return err
	}
	for _, fn := range functions {
		if live := fn.Live(); live.Settings.MinScale > 0 {
			f, err := d.flock(live)
			if faas.CodeOf(err) == faas.CodeNotPermitted {
				continue // whoever calls it will hear
			}
			if err != nil {
				return err
			}
			f.retire(false)
		}
	}
	return nil
}

// Close ends all background work and leaves the sandboxes of functions running
// for the next start; blank ones are removed, since they are not adopted.
// Calls should have ended before.
func (d *Dispatcher) Close() {
	d.mu.Lock()
	d.closed = true
	flocks := d.snapshot()
	d.mu.Unlock()
	d.lifetime.close()
	// First, so that those who wait learn why, and not that a start was ended.
	for _, f := range flocks {
		f.shut()
	}
	d.end()
	d.pools.clear()
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
			d.evictor.evictDown()
			d.pools.allot()
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
	infos := []faas.SandboxInfo{}
	f.each(func(b *bird) bool {
		infos = append(infos, b.info())
		return true
	})
	return infos, nil
}

// Snapshot is what the metrics ask for at each scrape.
func (d *Dispatcher) Snapshot() telemetry.Snapshot {
	s := telemetry.Snapshot{Sandboxes: d.Stats(), Memory: d.capacity.memory(), Pools: make(map[string]telemetry.Pool)}
	for _, p := range d.pools.all {
		size, target := p.count()
		s.Pools[p.spec.Lang] = telemetry.Pool{Size: size, Target: target}
	}
	for _, f := range d.awake.all() {
		label := versionLabels(f.version)
		s.Queues = append(s.Queues, telemetry.Queue{Function: label[0], Version: label[1], Waiting: f.census().waiting})
	}
	return s
}

// Stats counts sandboxes by state.
func (d *Dispatcher) Stats() map[string]int {
	var all census
	for _, f := range d.awake.all() {
		c := f.census()
		all.starting += c.starting
		all.idle += c.idle
		all.busy += c.busy
		all.paused += c.paused
		all.draining += c.draining
	}
	blank := 0
	for _, p := range d.pools.all {
		size, _ := p.count()
		blank += size
	}
	return map[string]int{
		"blank": blank, "idle": all.idle, "busy": all.busy, "paused": all.paused, "draining": all.draining, "starting": all.starting,
	}
}

// Prepare makes sure that sandboxes of all languages can be started, as
// sandbox.Engine says. That takes as long as it takes to build what is missing.
func (d *Dispatcher) Prepare(ctx context.Context) error {
	if err := d.cfg.Engine.Prepare(ctx, d.cfg.Langs...); err != nil {
		return err
	}
	for _, lang := range d.cfg.Langs {
		d.outage.started(lang, nil) // what failed before that says nothing any more
	}
	d.outage.lookAround(time.Now())
	return nil
}

// Outage returns why no sandbox can be made at present, for /readyz, or nil.
func (d *Dispatcher) Outage() *faas.Error { return d.outage.report() }

// forgive has flocks whose starts failed for the engine's sake try again at once.
func (d *Dispatcher) forgive() {
	d.mu.RLock()
	flocks := d.snapshot()
	d.mu.RUnlock()
	for _, f := range flocks {
		f.forgive()
	}
}

// draining is what is told to those who come too late.
func draining() error {
	return faas.Errorf(faas.CodeDraining, "the dispatcher is shutting down").After(time.Second)
}

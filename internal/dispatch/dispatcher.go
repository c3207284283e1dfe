// Package dispatch takes a call from a version to a result: the call waits for a slot
// in one of the version's sandboxes, and is sent there. It starts, pauses and removes
// sandboxes as calls need them.
//
// Each file has one noun: the flock of a version's sandboxes, the bird that each of
// them is, the line of waiting calls, the quota that a function's flocks share, the
// pool of blank sandboxes, the decision of the scaler, and so on. What is registered,
// the catalogue knows. It has new versions proven here.
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

// Config is what a Dispatcher needs. Pool, PoolMax, Buffers, Logs and Runtime may be left
// out.
type Config struct {
	Engine    sandbox.Engine
	Catalogue Catalogue
	Store     faas.SandboxStore
	Log       zerolog.Logger
	Metrics   *telemetry.Metrics
	Logs      faas.LogWriter // takes what functions print; nil if it is not kept

	Langs       []string       // languages with a driver
	Pool        map[string]int // blank sandboxes kept at least, by language
	PoolMax     int            // blank sandboxes of a language at most, unless Pool has more
	Buffers     *buffer.Budget // for what is held of answers; nil for no bound
	MaxBody     int64          // bytes of a request's or answer's body that is not streamed
	Network     faas.Network   // of the pool's sandboxes
	Egress      *egress.Proxy  // for functions whose network is a list of hosts
	Runtime     string         // OCI runtime of functions that set none, and of the pool's sandboxes; empty for the engine's own
	LoadTimeout time.Duration  // for loading code into a sandbox, imports included
	Tick        time.Duration  // between two checks of idle sandboxes

	MaxSandboxes int   // at a time, including blank ones
	MaxMemory    int64 // bytes that all sandboxes together may use
}

// Dispatcher implements faas.Invoker and faas.Locator with the sandboxes of an engine,
// and proves new versions for the catalogue.
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
	awake    *awake              // flocks that the tick looks at
	renewing *semaphore.Weighted // lets one adopted sandbox be replaced at a time

	mu     sync.RWMutex
	flocks map[faas.VersionKey]*flock
	quotas map[string]*quota         // by function ID; only of functions that have a flock
	going  map[faas.VersionKey]error // why versions that are being dropped get no flock
	closed bool
}

// New adopts the living sandboxes of the catalogue's functions, removes the rest of the
// aviary in the background, and starts to fill the pools.
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

// rouse wakes the flocks of functions that have a min_scale to keep.
func (d *Dispatcher) rouse(ctx context.Context) error {
	functions, err := d.cfg.Catalogue.List(ctx, "", "", math.MaxInt)
	if err != nil {
		return err
	}
	for _, fn := range functions {
		if live := fn.Live(); live.Settings.MinScale > 0 {
			f, err := d.flock(live)
			if faas.CodeOf(err) == faas.CodeNotPermitted {
				continue // whoever calls it will be told
			}
			if err != nil {
				return err
			}
			f.retire(false)
		}
	}
	return nil
}

// Close ends all background work. It leaves the sandboxes of functions running for the
// next start, and removes blank ones, which would not be adopted. Calls should have
// ended before.
func (d *Dispatcher) Close() {
	d.mu.Lock()
	d.closed = true
	flocks := d.snapshot()
	d.mu.Unlock()
	d.lifetime.close()
	// First, so that those who wait are told the reason, rather than that a start was
	// interrupted.
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

// flock returns the flock of a version, or makes an empty one. It fails if the version
// was dropped or deleted, or is no longer permitted.
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
	// Under mu: whoever changes what is registered tells us next, and has to wait for
	// mu.
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

// quota returns the quota of a function. A new quota makes the metrics know the
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

// tick checks every flock that is awake, and every pool, at regular times, for the
// decisions that depend on time.
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

// Snapshot returns what the metrics show at a scrape.
func (d *Dispatcher) Snapshot() telemetry.Snapshot {
	s := telemetry.Snapshot{Sandboxes: d.Stats(), Memory: d.capacity.memory(), Pools: make(map[string]telemetry.Pool)}
	for _, p := range d.pools.all {
		size, target := p.count()
		s.Pools[p.spec.Lang] = telemetry.Pool{Size: size, Target: target}
	}
	functions, err := d.cfg.Catalogue.List(d.ctx, "", "", math.MaxInt)
	if err != nil {
		d.log.Error().Err(err).Msg("the metrics lack the functions' names")
	}
	for _, fn := range functions {
		live := fn.Live()
		s.Functions = append(s.Functions, telemetry.Function{ID: fn.ID, Name: fn.Name, Lang: live.Lang, Version: live.Number})
	}
	s.Flocks = d.counts()
	return s
}

// counts returns what the flocks of each function do together. The reason is that of
// the version that wants the most sandboxes.
func (d *Dispatcher) counts() []telemetry.Flock {
	var all []telemetry.Flock
	at, most := make(map[string]int), make(map[string]int) // by function
	for _, f := range d.awake.all() {
		id, c := f.version.FunctionID, f.census()
		i, known := at[id]
		if !known {
			i = len(all)
			at[id], all = i, append(all, telemetry.Flock{Function: id})
		}
		one := &all[i]
		one.Running += c.running
		one.Waiting += c.waiting
		one.Sandboxes += c.idle + c.busy + c.paused
		one.Wanted += c.aim.Sandboxes
		if one.Reason == "" || c.aim.Sandboxes > most[id] {
			one.Reason, most[id] = string(c.aim.Why), c.aim.Sandboxes
		}
	}
	return all
}

// Stats returns the number of sandboxes by state.
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

// Prepare makes sure that sandboxes of all languages can be started, as in
// sandbox.Engine. It takes as long as building what is missing.
func (d *Dispatcher) Prepare(ctx context.Context) error {
	if err := d.cfg.Engine.Prepare(ctx, d.cfg.Langs...); err != nil {
		return err
	}
	for _, lang := range d.cfg.Langs {
		d.outage.started(lang, nil) // earlier failures mean nothing any more
	}
	d.outage.lookAround(time.Now())
	return nil
}

// Outage returns why no sandbox can be made at present, for /readyz, or nil.
func (d *Dispatcher) Outage() *faas.Error { return d.outage.report() }

// forgive has flocks whose starts failed because of the engine try again at once.
func (d *Dispatcher) forgive() {
	d.mu.RLock()
	flocks := d.snapshot()
	d.mu.RUnlock()
	for _, f := range flocks {
		f.forgive()
	}
}

// draining returns the error for those who come too late.
func draining() error {
	return faas.Errorf(faas.CodeDraining, "the dispatcher is shutting down").After(time.Second)
}

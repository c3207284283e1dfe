package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/flockofbirds/fob/internal/egress"
	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// bird is one sandbox that has a version loaded.
type bird struct {
	inst         sandbox.Instance
	conn         *sandbox.Conn
	gate         *egress.Gate // its way out; nil unless its network is a list of hosts
	takesRequest bool
	recorded     bool          // the store knows already what it holds
	begun        time.Time     // when its start or load began
	leave        chan struct{} // closed when it drains and has no call left
	removed      chan struct{} // closed when no code of it runs any more

	// Its flock's mu guards these.
	flock     *flock
	ready     time.Time
	idleSince time.Time
	inFlight  int
	paused    bool
	pausing   bool // the engine is at it
	draining  bool
}

func (d *Dispatcher) newBird(inst sandbox.Instance, begun time.Time) *bird {
	b := &bird{
		inst:    inst,
		conn:    sandbox.NewConn(inst, d.cfg.MaxBody, d.cfg.Buffers),
		begun:   begun,
		leave:   make(chan struct{}),
		removed: make(chan struct{}),
	}
	var once sync.Once // it may go on for as long as the sandbox lives
	b.conn.OnStray = func() {
		d.cfg.Metrics.StrayAnswers.Inc()
		once.Do(func() {
			d.log.Warn().Str("sandbox", inst.ID()).Msg("something in a sandbox sends what nobody asked for: its connection is closed")
		})
	}
	return b
}

// close lets go of what it takes of ours: its connections, and its way out.
func (b *bird) close() {
	b.conn.Close()
	if b.gate != nil {
		b.gate.Close()
	}
}

// hatch makes a bird for a stored version.
func (f *flock) hatch() (*bird, error) {
	code, err := f.d.cfg.Catalogue.Code(f.d.ctx, f.version)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	awaited := f.line.len() > 0
	f.mu.Unlock()
	patience := roomPatience
	if !awaited { // for min_scale, which is looked at again and again
		patience = 0
	}
	b, err := f.d.hatch(f.d.ctx, f.version, code, patience)
	if faas.CodeOf(err) == faas.CodeBadCode {
		// It loaded when it was registered, so this is its failing at run
		// time, such as a service that it reaches for at import.
		e, _ := errors.AsType[*faas.Error](err)
		return nil, &faas.Error{Code: faas.CodeRaised, Message: e.Message, Raised: e.Raised}
	}
	return b, err
}

// hatch makes a bird: it takes a blank sandbox from the pool, or has the engine
// start one, and loads the code. When it fails the sandbox is removed. patience
// is how long it waits while there is no room and nothing to evict.
func (d *Dispatcher) hatch(ctx context.Context, v *faas.Version, code string, patience time.Duration) (*bird, error) {
	// The store may be that of a dispatcher with more drivers.
	if err := faas.CheckLang(v.Lang, d.cfg.Langs); err != nil {
		return nil, err
	}
	if err := d.cfg.Catalogue.HaveSecrets(ctx, v); err != nil {
		return nil, err
	}
	d.rush.begin()
	defer d.rush.end()
	for attempt := 1; ; attempt++ {
		b, pooled, err := d.tryHatch(ctx, v, code, patience)
		// A blank sandbox may have died without anybody having noticed.
		if err == nil || !pooled || !errors.Is(err, sandbox.ErrNotSent) || attempt == maxAttempts {
			return b, d.hush(err)
		}
	}
}

// tryHatch does what hatch says, with one sandbox.
func (d *Dispatcher) tryHatch(ctx context.Context, v *faas.Version, code string, patience time.Duration) (b *bird, pooled bool, err error) {
	begun := time.Now()
	inst, kind, err := d.blankFor(ctx, v, patience)
	if err != nil {
		return nil, false, err
	}
	b = d.newBird(inst, begun)
	if err = b.openGate(d, v); err == nil {
		err = d.load(ctx, b, v, code)
	}
	if err != nil {
		b.close()
		removed := d.dispose(inst)
		if faas.CodeOf(err) == faas.CodeTimeout && !d.await(removed, stopPatience) {
			err = faas.Errorf(faas.CodeInternal, "the code was still being loaded after %v, and could not be stopped yet", d.cfg.LoadTimeout)
		}
		return nil, kind == "pooled", err
	}
	d.cfg.Metrics.ColdStarts.WithLabelValues(kind).Inc()
	return b, kind == "pooled", nil
}

// blankFor returns a blank sandbox for a version, and where it comes from.
func (d *Dispatcher) blankFor(ctx context.Context, v *faas.Version, patience time.Duration) (inst sandbox.Instance, kind string, err error) {
	spec, pool := d.specOf(v), d.pools[v.Lang]
	if inst := pool.take(ctx, spec); inst != nil {
		if more := spec.Limits.Memory - inst.Spec().Limits.Memory; more > 0 {
			if err := d.reserve(ctx, room{memory: more}, v, patience); err != nil {
				pool.keep(inst)
				return nil, "", err
			}
			d.capacity.extend(inst.ID(), more)
		}
		return inst, "pooled", nil
	}
	if err := d.reserve(ctx, room{1, spec.Limits.Memory}, v, patience); err != nil {
		return nil, "", err
	}
	inst, err = d.startSandbox(ctx, spec)
	switch {
	case err == nil:
		return inst, "created", nil
	case ctx.Err() != nil:
		return nil, "", ctx.Err()
	}
	return nil, "", engineError(err)
}

// load fits a blank sandbox to a version and loads the code.
func (d *Dispatcher) load(ctx context.Context, b *bird, v *faas.Version, code string) error {
	if limits := d.specOf(v).Limits; b.inst.Spec().Limits != limits {
		if err := b.inst.Resize(ctx, limits); err != nil {
			if errors.Is(err, sandbox.ErrFixedLimits) && !d.fixed.Swap(true) {
				d.log.Info().Err(err).Msg("from now on only functions with the default limits get sandboxes from the pool")
			}
			return engineError(fmt.Errorf("%w: %w", sandbox.ErrNotSent, err))
		}
		d.capacity.shrink(b.inst.ID(), limits.Memory)
	}
	opened, err := d.cfg.Catalogue.OpenSecrets(ctx, v)
	if err != nil {
		return err
	}
	values := sandbox.Values(opened)
	loadCtx, cancel := context.WithTimeout(ctx, d.cfg.LoadTimeout)
	defer cancel()
	load := sandbox.Load{
		Code: code, Function: v.FunctionID, Version: v.Number, Concurrency: v.Settings.Concurrency, MaxBody: d.cfg.MaxBody,
		Env: v.Settings.Env.Map(), Secrets: values,
	}
	if b.gate != nil {
		load.Proxy = sandbox.ProxyName
	}
	// gofail: var loadBegin struct{}
	// return engineError(errors.New("failpoint loadBegin"))
	health, err := b.conn.Load(loadCtx, load)
	values.Wipe()
	driverError, isDriverError := errors.AsType[*sandbox.DriverError](err)
	switch {
	case err == nil:
		b.takesRequest = health.TakesRequest
		// gofail: var loadDone struct{}
		// return engineError(errors.New("failpoint loadDone"))
		return nil
	case isDriverError && driverError.Status == 422:
		return badCode(v.Lang, code, driverError)
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, sandbox.ErrNoRoom):
		return noRoom("what the driver says about the code")
	case loadCtx.Err() != nil:
		return faas.Errorf(faas.CodeTimeout, "the code was still being loaded after %v, and was stopped: what it does at import takes too long", d.cfg.LoadTimeout)
	}
	return d.died(b, "while the code was being loaded", err)
}

// badCode says what is wrong with code that could not be loaded, where, and what
// to do.
func badCode(lang, code string, e *sandbox.DriverError) error {
	message := "the code cannot be loaded: " + e.Message
	if e.Type != "" && e.Code != "no_callme" {
		message = "the code cannot be loaded: " + e.Type + ": " + e.Message
	}
	if text := lineOf(code, e.Line); e.Line > 0 && text != "" {
		message += fmt.Sprintf("; line %d is: %s", e.Line, clip(text, maxLineShown))
	}
	for _, more := range []string{hint(lang, code, e.Line), e.Hint} {
		if more != "" {
			message += "; " + more
		}
	}
	return &faas.Error{Code: faas.CodeBadCode, Message: message, Raised: raised(e)}
}

func raised(e *sandbox.DriverError) *faas.Raised {
	return &faas.Raised{Type: e.Type, Message: e.Message, Line: e.Line, Traceback: e.Traceback}
}

// specOf is the sandbox that a version needs.
func (d *Dispatcher) specOf(v *faas.Version) sandbox.Spec {
	spec := sandbox.Spec{
		Lang:    v.Lang,
		Network: networkOf(v).Bridged(),
		Runtime: cmp.Or(v.Settings.Runtime, d.cfg.Runtime),
		Limits:  sandbox.Limits{Memory: int64(v.Settings.Memory), CPUs: v.Settings.CPUs},
	}
	// A driver may need a thread for each call at a time; what is left for the
	// function's own stays the same.
	if more := v.Settings.Concurrency - 1; more > 0 {
		spec.Limits.Pids = sandbox.DefaultPids + int64(more)
	}
	return spec
}

// live sees a bird through its life: it keeps the record of what the sandbox
// holds, notices its death, and removes it when it is to leave. When the
// dispatcher closes the sandbox stays.
func (b *bird) live() {
	f, d := b.flock, b.flock.d
	if !b.recorded {
		if err := d.cfg.Store.RecordSandbox(context.WithoutCancel(d.ctx), b.inst.ID(), f.version.Key()); err != nil {
			d.log.Error().Err(err).Str("sandbox", b.inst.ID()).Msg("could not record a sandbox; the next start will not adopt it")
		}
	}
	select {
	case <-b.inst.Done():
		f.dismiss(b)
		d.log.Warn().Str("sandbox", b.inst.ID()).Str("function", f.version.FunctionID).Msg("a sandbox died")
		// Whoever has a call in it asks for the reason before letting go.
		select {
		case <-b.leave:
		case <-d.ctx.Done():
		}
	case <-b.leave:
	case <-d.ctx.Done():
		b.close()
		return
	}
	b.close()
	if d.remove(b.inst) {
		close(b.removed)
	}
	f.gone(b)
	if err := d.cfg.Store.ForgetSandboxes(context.WithoutCancel(d.ctx), b.inst.ID()); err != nil {
		d.log.Warn().Err(err).Str("sandbox", b.inst.ID()).Msg("could not drop the record of a sandbox")
	}
}

// info tells about the bird. The caller holds the flock's mu.
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

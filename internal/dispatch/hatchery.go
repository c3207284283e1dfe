package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// hatchery makes birds. It finds a blank sandbox for a version and loads the code into
// it, with its secrets and its way out.
type hatchery struct {
	*lifetime
	cfg     Config
	log     zerolog.Logger
	aviary  *aviary
	pools   *pools
	evictor *evictor
	rush    rush
	fixed   atomic.Bool // the engine cannot resize blank sandboxes
}

// hatch makes a bird. It takes a blank sandbox from the pool, or has the engine start
// one, and loads the code. If it fails, it removes the sandbox. patience is how long it
// waits while there is no room and nothing to evict.
func (h *hatchery) hatch(ctx context.Context, v *faas.Version, code string, patience time.Duration) (*bird, error) {
	// The store may come from a dispatcher with more drivers.
	if err := faas.CheckLang(v.Lang, h.cfg.Langs); err != nil {
		return nil, err
	}
	if err := h.cfg.Catalogue.HaveSecrets(ctx, v); err != nil {
		return nil, err
	}
	h.rush.begin()
	defer h.rush.end()
	for attempt := 1; ; attempt++ {
		b, pooled, err := h.try(ctx, v, code, patience)
		// The pool's sandbox may have died unnoticed.
		if err == nil || !pooled || !errors.Is(err, sandbox.ErrNotSent) || attempt == maxAttempts {
			return b, h.aviary.outage.hush(err)
		}
	}
}

// try does what hatch does, with one sandbox.
func (h *hatchery) try(ctx context.Context, v *faas.Version, code string, patience time.Duration) (b *bird, pooled bool, err error) {
	begun := time.Now()
	inst, kind, err := h.blankFor(ctx, v, patience)
	if err != nil {
		return nil, false, err
	}
	b = h.newBird(inst, begun)
	b.openLog(h, v)
	if err = b.openGate(h, v); err == nil {
		err = h.load(ctx, b, v, code)
	}
	if err != nil {
		// A function that is not there yet has no log: who registers it gets the error.
		if _, _, unknown := h.cfg.Catalogue.Resolve(ctx, faas.Ref{ID: v.FunctionID}); unknown == nil {
			b.log.fail("", err)
		}
		b.close()
		removed := h.aviary.dispose(inst)
		if faas.CodeOf(err) == faas.CodeTimeout && !h.await(removed, stopPatience) {
			err = faas.Errorf(faas.CodeInternal, "the code was still being loaded after %v, and could not be stopped yet", h.cfg.LoadTimeout)
		}
		return nil, kind == "pooled", err
	}
	h.cfg.Metrics.ColdStarts.WithLabelValues(kind).Inc()
	return b, kind == "pooled", nil
}

// blankFor returns a blank sandbox for a version, and where it came from.
func (h *hatchery) blankFor(ctx context.Context, v *faas.Version, patience time.Duration) (inst sandbox.Instance, kind string, err error) {
	spec, pool := h.specOf(v), h.pools.of(v.Lang)
	if inst := pool.take(ctx, spec); inst != nil {
		if more := spec.Limits.Memory - inst.Spec().Limits.Memory; more > 0 {
			if err := h.evictor.reserve(ctx, room{memory: more}, v, patience); err != nil {
				pool.keep(inst)
				return nil, "", err
			}
			h.aviary.capacity.extend(inst.ID(), more)
		}
		return inst, "pooled", nil
	}
	if err := h.evictor.reserve(ctx, room{1, spec.Limits.Memory}, v, patience); err != nil {
		return nil, "", err
	}
	inst, err = h.aviary.start(ctx, spec)
	switch {
	case err == nil:
		return inst, "created", nil
	case ctx.Err() != nil:
		return nil, "", ctx.Err()
	}
	return nil, "", engineError(err)
}

// load fits a blank sandbox to a version and loads the code.
func (h *hatchery) load(ctx context.Context, b *bird, v *faas.Version, code string) error {
	if limits := h.specOf(v).Limits; b.inst.Spec().Limits != limits {
		if err := b.inst.Resize(ctx, limits); err != nil {
			if errors.Is(err, sandbox.ErrFixedLimits) && !h.fixed.Swap(true) {
				h.log.Info().Err(err).Msg("from now on only functions with the default limits get sandboxes from the pool")
			}
			return engineError(fmt.Errorf("%w: %w", sandbox.ErrNotSent, err))
		}
		h.aviary.capacity.shrink(b.inst.ID(), limits.Memory)
	}
	b.loading = time.Now()
	opened, err := h.cfg.Catalogue.OpenSecrets(ctx, v)
	if err != nil {
		return err
	}
	values := sandbox.Values(opened)
	loadCtx, cancel := context.WithTimeout(ctx, h.cfg.LoadTimeout)
	defer cancel()
	load := sandbox.Load{
		Code: code, Function: v.FunctionID, Version: v.Number, Concurrency: v.Settings.Concurrency, MaxBody: h.cfg.MaxBody,
		Env: v.Settings.Env.Map(), Secrets: values,
	}
	if b.gate != nil {
		load.Proxy = sandbox.ProxyName
	}
	if b.log != nil {
		load.Log = sandbox.LogName
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
		return faas.Errorf(faas.CodeTimeout, "the code was still being loaded after %v, and was stopped: what it does at import takes too long", h.cfg.LoadTimeout)
	}
	return b.died(h.ctx, "while the code was being loaded", err)
}

// badCode returns an error that says what is wrong with code that could not be loaded,
// in which line, and what to do.
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

// specOf returns the Spec of a version's sandboxes.
func (h *hatchery) specOf(v *faas.Version) sandbox.Spec {
	spec := sandbox.Spec{
		Lang:    v.Lang,
		Network: networkOf(v).Bridged(),
		Runtime: cmp.Or(v.Settings.Runtime, h.cfg.Runtime),
		Limits:  sandbox.Limits{Memory: int64(v.Settings.Memory), CPUs: v.Settings.CPUs},
	}
	// A driver may need a thread for each call. The function's own share stays the
	// same.
	if more := v.Settings.Concurrency - 1; more > 0 {
		spec.Limits.Pids = sandbox.DefaultPids + int64(more)
	}
	return spec
}

// newBird makes a bird of a sandbox. begun is when its start or load began.
func (h *hatchery) newBird(inst sandbox.Instance, begun time.Time) *bird {
	b := &bird{
		inst:    inst,
		conn:    sandbox.NewConn(inst, h.cfg.MaxBody, h.cfg.Buffers),
		begun:   begun,
		drained: make(chan struct{}),
		removed: make(chan struct{}),
	}
	var once sync.Once // it may go on for as long as the sandbox lives
	b.conn.OnStray = func() {
		h.cfg.Metrics.StrayAnswers.Inc()
		once.Do(func() {
			h.log.Warn().Str("sandbox", inst.ID()).Msg("something in a sandbox sends what nobody asked for: its connection is closed")
		})
	}
	return b
}

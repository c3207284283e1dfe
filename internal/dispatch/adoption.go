package dispatch

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// probePatience is how long a sandbox may take to answer the health check of its
// adoption. The dispatcher is not ready before that.
const probePatience = 500 * time.Millisecond

// adoption takes over the sandboxes that an earlier dispatcher left.
type adoption struct {
	*hatchery
	flock func(v *faas.Version) (*flock, error) // returns the flock of a version that exists
}

// run adopts the sandboxes that hold a version which still exists, and removes the rest
// of the aviary in the background. It goes by our own record of what a sandbox holds,
// because the code inside could claim anything. It does not adopt blank sandboxes,
// because they cannot be told from loaded ones that lie.
func (a *adoption) run(ctx context.Context) error {
	records, err := a.cfg.Store.Sandboxes(ctx)
	if err != nil {
		return err
	}
	instances, err := a.cfg.Engine.List(ctx)
	if err != nil {
		return err
	}
	// gofail: var adoptBegin struct{}
	var probes sync.WaitGroup
	var adopted atomic.Int64
	for _, inst := range instances {
		a.aviary.capacity.admit(inst.ID(), inst.Spec().Limits.Memory)
		key, recorded := records[inst.ID()]
		delete(records, inst.ID())
		var v *faas.Version
		if recorded {
			_, v, err = a.cfg.Catalogue.Resolve(ctx, faas.Ref{ID: key.FunctionID, Version: key.Number})
			if err != nil && faas.CodeOf(err) != faas.CodeUnknownFunction {
				return err
			}
		}
		if v == nil || !a.suits(inst.Spec(), v) {
			a.background(func() { a.aviary.discard(inst) })
			continue
		}
		probes.Go(func() {
			if a.probe(inst, v) {
				adopted.Add(1)
			}
		})
	}
	probes.Wait()
	a.log.Info().Int64("adopted", adopted.Load()).Int("found", len(instances)).Msg("sandboxes of an earlier start")

	stale := make([]string, 0, len(records))
	for id := range records {
		stale = append(stale, id)
	}
	switch err := a.cfg.Store.ForgetSandboxes(ctx, stale...); {
	case faas.CodeOf(err) == faas.CodeNoSpace: // calls can be answered, and the records do no harm
		a.log.Warn().Err(err).Int("records", len(stale)).Msg("could not drop the records of sandboxes that are gone")
	case err != nil:
		return err
	}
	// gofail: var adoptDone struct{}
	return nil
}

// suits reports whether a sandbox could be made like this for the version now. The
// operator may have chosen another runtime since.
func (a *adoption) suits(spec sandbox.Spec, v *faas.Version) bool {
	want := a.specOf(v)
	return spec.Lang == want.Lang && spec.Network == want.Network && spec.Runtime == want.Runtime &&
		a.cfg.Catalogue.Permitted(v) == nil
}

// probe adopts a sandbox if it is healthy. If the sandbox still runs a call of the
// earlier dispatcher, it is adopted in the background when that has ended.
func (a *adoption) probe(inst sandbox.Instance, v *faas.Version) (adopted bool) {
	b := a.newBird(inst, time.Now())
	b.openLog(a.hatchery, v)
	// Calls that still run in it lost their way out with the earlier dispatcher.
	if err := b.openGate(a.hatchery, v); err != nil {
		a.log.Warn().Err(err).Str("sandbox", inst.ID()).Msg("removing a sandbox that cannot be given its way out")
		b.close()
		a.background(func() { a.aviary.discard(inst) })
		return false
	}
	ctx, cancel := context.WithTimeout(a.ctx, probePatience)
	defer cancel()
	var health sandbox.Health
	err := b.rouse(ctx, v)
	if err == nil {
		health, err = b.conn.Health(ctx)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded): // it may be too busy to answer
		a.background(func() { a.outlast(b, v) })
	case err != nil || !usable(health), health.InFlight == 0 && v.Settings.MaxCalls > 0: // nobody knows how many calls it has had
		b.close()
		a.background(func() { a.aviary.discard(inst) })
	case health.InFlight == 0:
		a.adopt(b, v, health)
		return true
	default:
		a.background(func() { a.outlast(b, v) })
	}
	return false
}

// usable reports whether a driver has code loaded, and speaks our version of the
// contract.
func usable(health sandbox.Health) bool {
	return health.State == "loaded" && health.Contract == sandbox.Contract
}

// rouse resumes a sandbox that the earlier dispatcher may have paused. The version's
// settings tell whether it may have, without asking the engine.
func (b *bird) rouse(ctx context.Context, v *faas.Version) error {
	if v.Settings.PauseAfter == 0 {
		return nil
	}
	return b.inst.Resume(ctx)
}

// outlast waits for the calls of an earlier dispatcher to end, at most for the
// version's timeout, and then adopts or removes the sandbox.
func (a *adoption) outlast(b *bird, v *faas.Version) {
	ctx, cancel := context.WithTimeout(a.ctx, time.Duration(v.Settings.Timeout))
	defer cancel()
	err := b.rouse(ctx, v)
	for err == nil && ctx.Err() == nil {
		health, err := b.conn.Health(ctx)
		if err == nil && usable(health) && health.InFlight == 0 && v.Settings.MaxCalls == 0 {
			a.adopt(b, v, health)
			return
		}
		if err != nil || !usable(health) || health.InFlight == 0 {
			break
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	b.close()
	if a.ctx.Err() == nil {
		a.aviary.discard(b.inst)
	}
}

// adopt gives an adopted sandbox to its version's flock.
func (a *adoption) adopt(b *bird, v *faas.Version, health sandbox.Health) {
	// gofail: var adoptOne struct{}
	b.takesRequest, b.recorded = health.TakesRequest, true
	f, err := a.flock(v)
	if err != nil { // the version was deleted meanwhile
		b.close()
		a.background(func() { a.aviary.discard(b.inst) })
		return
	}
	f.add(b)
	f.renewal.add(b)
}

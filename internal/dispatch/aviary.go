package dispatch

import (
	"context"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/semaphore"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// An aviary is all the sandboxes that one dispatcher made, blank ones and birds. It
// has the engine create and remove them, within the capacity, and keeps the record of
// which version each one holds.
type aviary struct {
	*lifetime
	engine   sandbox.Engine
	records  faas.SandboxStore
	capacity *capacity
	outage   *outage
	log      zerolog.Logger
	creating *semaphore.Weighted // bounds the sandboxes that the engine creates at a time
}

// createTimeout bounds the creation of a sandbox by the engine. It does not depend on
// the patience of the call that caused it, because the next call can use the sandbox,
// too.
const createTimeout = time.Minute

// maxCreating bounds how many sandboxes the engine creates at a time. More would only
// make each slower, and a function may ask for a thousand.
const maxCreating = 4

// closePatience is how long Close waits for the engine to remove a sandbox. The next
// start removes what is left.
const closePatience = 5 * time.Second

// start has the engine create a sandbox when its turn comes. The caller has reserved
// the room.
func (a *aviary) start(ctx context.Context, spec sandbox.Spec) (sandbox.Instance, error) {
	if err := a.turn(ctx, spec); err != nil {
		return nil, err
	}
	defer a.creating.Release(1)
	return a.create(ctx, spec)
}

// turn waits until the engine is prepared for a language and the sandbox's turn to be
// created has come. The caller has reserved the room; if turn fails, it gives the room
// back. Only ctx bounds the wait, because the driver image may be missing, and building
// it takes minutes on a slow network.
func (a *aviary) turn(ctx context.Context, spec sandbox.Spec) error {
	err := a.engine.Prepare(ctx, spec.Lang)
	if err != nil && ctx.Err() == nil {
		a.outage.started(spec.Lang, err)
	}
	if err == nil {
		err = a.creating.Acquire(ctx, 1)
	}
	if err != nil {
		a.capacity.give(room{1, spec.Limits.Memory})
	}
	return err
}

// create has the engine create a sandbox now. If that fails, it gives the room back.
func (a *aviary) create(ctx context.Context, spec sandbox.Spec) (sandbox.Instance, error) {
	within, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	inst, err := a.engine.Create(within, spec)
	if err == nil || ctx.Err() == nil { // otherwise nobody waits for it any more
		a.outage.started(spec.Lang, err)
	}
	if err != nil {
		a.capacity.give(room{1, spec.Limits.Memory})
		return nil, err
	}
	a.capacity.hold(inst.ID(), spec.Limits.Memory)
	return inst, nil
}

// dispose removes a sandbox in the background, or at once if the dispatcher is closing.
// The channel that it returns is closed when the sandbox is removed.
func (a *aviary) dispose(inst sandbox.Instance) <-chan struct{} {
	removed := make(chan struct{})
	work := func() {
		if a.remove(inst) {
			close(removed)
		}
	}
	if !a.background(work) {
		work()
	}
	return removed
}

// remove removes a sandbox, and tries again until the engine does it. It reports false
// if the dispatcher closes before that.
func (a *aviary) remove(inst sandbox.Instance) bool {
	const patience = time.Minute
	a.capacity.removing(inst.ID())
	wait := 100 * time.Millisecond
	for {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		stop := context.AfterFunc(a.ctx, func() { time.AfterFunc(closePatience, cancel) })
		err := inst.Remove(ctx)
		stop()
		cancel()
		if err == nil {
			a.capacity.removed(inst.ID())
			return true
		}
		a.outage.complain(err).Str("sandbox", inst.ID()).Msg("could not remove a sandbox; trying again")
		if !a.sleep(wait) { // the next start removes it
			return false
		}
		wait = min(2*wait, longestStep)
	}
}

// discard removes a sandbox that an earlier dispatcher left, and its record.
func (a *aviary) discard(inst sandbox.Instance) {
	a.remove(inst)
	a.forget(inst)
}

// record stores which version a sandbox holds.
func (a *aviary) record(inst sandbox.Instance, holds faas.VersionKey) {
	if err := a.records.RecordSandbox(context.WithoutCancel(a.ctx), inst.ID(), holds); err != nil {
		a.log.Error().Err(err).Str("sandbox", inst.ID()).Msg("could not record a sandbox; the next start will not adopt it")
	}
}

// forget deletes the record of a sandbox that is gone.
func (a *aviary) forget(inst sandbox.Instance) {
	if err := a.records.ForgetSandboxes(context.WithoutCancel(a.ctx), inst.ID()); err != nil {
		a.log.Warn().Err(err).Str("sandbox", inst.ID()).Msg("could not drop the record of a sandbox")
	}
}

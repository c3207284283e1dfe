package catalogue

import (
	"context"
	"slices"

	"github.com/flockofbirds/fob/internal/faas"
)

// maxDrop bounds the versions that one change drops. They are deleted in the
// transaction that stores the change, each with its code, and etcd allows 128
// operations in one.
const maxDrop = 40

// publish has fn's new live version proven, stores fn, and only then lets calls see it.
// before is fn's former state, or nil for a new function. code may be empty if it is
// that of the version live before. If publish fails, nothing has changed.
func (r *Registrar) publish(ctx context.Context, before, fn *faas.Function, code string) (*faas.Function, error) {
	v := fn.Live()
	var proof faas.Proof
	sandboxID := ""
	// Switching a function off must not start a sandbox. Nor need the code be checked,
	// if it is the live version's.
	if v.Settings.MaxConcurrency > 0 || before == nil || !sameCode(v, before.Live()) {
		var err error
		if code == "" {
			code, err = r.Code(ctx, before.Live())
		}
		if err == nil {
			proof, err = r.runner.Prove(ctx, v, code)
		}
		if err != nil {
			return nil, err
		}
		sandboxID = proof.SandboxID()
	}
	// From here on the change is finished even if the client goes away.
	ctx = context.WithoutCancel(ctx)
	var dropped []int
	var err error
	if before == nil {
		err = r.storeNew(ctx, fn, code, sandboxID)
	} else {
		dropped = r.drop(before, fn.Surplus())
		fn = fn.Without(dropped)
		err = r.store.AddVersion(ctx, fn, code, sandboxID)
	}
	if err != nil {
		if len(dropped) > 0 {
			r.runner.Undrop(before, dropped)
			r.show(before)
		}
		if proof != nil {
			proof.Discard()
		}
		return nil, err
	}
	// Publish the sandbox before any call can come, or the first call would start
	// another one. The former version is retired once no new call can take it for the
	// live one.
	if proof != nil {
		proof.Publish(fn)
	}
	r.show(fn)
	if before != nil {
		r.runner.Changed(before, fn, dropped)
	}
	r.log.Info().Str("function", fn.ID).Str("name", fn.Name).Int("version", v.Number).Str("lang", v.Lang).Ints("dropped", dropped).Msg("registered")
	return fn, nil
}

// storeNew stores a new function and sets its time of creation. That is not the time
// before the load, because other functions may have been stored since.
func (r *Registrar) storeNew(ctx context.Context, fn *faas.Function, code, sandboxID string) error {
	r.mu.Lock()
	fn.Created = r.functions.stamp()
	r.mu.Unlock()
	fn.Live().Created = fn.Created
	return r.store.CreateFunction(ctx, fn, code, sandboxID)
}

// drop hides versions of a function that nobody uses, so that nobody starts to use them
// while they are deleted, and returns them. The live version stays, because calls go to
// it until the change is stored. The caller holds the function's lock.
func (r *Registrar) drop(fn *faas.Function, surplus []int) []int {
	surplus = slices.DeleteFunc(surplus, func(number int) bool { return number == fn.Live().Number })
	if len(surplus) == 0 {
		return nil
	}
	dropped := r.runner.Drop(fn, surplus, maxDrop)
	if len(dropped) > 0 {
		r.show(fn.Without(dropped))
	}
	return dropped
}

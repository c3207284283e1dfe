package catalogue

import (
	"context"
	"slices"

	"github.com/flockofbirds/fob/internal/faas"
)

// maxDrop is how many versions a change drops at most: they go in the transaction
// that stores the change, each with its code, and etcd allows 128 operations in one.
const maxDrop = 40

// publish has fn's live version proven, which is new, stores fn, and only then lets
// calls see it. before is what fn was, nil for a new function, and code may be empty
// for that of its live version. When publish fails nothing has changed.
func (r *Registrar) publish(ctx context.Context, before, fn *faas.Function, code string) (*faas.Function, error) {
	v := fn.Live()
	var proof faas.Proof
	sandboxID := ""
	// A function that is being switched off is to start nothing, and its code
	// need not be checked when it is the live version's.
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
	// From here on it is done whether the client waits for it or not.
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
	// The sandbox is there before a call can come, so that none starts another. And
	// the former version is retired once none can come that takes it for the live one.
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

// storeNew stores a new function, and says when it was created: not before the
// load, for others were quicker since.
func (r *Registrar) storeNew(ctx context.Context, fn *faas.Function, code, sandboxID string) error {
	r.mu.Lock()
	fn.Created = r.functions.stamp()
	r.mu.Unlock()
	fn.Live().Created = fn.Created
	return r.store.CreateFunction(ctx, fn, code, sandboxID)
}

// drop hides versions of a function, so that nobody comes to use one while it is
// deleted, and returns which. Those that something uses stay, and so does the live
// one, which calls go to until the change is stored. The caller holds the function's
// lock.
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

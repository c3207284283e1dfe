package catalogue

import (
	"context"

	"github.com/flockofbirds/fob/internal/faas"
)

// Rename implements faas.Registry. It holds the lock of the new name, as creations of a
// function of that name do, and then the function's own.
func (r *Registrar) Rename(ctx context.Context, ref faas.Ref, name string) (*faas.Function, faas.Change, error) {
	if err := bare(ref, "PATCH"); err != nil {
		return nil, faas.Unchanged, err
	}
	if err := faas.CheckName(name); err != nil {
		return nil, faas.Unchanged, err
	}
	if err := mayTake(ctx, name); err != nil {
		return nil, faas.Unchanged, err
	}
	freeName, err := r.locks.lock(ctx, name)
	if err != nil {
		return nil, faas.Unchanged, err
	}
	defer freeName()
	fn, unlock, err := r.hold(ctx, ref)
	if err != nil {
		return nil, faas.Unchanged, err
	}
	defer unlock()
	if fn.Name == name {
		return fn, faas.Unchanged, nil
	}
	if r.lookup(faas.Ref{Name: name}) != nil {
		return nil, faas.Unchanged, faas.Errorf(faas.CodeNameTaken, "a function called %s exists: delete or rename it first, or choose another name", name)
	}
	renamed := *fn
	renamed.Name = name
	// A secret may be for the former name only.
	done, err := r.nameSecrets(ctx, &renamed, fn.Live().Settings)
	if err != nil {
		return nil, faas.Unchanged, err
	}
	defer done()
	ctx = context.WithoutCancel(ctx)
	if err := r.store.RenameFunction(ctx, fn.ID, name); err != nil {
		return nil, faas.Unchanged, err
	}
	r.show(&renamed)
	r.log.Info().Str("function", fn.ID).Str("name", name).Str("former", fn.Name).Msg("renamed")
	return &renamed, faas.Changed, nil
}

// mayTake fails if the caller's token does not allow functions of that name. Otherwise a
// token for one function could give it a name for which there are grants and secrets. It
// says nothing about which functions exist.
func mayTake(ctx context.Context, name string) error {
	who := faas.CallerOf(ctx)
	if who.ForSomeOnly(faas.ScopeDeploy) && !who.May(faas.ScopeDeploy, &faas.Function{Name: name}) {
		return faas.Errorf(faas.CodeForbidden, "your token allows nothing for functions called %s: use one with the grant deploy, or deploy:%s", name, name)
	}
	return nil
}

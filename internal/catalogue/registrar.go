package catalogue

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/flockofbirds/fob/internal/faas"
)

// DefaultLang is the language of code for which none is given.
const DefaultLang = "python"

// Runner runs functions. A Registrar asks it to prove new versions, and tells it about
// changes. It makes changes to one function one after the other.
type Runner interface {
	// Prove loads a version that nobody can call yet into a sandbox. If Prove fails, it
	// has removed the sandbox.
	Prove(ctx context.Context, v *faas.Version, code string) (faas.Proof, error)

	// Drop picks up to most of these versions that nothing uses, refuses calls to them
	// from then on, and returns their numbers. The caller calls Changed or Undrop next.
	Drop(fn *faas.Function, versions []int, most int) (unused []int)

	// Undrop undoes Drop.
	Undrop(fn *faas.Function, unused []int)

	// Changed reports that calls now see after instead of before, and which versions
	// were dropped.
	Changed(before, after *faas.Function, dropped []int)

	// Deleted reports that a function is gone. Calls that run may finish.
	Deleted(fn *faas.Function)
}

// Registrar changes a catalogue. It implements faas.Registry.
type Registrar struct {
	*Catalogue
	runner Runner
	locks  keyLock // serialises changes to one function
}

// NewRegistrar returns the registrar of a catalogue. A catalogue must have only one.
func NewRegistrar(c *Catalogue, runner Runner) *Registrar {
	return &Registrar{Catalogue: c, runner: runner}
}

// Create implements faas.Registry.
func (r *Registrar) Create(ctx context.Context, name string, draft faas.Draft) (*faas.Function, error) {
	if name == "" {
		return r.create(ctx, name, draft)
	}
	if err := faas.CheckName(name); err != nil {
		return nil, err
	}
	unlock, err := r.locks.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if r.lookup(faas.Ref{Name: name}) != nil {
		return nil, nameTaken(name)
	}
	return r.create(ctx, name, draft)
}

// mayChange fails if the caller's token does not allow changes to fn. The token was
// checked when the request came, but since then, while the body was read, the function
// may have been deleted and its name taken by another one. The caller holds fn's lock.
func mayChange(ctx context.Context, fn *faas.Function) error {
	who := faas.CallerOf(ctx)
	if who.ForSomeOnly(faas.ScopeDeploy) && !who.May(faas.ScopeDeploy, fn) {
		return faas.UnknownFunction(faas.Ref{Name: fn.Name})
	}
	return nil
}

// create makes a new function. The caller holds the lock of its name.
func (r *Registrar) create(ctx context.Context, name string, draft faas.Draft) (*faas.Function, error) {
	fn := &faas.Function{ID: uuid.NewString(), Name: name}
	if err := mayChange(ctx, fn); err != nil {
		return nil, err
	}
	lang := faas.Lang(draft.Lang)
	if lang == "" {
		lang = DefaultLang
	}
	v, err := r.draft(fn, lang, draft.Code, draft.Settings, r.policy.defaults())
	if err != nil {
		return nil, err
	}
	done, err := r.nameSecrets(ctx, fn, v.Settings)
	if err != nil {
		return nil, err
	}
	defer done()
	return r.publish(ctx, nil, fn.With(v), draft.Code)
}

// Put implements faas.Registry.
func (r *Registrar) Put(ctx context.Context, ref faas.Ref, draft faas.Draft) (*faas.Function, faas.Change, error) {
	if err := bare(ref, "PUT"); err != nil {
		return nil, faas.Unchanged, err
	}
	if ref.ID == "" {
		if err := faas.CheckName(ref.Name); err != nil {
			return nil, faas.Unchanged, err
		}
		unlock, err := r.locks.lock(ctx, ref.Name)
		if err != nil {
			return nil, faas.Unchanged, err
		}
		defer unlock()
		if r.lookup(ref) == nil {
			fn, err := r.create(ctx, ref.Name, draft)
			return fn, faas.Created, err
		}
	}
	fn, change, err := r.revise(ctx, ref, func(fn *faas.Function) (*faas.Version, error) {
		live := fn.Live()
		lang := faas.Lang(draft.Lang)
		if lang == "" {
			lang = live.Lang
		}
		return r.draft(fn, lang, draft.Code, draft.Settings, live.Settings)
	}, draft.Code)
	if ref.ID == "" && faas.CodeOf(err) == faas.CodeUnknownFunction { // it was deleted or renamed meanwhile, so the name is free
		fn, err := r.create(ctx, ref.Name, draft)
		return fn, faas.Created, err
	}
	return fn, change, err
}

// Patch implements faas.Registry.
func (r *Registrar) Patch(ctx context.Context, ref faas.Ref, settings faas.SettingsPatch) (*faas.Function, faas.Change, error) {
	if err := bare(ref, "PATCH"); err != nil {
		return nil, faas.Unchanged, err
	}
	if settings.Empty() {
		return nil, faas.Unchanged, faas.Errorf(faas.CodeBadRequest, "there is no setting to change; give one or more of %v", faas.SettingNames())
	}
	return r.revise(ctx, ref, func(fn *faas.Function) (*faas.Version, error) {
		v := *fn.Live()
		v.Number, v.Created = fn.Latest()+1, now()
		var err error
		v.Settings, err = r.policy.settings(v.Lang, settings, v.Settings)
		return &v, err
	}, "")
}

// revise adds the version that next makes to a function and moves live to it, unless
// the live version is the same already. Changes to one function follow one another,
// each based on the one before. code may be empty if it is the live version's.
func (r *Registrar) revise(ctx context.Context, ref faas.Ref, next func(*faas.Function) (*faas.Version, error), code string) (*faas.Function, faas.Change, error) {
	fn, unlock, err := r.hold(ctx, ref)
	if err != nil {
		return nil, faas.Unchanged, err
	}
	defer unlock()
	v, err := next(fn)
	if err != nil {
		return nil, faas.Unchanged, err
	}
	done, err := r.nameSecrets(ctx, fn, v.Settings)
	if err != nil {
		return nil, faas.Unchanged, err
	}
	defer done()
	if live := fn.Live(); sameCode(v, live) && v.Settings == live.Settings {
		return fn, faas.Unchanged, nil
	}
	fn, err = r.publish(ctx, fn, fn.With(v), code)
	return fn, faas.Changed, err
}

// hold locks the function that a ref names for a change by the caller. Without an error
// unlock ends that. A ref's name counts once the lock is there, because the function may
// have been deleted or renamed before.
func (r *Registrar) hold(ctx context.Context, ref faas.Ref) (fn *faas.Function, unlock func(), err error) {
	if fn = r.lookup(ref); fn == nil {
		return nil, nil, faas.UnknownFunction(ref)
	}
	if unlock, err = r.locks.lock(ctx, fn.ID); err != nil {
		return nil, nil, err
	}
	fn = r.lookup(faas.Ref{ID: fn.ID})
	if fn == nil || ref.ID == "" && fn.Name != ref.Name {
		err = faas.UnknownFunction(ref)
	} else {
		err = mayChange(ctx, fn)
	}
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return fn, unlock, nil
}

// draft makes the next version of a function, and checks whatever can be checked
// without running it.
func (r *Registrar) draft(fn *faas.Function, lang, code string, patch faas.SettingsPatch, base faas.Settings) (*faas.Version, error) {
	if err := faas.CheckLang(lang, r.policy.Langs); err != nil {
		return nil, err
	}
	if err := faas.CheckCode(code); err != nil {
		return nil, err
	}
	settings, err := r.policy.settings(lang, patch, base)
	if err != nil {
		return nil, err
	}
	return &faas.Version{
		FunctionID: fn.ID,
		Number:     fn.Latest() + 1,
		Lang:       lang,
		Settings:   settings,
		Created:    now(),
		Size:       len(code),
		Digest:     faas.Digest(code),
	}, nil
}

// Delete implements faas.Registry.
func (r *Registrar) Delete(ctx context.Context, ref faas.Ref) error {
	if err := bare(ref, "DELETE"); err != nil {
		return err
	}
	fn, unlock, err := r.hold(ctx, ref)
	if err != nil {
		return err
	}
	defer unlock()
	if err := r.store.DeleteFunction(ctx, fn.ID); err != nil {
		return err
	}
	r.hide(fn)
	r.runner.Deleted(fn)
	r.log.Info().Str("function", fn.ID).Str("name", fn.Name).Msg("deleted")
	return nil
}

// bare fails if a ref has a version or an alias where only a whole function makes
// sense.
func bare(ref faas.Ref, method string) error {
	if ref.Bare() {
		return nil
	}
	return faas.Errorf(faas.CodeBadRequest, "%s takes a whole function, not one version of it: use %s", method, ref.ID+ref.Name)
}

// sameCode reports whether two versions differ only in their settings.
func sameCode(a, b *faas.Version) bool { return a.Digest == b.Digest && a.Lang == b.Lang }

func nameTaken(name string) error {
	return faas.Errorf(faas.CodeNameTaken, "a function called %s exists; PUT /api/functions/%s adds a version to it", name, name)
}

// now is the time as it is stored: UTC, to the millisecond.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

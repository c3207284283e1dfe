package dispatch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/google/uuid"

	"github.com/flockofbirds/fob/internal/faas"
)

// DefaultLang is the language of code that does not say its own.
const DefaultLang = "python"

// Create implements faas.Registry.
func (d *Dispatcher) Create(ctx context.Context, name string, draft faas.Draft) (*faas.Function, error) {
	if name == "" {
		return d.create(ctx, name, draft)
	}
	if err := faas.CheckName(name); err != nil {
		return nil, err
	}
	unlock, err := d.names.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if d.lookup(faas.Ref{Name: name}) != nil {
		return nil, nameTaken(name)
	}
	return d.create(ctx, name, draft)
}

// mayChange fails when the caller's token is not for fn. It was for what was
// there when the request came; since then, for a body may take its time, the
// function may have been deleted and its name be another's. The caller has locked
// fn.
func mayChange(ctx context.Context, fn *faas.Function) error {
	who := faas.CallerOf(ctx)
	if who.ForSomeOnly(faas.ScopeDeploy) && !who.May(faas.ScopeDeploy, fn) {
		return faas.UnknownFunction(faas.Ref{Name: fn.Name})
	}
	return nil
}

// create makes a new function. The caller holds the lock of its name.
func (d *Dispatcher) create(ctx context.Context, name string, draft faas.Draft) (*faas.Function, error) {
	fn := &faas.Function{ID: uuid.NewString(), Name: name, Created: now()}
	if err := mayChange(ctx, fn); err != nil {
		return nil, err
	}
	lang := faas.Lang(draft.Lang)
	if lang == "" {
		lang = DefaultLang
	}
	v, err := d.version(fn, lang, draft.Code, draft.Settings, d.defaults())
	if err != nil {
		return nil, err
	}
	done, err := d.nameSecrets(ctx, fn, v.Settings)
	if err != nil {
		return nil, err
	}
	defer done()
	return d.publish(ctx, fn.With(v), v, draft.Code, d.cfg.Store.CreateFunction)
}

// Put implements faas.Registry.
func (d *Dispatcher) Put(ctx context.Context, ref faas.Ref, draft faas.Draft) (*faas.Function, bool, error) {
	if err := bare(ref, "PUT"); err != nil {
		return nil, false, err
	}
	if ref.ID == "" {
		if err := faas.CheckName(ref.Name); err != nil {
			return nil, false, err
		}
		unlock, err := d.names.lock(ctx, ref.Name)
		if err != nil {
			return nil, false, err
		}
		defer unlock()
		if d.lookup(ref) == nil {
			fn, err := d.create(ctx, ref.Name, draft)
			return fn, err == nil, err
		}
	}
	fn, err := d.revise(ctx, ref, func(fn *faas.Function) (lang, code string, settings faas.SettingsPatch, err error) {
		lang = faas.Lang(draft.Lang)
		if lang == "" {
			lang = fn.Live().Lang
		}
		return lang, draft.Code, draft.Settings, nil
	})
	if ref.ID == "" && faas.CodeOf(err) == faas.CodeUnknownFunction { // deleted meanwhile, so the name is free
		fn, err := d.create(ctx, ref.Name, draft)
		return fn, err == nil, err
	}
	return fn, false, err
}

// Patch implements faas.Registry.
func (d *Dispatcher) Patch(ctx context.Context, ref faas.Ref, settings faas.SettingsPatch) (*faas.Function, error) {
	if err := bare(ref, "PATCH"); err != nil {
		return nil, err
	}
	if len(settings) == 0 {
		return nil, faas.Errorf(faas.CodeBadRequest, "there is no setting to change; give one or more of %v", faas.SettingNames())
	}
	return d.revise(ctx, ref, func(fn *faas.Function) (string, string, faas.SettingsPatch, error) {
		live := fn.Live()
		code, err := d.cfg.Store.Code(ctx, fn.ID, live.Number)
		return live.Lang, code, settings, err
	})
}

// revise adds a version to a function and moves live to it. Changes to one
// function follow one another, each on top of the last.
func (d *Dispatcher) revise(ctx context.Context, ref faas.Ref, change func(*faas.Function) (lang, code string, settings faas.SettingsPatch, err error)) (*faas.Function, error) {
	fn := d.lookup(ref)
	if fn == nil {
		return nil, faas.UnknownFunction(ref)
	}
	unlock, err := d.names.lock(ctx, fn.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if fn = d.lookup(faas.Ref{ID: fn.ID}); fn == nil {
		return nil, faas.UnknownFunction(ref)
	}
	if err := mayChange(ctx, fn); err != nil {
		return nil, err
	}
	lang, code, settings, err := change(fn)
	if err != nil {
		return nil, err
	}
	v, err := d.version(fn, lang, code, settings, fn.Live().Settings)
	if err != nil {
		return nil, err
	}
	done, err := d.nameSecrets(ctx, fn, v.Settings)
	if err != nil {
		return nil, err
	}
	defer done()
	return d.publish(ctx, fn.With(v), v, code, d.cfg.Store.AddVersion)
}

// version makes the next version of a function, and checks what can be
// checked without running it.
func (d *Dispatcher) version(fn *faas.Function, lang, code string, patch faas.SettingsPatch, base faas.Settings) (*faas.Version, error) {
	if err := d.knownLang(lang); err != nil {
		return nil, err
	}
	if err := faas.CheckCode(code); err != nil {
		return nil, err
	}
	settings, err := patch.Apply(base)
	if err != nil {
		return nil, err
	}
	if err := faas.CheckEnvironment(lang, settings); err != nil {
		return nil, err
	}
	if err := d.permit(settings, faas.CodeBadRequest); err != nil {
		return nil, err
	}
	if int64(settings.Memory) > d.cfg.MaxMemory {
		return nil, d.tooLarge(faas.CodeBadRequest, settings.Memory)
	}
	number := 1
	if len(fn.Versions) > 0 {
		number = fn.Latest().Number + 1
	}
	digest := sha256.Sum256([]byte(code))
	return &faas.Version{
		FunctionID: fn.ID,
		Number:     number,
		Lang:       lang,
		Settings:   settings,
		Created:    now(),
		Size:       len(code),
		Digest:     "sha256:" + hex.EncodeToString(digest[:]),
	}, nil
}

// publish loads v, which is fn's newest version, into a sandbox, stores fn, and
// only then lets calls see it. When it fails nothing has changed.
func (d *Dispatcher) publish(ctx context.Context, fn *faas.Function, v *faas.Version, code string,
	store func(ctx context.Context, fn *faas.Function, code, sandboxID string) error) (*faas.Function, error) {
	if d.ctx.Err() != nil {
		return nil, draining()
	}
	before := d.lookup(faas.Ref{ID: fn.ID})
	// A function that is being switched off is to start nothing, and its code
	// need not be checked when it is the live version's.
	var b *bird
	sandboxID := ""
	if v.Settings.MaxConcurrency > 0 || before == nil || !sameCode(v, before.Live()) {
		var err error
		if b, err = d.hatch(ctx, v, code, roomPatience); err != nil {
			return nil, err
		}
		sandboxID = b.inst.ID()
	}
	// From here on it is done whether the client waits for it or not.
	ctx = context.WithoutCancel(ctx)
	if err := store(ctx, fn, code, sandboxID); err != nil {
		if b != nil {
			b.close()
			d.dispose(b.inst)
		}
		return nil, err
	}
	d.mu.Lock()
	q := d.quota(fn)
	d.mu.Unlock()
	f := newFlock(d, v, q)
	if b != nil {
		b.recorded = true
		f.add(b)
	}
	d.mu.Lock()
	d.functions.put(fn)
	d.flocks[v.Key()] = f
	var old *flock
	if before != nil {
		old = d.flocks[before.Live().Key()]
	}
	closed := d.closed
	d.mu.Unlock()
	if before != nil { // a new function has its own limit, unless it was changed since it can be seen
		q.set(v.Settings.MaxConcurrency)
	}
	if closed { // Close did not see it
		f.shut()
	}
	if old != nil {
		old.retire(true)
	}
	d.log.Info().Str("function", fn.ID).Str("name", fn.Name).Int("version", v.Number).Str("lang", v.Lang).Msg("registered")
	return fn, nil
}

// Delete implements faas.Registry.
func (d *Dispatcher) Delete(ctx context.Context, ref faas.Ref) error {
	if err := bare(ref, "DELETE"); err != nil {
		return err
	}
	fn := d.lookup(ref)
	if fn == nil {
		return faas.UnknownFunction(ref)
	}
	unlock, err := d.names.lock(ctx, fn.ID)
	if err != nil {
		return err
	}
	defer unlock()
	if fn = d.lookup(faas.Ref{ID: fn.ID}); fn == nil {
		return faas.UnknownFunction(ref)
	}
	if err := mayChange(ctx, fn); err != nil {
		return err
	}
	if err := d.cfg.Store.DeleteFunction(ctx, fn.ID); err != nil {
		return err
	}
	d.mu.Lock()
	d.functions.delete(fn)
	delete(d.quotas, fn.ID)
	var flocks []*flock
	for _, v := range fn.Versions {
		if f := d.flocks[v.Key()]; f != nil {
			flocks = append(flocks, f)
			delete(d.flocks, v.Key())
		}
	}
	d.mu.Unlock()
	for _, f := range flocks {
		f.disband()
	}
	d.cfg.Metrics.Forget(fn.ID)
	d.log.Info().Str("function", fn.ID).Str("name", fn.Name).Msg("deleted")
	return nil
}

// Code implements faas.Registry.
func (d *Dispatcher) Code(ctx context.Context, v *faas.Version) (string, error) {
	return d.cfg.Store.Code(ctx, v.FunctionID, v.Number)
}

func (d *Dispatcher) lookup(ref faas.Ref) *faas.Function {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.functions.get(ref)
}

// bare fails for a ref that names a version or an alias where only a whole
// function makes sense.
func bare(ref faas.Ref, method string) error {
	if ref.Bare() {
		return nil
	}
	return faas.Errorf(faas.CodeBadRequest, "%s takes a whole function, not one version of it: use %s", method, ref.ID+ref.Name)
}

// sameCode reports whether two versions differ in nothing but settings.
func sameCode(a, b *faas.Version) bool { return a.Digest == b.Digest && a.Lang == b.Lang }

func nameTaken(name string) error {
	return faas.Errorf(faas.CodeNameTaken, "a function called %s exists; PUT /api/functions/%s adds a version to it", name, name)
}

// now is the time as it is stored: UTC, to the millisecond.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

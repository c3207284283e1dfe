package dispatch

import (
	"context"
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
	fn := &faas.Function{ID: uuid.NewString(), Name: name}
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
	return d.publish(ctx, fn.With(v), draft.Code)
}

// Put implements faas.Registry.
func (d *Dispatcher) Put(ctx context.Context, ref faas.Ref, draft faas.Draft) (*faas.Function, faas.Change, error) {
	if err := bare(ref, "PUT"); err != nil {
		return nil, faas.Unchanged, err
	}
	if ref.ID == "" {
		if err := faas.CheckName(ref.Name); err != nil {
			return nil, faas.Unchanged, err
		}
		unlock, err := d.names.lock(ctx, ref.Name)
		if err != nil {
			return nil, faas.Unchanged, err
		}
		defer unlock()
		if d.lookup(ref) == nil {
			fn, err := d.create(ctx, ref.Name, draft)
			return fn, faas.Created, err
		}
	}
	fn, change, err := d.revise(ctx, ref, func(fn *faas.Function) (*faas.Version, error) {
		live := fn.Live()
		lang := faas.Lang(draft.Lang)
		if lang == "" {
			lang = live.Lang
		}
		return d.version(fn, lang, draft.Code, draft.Settings, live.Settings)
	}, draft.Code)
	if ref.ID == "" && faas.CodeOf(err) == faas.CodeUnknownFunction { // deleted meanwhile, so the name is free
		fn, err := d.create(ctx, ref.Name, draft)
		return fn, faas.Created, err
	}
	return fn, change, err
}

// Patch implements faas.Registry.
func (d *Dispatcher) Patch(ctx context.Context, ref faas.Ref, settings faas.SettingsPatch) (*faas.Function, faas.Change, error) {
	if err := bare(ref, "PATCH"); err != nil {
		return nil, faas.Unchanged, err
	}
	if len(settings) == 0 {
		return nil, faas.Unchanged, faas.Errorf(faas.CodeBadRequest, "there is no setting to change; give one or more of %v", faas.SettingNames())
	}
	return d.revise(ctx, ref, func(fn *faas.Function) (*faas.Version, error) {
		v := *fn.Live()
		v.Number, v.Created = fn.Latest()+1, now()
		var err error
		v.Settings, err = d.settings(v.Lang, settings, v.Settings)
		return &v, err
	}, "")
}

// revise adds the version that next makes to a function, and moves live to it,
// unless it is what the live one is. Changes to one function follow one another, each
// on top of the last. code may be empty for that of the live version.
func (d *Dispatcher) revise(ctx context.Context, ref faas.Ref, next func(*faas.Function) (*faas.Version, error), code string) (*faas.Function, faas.Change, error) {
	fn := d.lookup(ref)
	if fn == nil {
		return nil, faas.Unchanged, faas.UnknownFunction(ref)
	}
	unlock, err := d.names.lock(ctx, fn.ID)
	if err != nil {
		return nil, faas.Unchanged, err
	}
	defer unlock()
	if fn = d.lookup(faas.Ref{ID: fn.ID}); fn == nil {
		return nil, faas.Unchanged, faas.UnknownFunction(ref)
	}
	if err := mayChange(ctx, fn); err != nil {
		return nil, faas.Unchanged, err
	}
	v, err := next(fn)
	if err != nil {
		return nil, faas.Unchanged, err
	}
	done, err := d.nameSecrets(ctx, fn, v.Settings)
	if err != nil {
		return nil, faas.Unchanged, err
	}
	defer done()
	if live := fn.Live(); sameCode(v, live) && v.Settings == live.Settings {
		return fn, faas.Unchanged, nil
	}
	fn, err = d.publish(ctx, fn.With(v), code)
	return fn, faas.Changed, err
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
	settings, err := d.settings(lang, patch, base)
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

// settings returns base with a patch, if the version of that language may have them.
func (d *Dispatcher) settings(lang string, patch faas.SettingsPatch, base faas.Settings) (faas.Settings, error) {
	settings, err := patch.Apply(base)
	if err == nil {
		err = faas.CheckEnvironment(lang, settings)
	}
	if err == nil {
		err = d.permit(settings, faas.CodeBadRequest)
	}
	if err == nil && int64(settings.Memory) > d.cfg.MaxMemory {
		err = d.tooLarge(faas.CodeBadRequest, settings.Memory)
	}
	return settings, err
}

// publish loads fn's live version, which is new, into a sandbox, stores fn, and only
// then lets calls see it. When it fails nothing has changed.
func (d *Dispatcher) publish(ctx context.Context, fn *faas.Function, code string) (*faas.Function, error) {
	if d.ctx.Err() != nil {
		return nil, draining()
	}
	before, v := d.lookup(faas.Ref{ID: fn.ID}), fn.Live()
	// A function that is being switched off is to start nothing, and its code
	// need not be checked when it is the live version's.
	var b *bird
	sandboxID := ""
	if v.Settings.MaxConcurrency > 0 || before == nil || !sameCode(v, before.Live()) {
		var err error
		if code == "" {
			code, err = d.cfg.Store.Code(ctx, fn.ID, before.Live().Number)
		}
		if err == nil {
			b, err = d.hatch(ctx, v, code, roomPatience)
		}
		if err != nil {
			return nil, err
		}
		sandboxID = b.inst.ID()
	}
	// From here on it is done whether the client waits for it or not.
	ctx = context.WithoutCancel(ctx)
	var dropped drop
	var err error
	if before == nil {
		d.mu.Lock()
		fn.Created = d.functions.stamp() // and not before the load, for others were quicker since
		d.mu.Unlock()
		v.Created = fn.Created
		err = d.cfg.Store.CreateFunction(ctx, fn, code, sandboxID)
	} else {
		dropped = d.drop(before, fn.Surplus())
		fn = fn.Without(dropped.versions)
		err = d.cfg.Store.AddVersion(ctx, fn, code, sandboxID)
	}
	if err != nil {
		d.undrop(before, dropped)
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
	d.forget(fn, dropped)
	d.log.Info().Str("function", fn.ID).Str("name", fn.Name).Int("version", v.Number).Str("lang", v.Lang).Ints("dropped", dropped.versions).Msg("registered")
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
	for _, number := range fn.Versions {
		key := faas.VersionKey{FunctionID: fn.ID, Number: number}
		if f := d.flocks[key]; f != nil {
			flocks = append(flocks, f)
			delete(d.flocks, key)
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

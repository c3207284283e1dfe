package dispatch

import (
	"context"
	"slices"
	"sync"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// secrets is who needs which secret, as far as the index does not tell it.
type secrets struct {
	// mu makes one step of looking for a secret and noting that it is needed, and
	// of looking who needs it and deleting it.
	mu    sync.Mutex
	named map[string]int // by name: registrations under way that name it
}

// PutSecret implements faas.SecretRegistry.
func (d *Dispatcher) PutSecret(ctx context.Context, name string, value []byte, functions []string) (*faas.Secret, bool, error) {
	s, created, err := d.cfg.Secrets.Put(ctx, name, value, functions)
	if err == nil {
		d.log.Info().Str("secret", name).Int("version", s.Version).Msg("secret set")
	}
	return s, created, err
}

// ListSecrets implements faas.SecretRegistry.
func (d *Dispatcher) ListSecrets(ctx context.Context) ([]faas.UsedSecret, error) {
	all, err := d.cfg.Secrets.List(ctx)
	if err != nil {
		return nil, err
	}
	users := d.secretUsers()
	used := make([]faas.UsedSecret, len(all))
	for i, s := range all {
		used[i] = faas.UsedSecret{Secret: s, UsedBy: append([]string{}, users[s.Name]...)}
	}
	return used, nil
}

// DeleteSecret implements faas.SecretRegistry.
func (d *Dispatcher) DeleteSecret(ctx context.Context, name string) error {
	d.secrets.mu.Lock()
	defer d.secrets.mu.Unlock()
	if users := d.secretUsers()[name]; len(users) > 0 {
		return faas.Errorf(faas.CodeInUse, "%d functions name the secret %s, %s among them: PATCH their secrets first", len(users), name, users[0])
	}
	if d.secrets.named[name] > 0 {
		return faas.Errorf(faas.CodeInUse, "a function that names the secret %s is just being registered", name)
	}
	if err := d.cfg.Secrets.Delete(ctx, name); err != nil {
		return err
	}
	d.log.Info().Str("secret", name).Msg("secret deleted")
	return nil
}

// RotateKey implements faas.SecretRegistry.
func (d *Dispatcher) RotateKey(ctx context.Context) (faas.KeyRotation, error) {
	made, err := d.cfg.Secrets.RotateKey(ctx)
	if err == nil {
		d.log.Info().Str("key", made.Key).Int("secrets", made.Resealed).Msg("the key of the secrets was rotated")
	}
	return made, err
}

// secretUsers returns, by secret, the functions whose live version names it, in
// order.
func (d *Dispatcher) secretUsers() map[string][]string {
	users := make(map[string][]string)
	d.mu.RLock()
	for _, fn := range d.functions.byID {
		who := fn.Name
		if who == "" {
			who = fn.ID
		}
		for _, name := range fn.Live().Settings.Secrets.List() {
			users[name] = append(users[name], who)
		}
	}
	d.mu.RUnlock()
	for _, all := range users {
		slices.Sort(all)
	}
	return users
}

// nameSecrets checks that a function may have the secrets that its new version
// names, and keeps them from being deleted until done is called.
func (d *Dispatcher) nameSecrets(ctx context.Context, fn *faas.Function, settings faas.Settings) (done func(), err error) {
	names := settings.Secrets.List()
	if len(names) == 0 {
		return func() {}, nil
	}
	who := faas.CallerOf(ctx)
	d.secrets.mu.Lock()
	defer d.secrets.mu.Unlock()
	for _, name := range names {
		s, err := d.cfg.Secrets.Get(ctx, name)
		if err == nil {
			err = mayName(s, name, fn, who)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		d.secrets.named[name]++
	}
	return func() {
		d.secrets.mu.Lock()
		defer d.secrets.mu.Unlock()
		for _, name := range names {
			if d.secrets.named[name]--; d.secrets.named[name] == 0 {
				delete(d.secrets.named, name)
			}
		}
	}, nil
}

// mayName is the rule of who may have which secret: a version may name those
// whose functions list has its function, by name or ID, and those without such a
// list. Who comes with a token that is limited to some functions may give a
// function only the former (Secret.ForOnly), or a secret for everything would be
// within reach of who may deploy one thing. That goes for all that the new version
// names, also what the last one did, for new code can show what it gets. Of other
// secrets such a token does not learn whether they are there. s is nil when name
// is nobody's.
func mayName(s *faas.Secret, name string, fn *faas.Function, who faas.Caller) error {
	switch {
	case who.ForSomeOnly(faas.ScopeDeploy) && (s == nil || !s.ForOnly(fn)):
		return faas.Errorf(faas.CodeForbidden, "your token is for some functions, and deploys them with secrets that are for just these: "+
			"have PUT /api/secrets/%s?functions=… name the function, or use a token with the grant deploy", name)
	case s == nil:
		return faas.Errorf(faas.CodeBadRequest, "there is no secret %s: PUT /api/secrets/%s sets it", name, name)
	case !s.For(fn):
		return faas.Errorf(faas.CodeBadRequest, "the secret %s is for other functions: PUT /api/secrets/%s?functions=… says for which", name, name)
	}
	return nil
}

// haveSecrets makes sure that there is what a version names, before a sandbox is
// spent on it.
func (d *Dispatcher) haveSecrets(ctx context.Context, v *faas.Version) error {
	for _, name := range v.Settings.Secrets.List() {
		s, err := d.cfg.Secrets.Get(ctx, name)
		if err == nil {
			err = d.available(s, name, v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// openSecrets returns the values that a version names. They are the caller's to
// wipe.
func (d *Dispatcher) openSecrets(ctx context.Context, v *faas.Version) (sandbox.Values, error) {
	names := v.Settings.Secrets.List()
	if len(names) == 0 {
		return nil, nil
	}
	values := make(sandbox.Values, len(names))
	for _, name := range names {
		s, value, err := d.cfg.Secrets.Open(ctx, name)
		values[name] = value
		if err == nil {
			err = d.available(s, name, v)
		}
		if err != nil {
			values.Wipe()
			return nil, err
		}
	}
	return values, nil
}

// available fails with CodeMissingSecret when a secret is gone, or for other
// functions now. A function that is just being registered was checked before.
func (d *Dispatcher) available(s *faas.Secret, name string, v *faas.Version) error {
	if s == nil {
		return faas.Errorf(faas.CodeMissingSecret, "the secret %s is gone: set it again, or PATCH the function's secrets", name)
	}
	if fn := d.lookup(faas.Ref{ID: v.FunctionID}); fn != nil && !s.For(fn) {
		return faas.Errorf(faas.CodeMissingSecret, "the secret %s is for other functions now: PATCH the function's secrets, or say with PUT /api/secrets/%s?functions=… for which it is", name, name)
	}
	return nil
}

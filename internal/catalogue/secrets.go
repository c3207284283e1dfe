package catalogue

import (
	"context"
	"slices"
	"sync"

	"github.com/flockofbirds/fob/internal/faas"
)

// named counts the secrets that registrations under way name, which the index does not
// know yet.
type named struct {
	// mu makes two operations atomic: finding a secret and noting that it is needed,
	// and checking that nobody needs it and deleting it.
	mu    sync.Mutex
	times map[string]int // by name of the secret
}

// PutSecret implements faas.SecretRegistry.
func (c *Catalogue) PutSecret(ctx context.Context, name string, value []byte, functions []string) (*faas.Secret, bool, error) {
	s, created, err := c.keeper.Put(ctx, name, value, functions)
	if err == nil {
		c.log.Info().Str("secret", name).Int("version", s.Version).Msg("secret set")
	}
	return s, created, err
}

// ListSecrets implements faas.SecretRegistry.
func (c *Catalogue) ListSecrets(ctx context.Context) ([]faas.UsedSecret, error) {
	all, err := c.keeper.List(ctx)
	if err != nil {
		return nil, err
	}
	users := c.secretUsers()
	used := make([]faas.UsedSecret, len(all))
	for i, s := range all {
		used[i] = faas.UsedSecret{Secret: s, UsedBy: append([]string{}, users[s.Name]...)}
	}
	return used, nil
}

// DeleteSecret implements faas.SecretRegistry.
func (c *Catalogue) DeleteSecret(ctx context.Context, name string) error {
	c.named.mu.Lock()
	defer c.named.mu.Unlock()
	if users := c.secretUsers()[name]; len(users) > 0 {
		return faas.Errorf(faas.CodeInUse, "%d functions name the secret %s, %s among them: PATCH their secrets first", len(users), name, users[0])
	}
	if c.named.times[name] > 0 {
		return faas.Errorf(faas.CodeInUse, "a function that names the secret %s is just being registered", name)
	}
	if err := c.keeper.Delete(ctx, name); err != nil {
		return err
	}
	c.log.Info().Str("secret", name).Msg("secret deleted")
	return nil
}

// RotateKey implements faas.SecretRegistry.
func (c *Catalogue) RotateKey(ctx context.Context) (faas.KeyRotation, error) {
	made, err := c.keeper.RotateKey(ctx)
	if err == nil {
		c.log.Info().Str("key", made.Key).Int("secrets", made.Resealed).Msg("the key of the secrets was rotated")
	}
	return made, err
}

// secretUsers returns, for each secret, the functions whose live version names it, in
// order.
func (c *Catalogue) secretUsers() map[string][]string {
	users := make(map[string][]string)
	c.mu.RLock()
	for _, fn := range c.functions.byID {
		who := fn.Name
		if who == "" {
			who = fn.ID
		}
		for _, name := range fn.Live().Settings.Secrets.List() {
			users[name] = append(users[name], who)
		}
	}
	c.mu.RUnlock()
	for _, all := range users {
		slices.Sort(all)
	}
	return users
}

// nameSecrets checks that a function may use the secrets that its new version names,
// and protects them from deletion until done is called.
func (c *Catalogue) nameSecrets(ctx context.Context, fn *faas.Function, settings faas.Settings) (done func(), err error) {
	names := settings.Secrets.List()
	if len(names) == 0 {
		return func() {}, nil
	}
	who := faas.CallerOf(ctx)
	c.named.mu.Lock()
	defer c.named.mu.Unlock()
	for _, name := range names {
		s, err := c.keeper.Get(ctx, name)
		if err == nil {
			err = mayName(s, name, fn, who)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		c.named.times[name]++
	}
	return func() {
		c.named.mu.Lock()
		defer c.named.mu.Unlock()
		for _, name := range names {
			if c.named.times[name]--; c.named.times[name] == 0 {
				delete(c.named.times, name)
			}
		}
	}, nil
}

// mayName decides whether a function's version may name a secret. It may if the
// secret's list has the function, by name or ID, or if the secret has no list.
//
// A caller whose token is limited to some functions may use only secrets with such a
// list (Secret.ForOnly). Otherwise a token that may deploy one function could read
// every general secret. This holds for every secret that the new version names, even if
// the version before named it, because new code can reveal it. Such a token does not
// learn whether other secrets exist.
//
// s is nil if there is no secret of that name.
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

// HaveSecrets checks that the secrets which a version names are there, before a sandbox
// is spent on it.
func (c *Catalogue) HaveSecrets(ctx context.Context, v *faas.Version) error {
	for _, name := range v.Settings.Secrets.List() {
		s, err := c.keeper.Get(ctx, name)
		if err == nil {
			err = c.available(s, name, v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// OpenSecrets returns the values of the secrets that a version names, by name. The
// caller should overwrite them after use.
func (c *Catalogue) OpenSecrets(ctx context.Context, v *faas.Version) (map[string][]byte, error) {
	names := v.Settings.Secrets.List()
	if len(names) == 0 {
		return nil, nil
	}
	values := make(map[string][]byte, len(names))
	for _, name := range names {
		s, value, err := c.keeper.Open(ctx, name)
		values[name] = value
		if err == nil {
			err = c.available(s, name, v)
		}
		if err != nil {
			for _, value := range values {
				clear(value)
			}
			return nil, err
		}
	}
	return values, nil
}

// available fails with CodeMissingSecret if a secret is gone or is now for other
// functions. mayName has checked a function that is just being registered.
func (c *Catalogue) available(s *faas.Secret, name string, v *faas.Version) error {
	if s == nil {
		return faas.Errorf(faas.CodeMissingSecret, "the secret %s is gone: set it again, or PATCH the function's secrets", name)
	}
	if fn := c.lookup(faas.Ref{ID: v.FunctionID}); fn != nil && !s.For(fn) {
		return faas.Errorf(faas.CodeMissingSecret, "the secret %s is for other functions now: PATCH the function's secrets, or say with PUT /api/secrets/%s?functions=… for which it is", name, name)
	}
	return nil
}

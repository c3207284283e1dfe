// Package secret seals secrets with XChaCha20-Poly1305. The key is in a file of its
// own, outside the database that has the sealed secrets.
package secret

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/flockofbirds/fob/internal/faas"
)

// Keeper implements faas.SecretKeeper over a store and a key file. It keeps neither
// keys nor values in memory, and reads the file each time.
type Keeper struct {
	store faas.SecretStore
	file  keyFile

	// changes guards the key file. It is also held until a secret that was sealed is
	// stored, so that its key cannot be removed in between.
	changes sync.Mutex
}

var _ faas.SecretKeeper = (*Keeper)(nil)

// New returns the keeper of a store's secrets. path is the key file, which is created
// when the first secret is set. New fails if the file is malformed, or if others can
// read it. It does not fail if a key is missing, because functions without secrets can
// go on; unreadable then lists the secrets that cannot be opened.
func New(ctx context.Context, store faas.SecretStore, path string) (k *Keeper, unreadable []string, err error) {
	if real, err := filepath.EvalSymlinks(path); err == nil { // otherwise a rotation would replace a link
		path = real
	}
	k = &Keeper{store: store, file: keyFile(path)}
	keys, err := k.file.read()
	if err != nil {
		return nil, nil, err
	}
	defer keys.wipe()
	all, err := store.Secrets(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range all {
		value, err := k.unseal(keys, s)
		clear(value)
		if err != nil {
			unreadable = append(unreadable, s.Name)
		}
	}
	return k, unreadable, nil
}

// Put implements faas.SecretKeeper.
func (k *Keeper) Put(ctx context.Context, name string, value []byte, functions []string) (*faas.Secret, bool, error) {
	if err := faas.CheckVariable(name); err != nil {
		return nil, false, err
	}
	if err := faas.CheckSecretFunctions(functions); err != nil {
		return nil, false, err
	}
	switch {
	case len(value) == 0:
		return nil, false, faas.Errorf(faas.CodeBadRequest, "there is no value: send it as the body, as with curl -X PUT --data-binary @file")
	case len(value) > faas.MaxSecretSize:
		return nil, false, faas.Errorf(faas.CodeTooLarge, "the value is larger than the %v that a secret may have", faas.Bytes(faas.MaxSecretSize))
	}
	k.changes.Lock()
	defer k.changes.Unlock()
	all, err := k.store.Secrets(ctx)
	if err != nil {
		return nil, false, err
	}
	at := slices.IndexFunc(all, func(s *faas.SealedSecret) bool { return s.Name == name })
	now := time.Now().UTC().Truncate(time.Millisecond)
	s := &faas.SealedSecret{Secret: faas.Secret{Name: name, Version: 1, Functions: []string{}, Created: now, Updated: now}}
	if at >= 0 {
		s.Version, s.Created, s.Functions = all[at].Version+1, all[at].Created, all[at].Functions
	} else if len(all) >= faas.MaxSecrets {
		return nil, false, faas.Errorf(faas.CodeBadRequest, "there are %d secrets, and there may be no more: delete one", len(all))
	}
	if functions != nil {
		s.Functions = append([]string{}, functions...) // in JSON [], not null
		slices.Sort(s.Functions)
		s.Functions = slices.Compact(s.Functions)
	}
	keys, err := k.keysFor(all)
	if err != nil {
		return nil, false, err
	}
	defer keys.wipe()
	seal(keys[0], s, value)
	if err := k.store.PutSecret(ctx, s); err != nil {
		return nil, false, err
	}
	return &s.Secret, at < 0, nil
}

// keysFor returns the keys to seal with. If nothing has been sealed yet, it makes the
// first key. The caller holds changes.
func (k *Keeper) keysFor(all []*faas.SealedSecret) (keys, error) {
	found, err := k.file.read()
	if err != nil {
		return nil, err
	}
	if len(found) > 0 {
		return found, nil
	}
	if len(all) > 0 { // a new key would hide that the old one is lost
		return nil, k.file.bad(fmt.Errorf("it is missing, and %d secrets are sealed with the key in it", len(all)),
			"put it back from a backup; if it is lost, delete all secrets and set them again")
	}
	return k.file.create()
}

// Delete implements faas.SecretKeeper. It needs no key.
func (k *Keeper) Delete(ctx context.Context, name string) error {
	k.changes.Lock()
	defer k.changes.Unlock()
	return k.store.DeleteSecret(ctx, name)
}

// List implements faas.SecretKeeper.
func (k *Keeper) List(ctx context.Context) ([]*faas.Secret, error) {
	all, err := k.store.Secrets(ctx)
	if err != nil {
		return nil, err
	}
	secrets := make([]*faas.Secret, len(all))
	for i, s := range all {
		secrets[i] = &s.Secret
	}
	return secrets, nil
}

// Get implements faas.SecretKeeper.
func (k *Keeper) Get(ctx context.Context, name string) (*faas.Secret, error) {
	s, err := k.store.Secret(ctx, name)
	if s == nil || err != nil {
		return nil, err
	}
	return &s.Secret, nil
}

// Open implements faas.SecretKeeper.
func (k *Keeper) Open(ctx context.Context, name string) (*faas.Secret, []byte, error) {
	// A rotation may drop the old key between the two reads.
	k.changes.Lock()
	defer k.changes.Unlock()
	s, err := k.store.Secret(ctx, name)
	if s == nil || err != nil {
		return nil, nil, err
	}
	keys, err := k.file.read()
	if err != nil {
		return nil, nil, err
	}
	defer keys.wipe()
	value, err := k.unseal(keys, s)
	return &s.Secret, value, err
}

// RotateKey implements faas.SecretKeeper. From before the first secret is sealed with
// the new key until after the last one is, the file has both keys. A crash at any point
// leaves all secrets readable, and the next rotation cleans up.
func (k *Keeper) RotateKey(ctx context.Context) (faas.KeyRotation, error) {
	k.changes.Lock()
	defer k.changes.Unlock()
	// Finish what has begun, or the file would keep two keys for no reason.
	ctx = context.WithoutCancel(ctx)
	all, err := k.store.Secrets(ctx)
	if err != nil {
		return faas.KeyRotation{}, err
	}
	old, err := k.keysFor(all)
	if err != nil {
		return faas.KeyRotation{}, err
	}
	defer old.wipe()
	// Open all secrets before anything changes: one that cannot be opened would lose
	// its key for good.
	resealed := make([]*faas.SealedSecret, len(all))
	fresh := newKey()
	defer clear(fresh.secret[:])
	for i, s := range all {
		value, err := k.unseal(old, s)
		if err != nil {
			return faas.KeyRotation{}, err
		}
		next := *s
		seal(fresh, &next, value)
		clear(value)
		resealed[i] = &next
	}
	// Keep only old keys that something is sealed with. Failed rotations leave others.
	used := slices.DeleteFunc(slices.Clone(old), func(key *key) bool {
		return !slices.ContainsFunc(all, func(s *faas.SealedSecret) bool { return s.Key == key.id })
	})
	if err := k.file.replace(append(keys{fresh}, used...)); err != nil {
		return faas.KeyRotation{}, err
	}
	if err := k.store.ResealSecrets(ctx, resealed); err != nil {
		return faas.KeyRotation{}, err
	}
	if err := k.file.replace(keys{fresh}); err != nil {
		return faas.KeyRotation{}, err
	}
	return faas.KeyRotation{Key: fresh.id, Resealed: len(all)}, nil
}

// about returns the associated data of a secret: what is sealed can be opened only as
// that secret in that version.
func about(s *faas.SealedSecret) []byte {
	return fmt.Appendf(nil, "fob secret\x00%s\x00%d", s.Name, s.Version)
}

// seal seals a value for s with a fresh nonce.
func seal(k *key, s *faas.SealedSecret, value []byte) {
	aead := k.aead()
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(value)+aead.Overhead())
	rand.Read(nonce) // never fails
	s.Key, s.Sealed = k.id, aead.Seal(nonce, nonce, value, about(s))
}

// unseal returns a secret's value.
func (k *Keeper) unseal(all keys, s *faas.SealedSecret) ([]byte, error) {
	var cause error
	if key := all.find(s.Key); key == nil {
		cause = fmt.Errorf("it is sealed with the key %.20q, which is not in %s: put that back from a backup; if it is lost, delete the secret and set it again", s.Key, k.file)
	} else if n := chacha20poly1305.NonceSizeX; len(s.Sealed) > n {
		value, err := key.aead().Open(nil, s.Sealed[:n], s.Sealed[n:], about(s))
		if err == nil {
			return value, nil
		}
		cause = fmt.Errorf("the key %s of %s does not fit: that or the database is damaged; restore them from a backup, or delete the secret and set it again", s.Key, k.file)
	} else {
		cause = errors.New("its record is cut off: restore the database from a backup, or delete the secret and set it again")
	}
	return nil, faas.Errorf(faas.CodeInternal, "secret %s cannot be opened; the dispatcher's log says how to fix that", s.Name).Because(cause)
}

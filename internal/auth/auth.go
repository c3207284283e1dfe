// Package auth keeps the tokens: it makes them, and finds the token to which a secret
// belongs. What a token allows, faas.Token says.
package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// A secret is faas.TokenPrefix, the token's ID, _ and 256 random bits. The ID is not
// secret; the token is looked up by it.
const (
	idBytes      = 8
	randomBytes  = 32
	secretLength = len(faas.TokenPrefix) + 2*idBytes + 1 + 2*randomBytes
)

// Keeper implements faas.Tokens over a store. It holds all tokens in memory, because
// every request needs one. Nobody else may change the tokens in the store.
type Keeper struct {
	store  faas.TokenStore
	needed bool

	changing sync.Mutex
	tokens   atomic.Pointer[tokens]
}

// tokens are all tokens. They are immutable: a change makes a new value.
type tokens struct {
	byID  map[string]*faas.StoredToken
	order []*faas.Token // in order of creation
}

var _ faas.Tokens = (*Keeper)(nil)

// Open reads the tokens of a store. needed says that this dispatcher must not let
// anybody in without a token; then the last token cannot be revoked.
func Open(ctx context.Context, store faas.TokenStore, needed bool) (*Keeper, error) {
	stored, err := store.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	k := &Keeper{store: store, needed: needed}
	k.set(stored)
	return k, nil
}

func (k *Keeper) set(stored []*faas.StoredToken) {
	t := &tokens{byID: make(map[string]*faas.StoredToken, len(stored))}
	for _, token := range stored {
		t.byID[token.ID] = token
		t.order = append(t.order, &token.Token)
	}
	k.tokens.Store(t)
}

// stored returns the tokens in the form that set takes.
func (t *tokens) stored() []*faas.StoredToken {
	all := make([]*faas.StoredToken, len(t.order))
	for i, token := range t.order {
		all[i] = t.byID[token.ID]
	}
	return all
}

// Required implements faas.Tokens.
func (k *Keeper) Required() bool { return len(k.tokens.Load().order) > 0 }

// Find implements faas.Tokens. It takes the same time whether the ID exists or not, and
// however much of the secret is right.
func (k *Keeper) Find(secret string) *faas.Token {
	if len(secret) != secretLength || !strings.HasPrefix(secret, faas.TokenPrefix) {
		return nil
	}
	id := secret[len(faas.TokenPrefix) : len(faas.TokenPrefix)+2*idBytes]
	token := k.tokens.Load().byID[id]
	var want [sha256.Size]byte // no secret has this hash
	if token != nil {
		want = token.Hash
	}
	got := hash(secret)
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || token == nil || token.Expired(time.Now()) {
		return nil
	}
	return &token.Token
}

// hash returns the SHA-256 of a secret. It does not allocate.
func hash(secret string) [sha256.Size]byte {
	var room [secretLength]byte
	return sha256.Sum256(room[:copy(room[:], secret)])
}

// Create implements faas.Tokens.
func (k *Keeper) Create(ctx context.Context, name string, grants []faas.Grant, expires time.Time) (*faas.Token, string, error) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	if err := faas.CheckToken(name, grants, expires, now); err != nil {
		return nil, "", err
	}
	k.changing.Lock()
	defer k.changing.Unlock()
	id := randomHex(idBytes)
	secret := faas.TokenPrefix + id + "_" + randomHex(randomBytes)
	token := &faas.StoredToken{
		Token: faas.Token{ID: id, Name: name, Grants: slices.Clone(grants), Created: now, Expires: expires},
		Hash:  hash(secret),
	}
	if err := k.store.CreateToken(ctx, token); err != nil {
		return nil, "", err
	}
	k.set(append(k.tokens.Load().stored(), token))
	return &token.Token, secret, nil
}

// List implements faas.Tokens.
func (k *Keeper) List(context.Context) ([]*faas.Token, error) {
	return slices.Clone(k.tokens.Load().order), nil
}

// Revoke implements faas.Tokens.
func (k *Keeper) Revoke(ctx context.Context, id string) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	now := k.tokens.Load()
	if now.byID[id] == nil {
		return faas.Errorf(faas.CodeUnknownToken, "there is no token %.80q; GET /api/tokens lists those that there are", id)
	}
	if k.needed && len(now.order) == 1 {
		return faas.Errorf(faas.CodeLastToken, "this is the last token, and without one everybody who reaches this dispatcher could do anything: make another one first")
	}
	if err := k.store.DeleteToken(ctx, id); err != nil {
		return err
	}
	k.set(slices.DeleteFunc(now.stored(), func(token *faas.StoredToken) bool { return token.ID == id }))
	return nil
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

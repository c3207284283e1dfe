package store

import (
	"context"
	"encoding/hex"
	"errors"

	"github.com/flockofbirds/fob/internal/faas"
)

// tokenKind is the kind of tokens, by ID.
var tokenKind = kind[tokenRecord]{
	description: description{name: "token", plural: "tokens", prefix: "token/"},
	key:         func(r *tokenRecord) string { return r.ID },
	check: func(r *tokenRecord) error {
		switch {
		case r.ID == "":
			return errors.New("it has no ID")
		case r.Hash == nil:
			return errors.New("it has no hash")
		}
		return nil
	},
	byCreation: true,
}

// tokenRecord is a token. Nobody has its secret but its bearer.
type tokenRecord struct {
	stamp
	faas.Token
	Hash *hexHash `json:"sha256"` // of the secret
}

// hexHash is a hash that is hexadecimal as text.
type hexHash [32]byte

// MarshalText implements encoding.TextMarshaler.
func (h hexHash) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h[:])), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *hexHash) UnmarshalText(text []byte) error {
	if hex.DecodedLen(len(text)) != len(h) {
		return errors.New("its hash has another length")
	}
	_, err := hex.Decode(h[:], text)
	return err
}

// Tokens implements faas.TokenStore.
func (s *Store) Tokens(ctx context.Context) ([]*faas.StoredToken, error) {
	all, err := tokenKind.list(ctx, s.kv)
	if err != nil {
		return nil, internal("read the tokens", err)
	}
	list := make([]*faas.StoredToken, len(all))
	for i, found := range all {
		list[i] = &faas.StoredToken{Token: found.record.Token, Hash: *found.record.Hash}
	}
	return list, nil
}

// CreateToken implements faas.TokenStore.
func (s *Store) CreateToken(ctx context.Context, token *faas.StoredToken) error {
	record, err := tokenKind.put(token.ID, &tokenRecord{Token: token.Token, Hash: (*hexHash)(&token.Hash)})
	if err == nil {
		err = s.kv.Commit(ctx, Txn{If: []Condition{{record.Key, 0}}, Put: []Pair{record}})
	}
	if errors.Is(err, ErrConflict) {
		return faas.Errorf(faas.CodeConflict, "there is a token %s already: try again", token.ID)
	}
	return internal("store the token", err)
}

// DeleteToken implements faas.TokenStore.
func (s *Store) DeleteToken(ctx context.Context, id string) error {
	return internal("delete the token", s.kv.Commit(ctx, Txn{Delete: []string{tokenKind.at(id)}}))
}

package store

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/flockofbirds/fob/internal/faas"
)

// tokenRecord is a token. Its secret is nowhere but with who was given it.
type tokenRecord struct {
	Schema int `json:"schema"`
	faas.Token
	Hash string `json:"sha256"` // of the secret, in hexadecimal
}

func tokenKey(id string) string { return prefixToken + id }

// Tokens implements faas.TokenStore.
func (s *Store) Tokens(ctx context.Context) ([]*faas.StoredToken, error) {
	const doing = "read the tokens"
	entries, err := s.all(ctx, prefixToken)
	if err != nil {
		return nil, internal(doing, err)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Created, b.Created) })
	tokens := make([]*faas.StoredToken, len(entries))
	for i, e := range entries {
		if tokens[i], err = decodeToken(e); err != nil {
			return nil, internal(doing, err)
		}
	}
	return tokens, nil
}

// CreateToken implements faas.TokenStore.
func (s *Store) CreateToken(ctx context.Context, token *faas.StoredToken) error {
	const doing = "store the token"
	record, err := json.Marshal(tokenRecord{schema, token.Token, hex.EncodeToString(token.Hash[:])})
	if err != nil {
		return internal(doing, err)
	}
	err = s.kv.Commit(ctx, Txn{
		If:  []Condition{{tokenKey(token.ID), 0}},
		Put: []Pair{{tokenKey(token.ID), record}},
	})
	if errors.Is(err, ErrConflict) {
		return faas.Errorf(faas.CodeConflict, "there is a token %s already: try again", token.ID)
	}
	return internal(doing, err)
}

// DeleteToken implements faas.TokenStore.
func (s *Store) DeleteToken(ctx context.Context, id string) error {
	return internal("delete the token", s.kv.Commit(ctx, Txn{Delete: []string{tokenKey(id)}}))
}

func decodeToken(e Entry) (*faas.StoredToken, error) {
	var record tokenRecord
	err := json.Unmarshal(e.Value, &record)
	if err != nil {
		err = errors.New(err.Error()) // what is wrong with a grant is no client's mistake here
	} else {
		err = checkSchema(record.Schema)
	}
	token := &faas.StoredToken{Token: record.Token}
	if err == nil && (record.ID == "" || tokenKey(record.ID) != e.Key) {
		err = fmt.Errorf("it is that of token %q", record.ID)
	}
	if err == nil && hex.DecodedLen(len(record.Hash)) != len(token.Hash) {
		err = errors.New("its hash is none")
	}
	if err == nil {
		_, err = hex.Decode(token.Hash[:], []byte(record.Hash))
	}
	if err != nil {
		return nil, badRecord(e.Key, err)
	}
	return token, nil
}

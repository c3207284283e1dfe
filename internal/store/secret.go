package store

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/flockofbirds/fob/internal/faas"
)

const prefixSecret = "secret/" // NAME → secretRecord

func secretKey(name string) string { return prefixSecret + name }

type secretRecord struct {
	Schema int `json:"schema"`
	*faas.SealedSecret
}

func encodeSecret(s *faas.SealedSecret) ([]byte, error) {
	return json.Marshal(secretRecord{schema, s})
}

func decodeSecret(e Entry) (*faas.SealedSecret, error) {
	record := secretRecord{SealedSecret: &faas.SealedSecret{}}
	err := json.Unmarshal(e.Value, &record)
	if err == nil {
		err = checkSchema(record.Schema)
	}
	s := record.SealedSecret
	switch {
	case err != nil:
	case s == nil || secretKey(s.Name) != e.Key:
		err = errors.New("it is that of another secret")
	case s.Version < 1 || s.Key == "" || len(s.Sealed) == 0:
		err = errors.New("it holds no sealed secret")
	}
	if err != nil {
		return nil, badRecord(e.Key, err)
	}
	return s, nil
}

// Secrets implements faas.SecretStore.
func (s *Store) Secrets(ctx context.Context) ([]*faas.SealedSecret, error) {
	const doing = "read the secrets"
	entries, err := s.all(ctx, prefixSecret)
	if err != nil {
		return nil, internal(doing, err)
	}
	secrets := make([]*faas.SealedSecret, len(entries))
	for i, e := range entries {
		if secrets[i], err = decodeSecret(e); err != nil {
			return nil, internal(doing, err)
		}
	}
	return secrets, nil
}

// Secret implements faas.SecretStore.
func (s *Store) Secret(ctx context.Context, name string) (*faas.SealedSecret, error) {
	_, secret, err := s.secret(ctx, name)
	return secret, internal("read the secret", err)
}

// secret reads one secret, which is nil when it is not there.
func (s *Store) secret(ctx context.Context, name string) (Entry, *faas.SealedSecret, error) {
	e, err := s.kv.Get(ctx, secretKey(name))
	if err != nil || e.Revision == 0 {
		return e, nil, err
	}
	secret, err := decodeSecret(e)
	return e, secret, err
}

// PutSecret implements faas.SecretStore.
func (s *Store) PutSecret(ctx context.Context, secret *faas.SealedSecret) error {
	const doing = "store the secret"
	e, stored, err := s.secret(ctx, secret.Name)
	if err != nil {
		return internal(doing, err)
	}
	before := 0
	if stored != nil {
		before = stored.Version
	}
	if secret.Version != before+1 {
		return secretConflict(secret.Name)
	}
	return s.putSecrets(ctx, doing, []Condition{{e.Key, e.Revision}}, secret)
}

// ResealSecrets implements faas.SecretStore.
func (s *Store) ResealSecrets(ctx context.Context, all []*faas.SealedSecret) error {
	const doing = "store the secrets"
	if len(all) == 0 {
		return nil
	}
	conditions := make([]Condition, len(all))
	for i, secret := range all {
		e, stored, err := s.secret(ctx, secret.Name)
		if err != nil {
			return internal(doing, err)
		}
		if stored == nil || stored.Version != secret.Version {
			return secretConflict(secret.Name)
		}
		conditions[i] = Condition{e.Key, e.Revision}
	}
	return s.putSecrets(ctx, doing, conditions, all...)
}

func (s *Store) putSecrets(ctx context.Context, doing string, conditions []Condition, all ...*faas.SealedSecret) error {
	txn := Txn{If: conditions}
	for _, secret := range all {
		record, err := encodeSecret(secret)
		if err != nil {
			return internal(doing, err)
		}
		txn.Put = append(txn.Put, Pair{secretKey(secret.Name), record})
	}
	if err := s.kv.Commit(ctx, txn); errors.Is(err, ErrConflict) {
		return secretConflict(all[0].Name)
	} else if err != nil {
		return internal(doing, err)
	}
	return nil
}

// DeleteSecret implements faas.SecretStore.
func (s *Store) DeleteSecret(ctx context.Context, name string) error {
	const doing = "delete the secret"
	e, err := s.kv.Get(ctx, secretKey(name))
	if err != nil {
		return internal(doing, err)
	}
	if e.Revision == 0 {
		return faas.Errorf(faas.CodeUnknownSecret, "there is no secret %s", name)
	}
	err = s.kv.Commit(ctx, Txn{If: []Condition{{e.Key, e.Revision}}, Delete: []string{e.Key}})
	if errors.Is(err, ErrConflict) {
		return secretConflict(name)
	}
	return internal(doing, err)
}

func secretConflict(name string) error {
	return faas.Errorf(faas.CodeConflict, "secret %s was changed by somebody else meanwhile: try again", name)
}

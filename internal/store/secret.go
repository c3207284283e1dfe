package store

import (
	"context"
	"errors"

	"github.com/flockofbirds/fob/internal/faas"
)

// secretKind is the kind of sealed secrets, by name.
var secretKind = kind[secretRecord]{
	description: description{name: "secret", plural: "secrets", prefix: "secret/"},
	key:         func(r *secretRecord) string { return r.Name },
	check: func(r *secretRecord) error {
		if r.SealedSecret == nil || r.Version < 1 || r.Key == "" || len(r.Sealed) == 0 {
			return errors.New("it holds no sealed secret")
		}
		return nil
	},
}

// secretRecord is a sealed secret as it is stored.
type secretRecord struct {
	stamp
	*faas.SealedSecret
}

// Secrets implements faas.SecretStore.
func (s *Store) Secrets(ctx context.Context) ([]*faas.SealedSecret, error) {
	all, err := secretKind.list(ctx, s.kv)
	if err != nil {
		return nil, internal("read the secrets", err)
	}
	list := make([]*faas.SealedSecret, len(all))
	for i, found := range all {
		list[i] = found.record.SealedSecret
	}
	return list, nil
}

// Secret implements faas.SecretStore.
func (s *Store) Secret(ctx context.Context, name string) (*faas.SealedSecret, error) {
	found, err := secretKind.get(ctx, s.kv, name)
	if err != nil || found.record == nil {
		return nil, internal("read the secret", err)
	}
	return found.record.SealedSecret, nil
}

// PutSecret implements faas.SecretStore.
func (s *Store) PutSecret(ctx context.Context, secret *faas.SealedSecret) error {
	const doing = "store the secret"
	found, err := secretKind.get(ctx, s.kv, secret.Name)
	if err != nil {
		return internal(doing, err)
	}
	before := 0
	if found.record != nil {
		before = found.record.Version
	}
	if secret.Version != before+1 {
		return secretConflict(secret.Name)
	}
	record, err := secretKind.put(secret.Name, &secretRecord{SealedSecret: secret})
	if err == nil {
		err = s.kv.Commit(ctx, Txn{If: []Condition{{found.Key, found.Revision}}, Put: []Pair{record}})
	}
	if errors.Is(err, ErrConflict) {
		return secretConflict(secret.Name)
	}
	return internal(doing, err)
}

// ResealSecrets implements faas.SecretStore.
func (s *Store) ResealSecrets(ctx context.Context, all []*faas.SealedSecret) error {
	const doing = "store the secrets"
	s.resealing.Lock()
	defer s.resealing.Unlock()
	for len(all) > 0 {
		n, err := s.resealSome(ctx, all)
		if err != nil {
			return internal(doing, err)
		}
		all = all[n:]
	}
	return nil
}

// resealSome stores the first secrets of all, as many as fit into a transaction, and
// returns how many.
func (s *Store) resealSome(ctx context.Context, all []*faas.SealedSecret) (int, error) {
	var txn Txn
	for _, secret := range all {
		found, err := secretKind.get(ctx, s.kv, secret.Name)
		if err != nil {
			return 0, err
		}
		if found.record == nil || found.record.Version != secret.Version {
			return 0, secretConflict(secret.Name)
		}
		record, err := secretKind.put(secret.Name, &secretRecord{SealedSecret: secret})
		if err != nil {
			return 0, err
		}
		more := Txn{If: append(txn.If, Condition{found.Key, found.Revision}), Put: append(txn.Put, record)}
		if len(more.Put) > 1 && (len(more.Put) > MaxOperations || more.size() > MaxTxnSize) {
			break
		}
		txn = more
	}
	err := s.kv.Commit(ctx, txn)
	if errors.Is(err, ErrConflict) {
		err = secretConflict(all[0].Name)
	}
	return len(txn.Put), err
}

// DeleteSecret implements faas.SecretStore.
func (s *Store) DeleteSecret(ctx context.Context, name string) error {
	const doing = "delete the secret"
	found, err := s.kv.Get(ctx, secretKind.at(name)) // whatever is in it
	if err != nil {
		return internal(doing, err)
	}
	if found.Revision == 0 {
		return faas.Errorf(faas.CodeUnknownSecret, "there is no secret %s", name)
	}
	err = s.kv.Commit(ctx, Txn{If: []Condition{{found.Key, found.Revision}}, Delete: []string{found.Key}})
	if errors.Is(err, ErrConflict) {
		return secretConflict(name)
	}
	return internal(doing, err)
}

func secretConflict(name string) error {
	return faas.Errorf(faas.CodeConflict, "secret %s was changed by somebody else meanwhile: try again", name)
}

package store

import (
	"context"
	"errors"
	"slices"

	"github.com/flockofbirds/fob/internal/faas"
)

// sandboxKind is the kind of records that say which version a sandbox holds, by the
// sandbox's ID. The checker does not require that the function exists: if it was
// deleted while a sandbox started, the record stays until the sandbox is gone.
var sandboxKind = kind[sandboxRecord]{
	description: description{name: "sandbox", plural: "sandboxes", prefix: "sandbox/"},
	check: func(r *sandboxRecord) error {
		if r.FunctionID == "" || r.Number < 1 {
			return errors.New("it names no version")
		}
		return nil
	},
}

// sandboxRecord is the version that a sandbox holds, as it is stored.
type sandboxRecord struct {
	stamp
	faas.VersionKey
}

// Sandboxes implements faas.Store.
func (s *Store) Sandboxes(ctx context.Context) (map[string]faas.VersionKey, error) {
	all, err := sandboxKind.list(ctx, s.kv)
	if err != nil {
		return nil, internal("read the sandboxes", err)
	}
	notes := make(map[string]faas.VersionKey, len(all))
	for _, found := range all {
		notes[found.id] = found.record.VersionKey
	}
	return notes, nil
}

// RecordSandbox implements faas.Store. It syncs although it need not: with bbolt an
// unsynced commit would risk the whole file in a power cut.
func (s *Store) RecordSandbox(ctx context.Context, sandboxID string, version faas.VersionKey) error {
	note, err := sandboxKind.put(sandboxID, &sandboxRecord{VersionKey: version})
	if err == nil {
		err = s.kv.Commit(ctx, Txn{Put: []Pair{note}})
	}
	return internal("record the sandbox", err)
}

// ForgetSandboxes implements faas.Store. Sandboxes without a record are no error.
func (s *Store) ForgetSandboxes(ctx context.Context, sandboxIDs ...string) error {
	ids := slices.Compact(slices.Sorted(slices.Values(sandboxIDs)))
	for some := range slices.Chunk(ids, maxForgotten) {
		var txn Txn
		for _, id := range some {
			txn.Delete = append(txn.Delete, sandboxKind.at(id))
		}
		if err := s.kv.Commit(ctx, txn); err != nil {
			return internal("forget the sandboxes", err)
		}
	}
	return nil
}

// maxForgotten is how many records one transaction deletes: etcd allows 128 operations.
const maxForgotten = 100

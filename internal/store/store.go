package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strconv"
	"sync"

	"github.com/flockofbirds/fob/internal/faas"
)

// Store keeps the typed records in a KV. It implements faas.Store and faas.SecretStore.
type Store struct {
	kv        KV
	resealing sync.RWMutex // locked by ResealSecrets, and for reading when a copy begins
}

var (
	_ faas.Store       = (*Store)(nil)
	_ faas.SecretStore = (*Store)(nil)
)

// Open opens the bbolt file at path, as OpenBolt does, and the store in it.
func Open(ctx context.Context, path string, wait bool, locked ...func()) (*Store, error) {
	kv, err := OpenBolt(ctx, path, wait, locked...)
	if err != nil {
		return nil, err
	}
	s, err := New(ctx, kv)
	if err != nil {
		return nil, errors.Join(err, kv.Close())
	}
	return s, nil
}

// New returns the store in kv. It initialises an empty kv, and fails if kv holds
// something else or was written by a newer dispatcher. The store closes kv; if New
// fails, the caller must.
func New(ctx context.Context, kv KV) (*Store, error) {
	// List first, then get the schema: it is among the first records ever put, so if
	// anything is listed, it must be there.
	some, err := kv.List(ctx, "", "", 1)
	if err != nil {
		return nil, err
	}
	if len(some) == 0 {
		if err := initialise(ctx, kv); err != nil {
			return nil, err
		}
	}
	found, err := kv.Get(ctx, keySchema)
	if err == nil {
		_, err = schemaKind.decode(found)
	}
	if err != nil {
		return nil, err
	}
	s := &Store{kv: kv}
	// If this fails because the disk is full, what is left does no harm: the next start
	// clears it up.
	if err := s.dropAllStaged(ctx); err != nil && !faas.DiskFull(err) {
		return nil, err
	}
	return s, nil
}

// initialise makes an empty KV a store. If another dispatcher does it first, that one's
// aviary stands.
func initialise(ctx context.Context, kv KV) error {
	aviary := make([]byte, 4)
	rand.Read(aviary) // never fails
	err := kv.Commit(ctx, Txn{
		If: []Condition{{keySchema, 0}, {keyAviary, 0}},
		Put: []Pair{
			{keySchema, []byte(strconv.Itoa(schema))},
			{keyAviary, []byte(hex.EncodeToString(aviary))},
		},
	})
	if errors.Is(err, ErrConflict) {
		return nil
	}
	return err
}

// Aviary implements faas.Store.
func (s *Store) Aviary(ctx context.Context) (string, error) {
	e, err := s.kv.Get(ctx, keyAviary)
	if err != nil {
		return "", internal("read the name of the aviary", err)
	}
	name, err := aviaryKind.decode(e)
	if err != nil {
		return "", internal("read the name of the aviary", err)
	}
	return string(*name), nil
}

// Close implements faas.Store.
func (s *Store) Close() error { return internal("close the store", s.kv.Close()) }

// internal makes err a *faas.Error, unless it is one. The cause, which may name files,
// goes to the log.
func internal(doing string, err error) error {
	if _, ok := errors.AsType[*faas.Error](err); ok || err == nil {
		return err
	}
	if faas.DiskFull(err) {
		return faas.NoSpace(doing, "FOB_DATA", err)
	}
	return faas.Errorf(faas.CodeInternal, "could not %s: the dispatcher's log says why", doing).Because(err)
}

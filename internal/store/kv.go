// Package store keeps functions, tokens and secrets safe through crashes and failovers.
// It has typed records (Store) over a small key-value interface with compare-and-set
// (KV), which Bolt and Memory implement.
package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// KV is where the records are kept. It asks for no more than etcd's transactions can
// do: compare revisions, then put and delete, within limits on keys and bytes. No
// callback runs inside a transaction, and no cursor stays open between two calls.
// Methods may be called concurrently. A read sees every commit that has returned.
type KV interface {
	// Get returns the entry of a key. If the key is not there, the entry's revision is
	// 0 and the error nil.
	Get(ctx context.Context, key string) (Entry, error)

	// List returns up to limit entries whose keys begin with prefix and come after the
	// key after, in ascending order of the keys' bytes. limit is at least 1; after may
	// be empty.
	List(ctx context.Context, prefix, after string, limit int) ([]Entry, error)

	// Commit does all of txn or nothing. It returns once the change is as safe as the
	// KV can make it; with Bolt it is synced to disk. It fails with ErrConflict if a
	// condition does not hold. It does nothing if ctx has ended; once begun, it
	// finishes even if ctx ends.
	Commit(ctx context.Context, txn Txn) error

	// Watch waits until keys that begin with prefix have changed after the revision
	// after. It returns the changes in order of their revisions, and the revision from
	// which to watch on.
	//
	// With 0 it returns at once with the present revision and no changes. A caller that
	// then lists, and watches from that revision, misses nothing, but may see changes
	// that its list already has.
	//
	// It fails with ErrCompacted if changes since then have been forgotten, as all are
	// when the process ends.
	Watch(ctx context.Context, prefix string, after int64) ([]Change, int64, error)

	// Close waits for commits under way. After it all methods fail with ErrClosed.
	// Calling it again does nothing.
	Close() error
}

// Entry is a key with its value.
type Entry struct {
	Key   string
	Value []byte // belongs to the caller

	// Created is the revision of the commit that created the key. It orders keys by
	// creation.
	Created int64

	// Revision is the revision of the commit that put the value; 0 means that the key
	// is not there. Later commits have higher revisions.
	Revision int64
}

// Txn is what a Commit does. No two of its operations may touch the same key, because
// etcd does not allow it; so their order does not matter.
type Txn struct {
	If     []Condition
	Put    []Pair
	Delete []string // keys that are not there are no error

	// DeletePrefix deletes every key that begins with one of these. For etcd, which
	// limits the operations of a transaction, each prefix is one.
	DeletePrefix []string
}

// Condition holds if Key's value has exactly this Revision; 0 means that the key is not
// there.
type Condition struct {
	Key      string
	Revision int64
}

// Pair is a key and the value to store there.
type Pair struct {
	Key   string
	Value []byte
}

// ErrConflict is returned by Commit if a condition does not hold. The caller should
// read again and decide anew.
var ErrConflict = errors.New("somebody else changed it meanwhile")

// ErrClosed is returned by a KV that has been closed.
var ErrClosed = errors.New("the store is closed")

// The limits of a transaction. They are etcd's defaults.
const (
	MaxOperations = 128     // puts and deletes together, and as many conditions
	MaxTxnSize    = 1 << 20 // bytes of all keys and values together
)

// maxKey is the longest key in bytes; bbolt's own limit is 32768.
const maxKey = 1024

// check refuses whatever one of the KVs could not do. A mistake then shows with all of
// them, and cannot make other transactions of a shared commit fail.
func (t Txn) check() error {
	if n := len(t.Put) + len(t.Delete) + len(t.DeletePrefix); n > MaxOperations || len(t.If) > MaxOperations {
		return fmt.Errorf("the transaction has %d operations and %d conditions: %d of each is the most", n, len(t.If), MaxOperations)
	}
	if n := t.size(); n > MaxTxnSize {
		return fmt.Errorf("the transaction has %d bytes: %d is the most", n, MaxTxnSize)
	}
	touched := map[string]bool{}
	touch := func(key string) error {
		if key == "" || len(key) > maxKey {
			return fmt.Errorf("key %.80q has %d bytes: use 1 to %d", key, len(key), maxKey)
		}
		if touched[key] {
			return fmt.Errorf("key %q is in the transaction twice: put or delete it once", key)
		}
		touched[key] = true
		return nil
	}
	for _, pair := range t.Put {
		if err := touch(pair.Key); err != nil {
			return err
		}
	}
	for _, key := range t.Delete {
		if err := touch(key); err != nil {
			return err
		}
	}
	for _, prefix := range t.DeletePrefix {
		for key := range touched {
			if strings.HasPrefix(key, prefix) {
				return fmt.Errorf("key %q is also deleted by the prefix %q: put or delete it once", key, prefix)
			}
		}
	}
	return nil
}

// size returns how many bytes the keys and values have together.
func (t Txn) size() (n int) {
	for _, c := range t.If {
		n += len(c.Key)
	}
	for _, pair := range t.Put {
		n += len(pair.Key) + len(pair.Value)
	}
	for _, keys := range [][]string{t.Delete, t.DeletePrefix} {
		for _, key := range keys {
			n += len(key)
		}
	}
	return n
}

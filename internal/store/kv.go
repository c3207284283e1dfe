// Package store keeps functions through crash and failover: typed records
// (Store) over a small compare-and-set seam (KV), which Bolt and Memory fill.
package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// KV is what the records are kept in. It asks no more than etcd's transactions
// can do: compare revisions, then put and delete, so many keys and bytes at most; no
// callback runs inside a transaction, and no cursor stays open between two calls. Methods may be
// called concurrently, and every read sees all commits that have returned.
type KV interface {
	// Get returns a key's entry. A key that is not there gives an entry with
	// the revision 0 and no error.
	Get(ctx context.Context, key string) (Entry, error)

	// List returns up to limit entries whose keys begin with prefix and come
	// after the key after, by key in ascending order of bytes. limit is 1 or
	// more; after may be empty.
	List(ctx context.Context, prefix, after string, limit int) ([]Entry, error)

	// Commit does all of txn or nothing, and returns once it is as safe as
	// the KV makes it (Bolt: synced to disk). It fails with ErrConflict when
	// a condition does not hold, and does nothing once ctx has ended; what
	// has begun is finished even if ctx ends meanwhile.
	Commit(ctx context.Context, txn Txn) error

	// Watch waits until there are changes to keys that begin with prefix, later than
	// the revision after. It returns them in the order of their revisions, and the
	// revision to go on from. With 0 it returns at once, without changes, the revision
	// as of now: who then lists, and watches from there, misses nothing, but may be told
	// of what the list has. It fails with ErrCompacted when changes since then are
	// forgotten, as they are at the end of the process.
	Watch(ctx context.Context, prefix string, after int64) ([]Change, int64, error)

	// Close waits for commits under way. Afterwards all methods fail with
	// ErrClosed; closing again does nothing.
	Close() error
}

// Entry is a key with its value.
type Entry struct {
	Key   string
	Value []byte // the caller's own

	// Created is the revision of the commit that put the key when it was not
	// there. It orders keys by creation.
	Created int64

	// Revision is that of the commit that put the value; 0 says that the key
	// is not there. Later commits have higher revisions.
	Revision int64
}

// Txn is what Commit does. The order inside does not matter, since no two
// operations may touch the same key: etcd refuses that, so all do.
type Txn struct {
	If     []Condition
	Put    []Pair
	Delete []string // what is not there is no error

	// DeletePrefix deletes every key that begins so, however many there are:
	// etcd limits the operations of a transaction, and this is one.
	DeletePrefix []string
}

// Condition holds when Key's value has exactly this Revision (0: is not there).
type Condition struct {
	Key      string
	Revision int64
}

// Pair is a key and the value to put there.
type Pair struct {
	Key   string
	Value []byte
}

// ErrConflict is returned by Commit when a condition does not hold: read again
// and decide anew.
var ErrConflict = errors.New("somebody else changed it meanwhile")

// ErrClosed is returned by a KV that has been closed.
var ErrClosed = errors.New("the store is closed")

// What a transaction may have: what etcd takes of one, as it comes.
const (
	MaxOperations = 128     // puts and deletes together, and as many conditions
	MaxTxnSize    = 1 << 20 // bytes of all keys and values together
)

// maxKey is the longest key in bytes; bbolt's own limit is 32768.
const maxKey = 1024

// check refuses what one of the KVs could not do, so that a mistake shows
// with all of them and cannot fail the other transactions of a shared commit.
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

// size is how many bytes the keys and values have together.
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

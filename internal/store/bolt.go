package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Bolt is a KV in one file, which one process at a time holds the lock of.
// Commits are synced to disk before they return; those that arrive while one
// is being written share the next.
type Bolt struct {
	db     *bbolt.DB
	file   *os.File // db's own
	folder string

	// turn is taken by the one that writes for all who wait.
	turn chan struct{}

	mu      sync.Mutex
	waiting []*commit
	closed  bool
	broken  error // set when a write panicked, or may have happened although it failed
}

// commit is a transaction that waits to be written. err is set before done is
// closed.
type commit struct {
	txn  Txn
	err  error
	done chan struct{}
}

// bucket holds all keys. It is one, so that ours are ordered by prefix alone,
// as they would be in etcd.
var bucket = []byte("fob")

// headerSize is that of what stands before a value: the revisions that created
// and last put it.
const headerSize = 16

// Get implements KV.
func (b *Bolt) Get(ctx context.Context, key string) (Entry, error) {
	e := Entry{Key: key}
	err := b.view(ctx, func(bk *bbolt.Bucket) (err error) {
		if value := bk.Get([]byte(key)); value != nil {
			e, err = decodeEntry([]byte(key), value)
		}
		return err
	})
	return e, err
}

// List implements KV.
func (b *Bolt) List(ctx context.Context, prefix, after string, limit int) ([]Entry, error) {
	var list []Entry
	err := b.view(ctx, func(bk *bbolt.Bucket) error {
		c := bk.Cursor()
		key, value := c.Seek([]byte(max(prefix, after)))
		if key != nil && string(key) == after {
			key, value = c.Next()
		}
		for ; key != nil && strings.HasPrefix(string(key), prefix) && len(list) < limit; key, value = c.Next() {
			e, err := decodeEntry(key, value)
			if err != nil {
				return err
			}
			list = append(list, e)
		}
		return nil
	})
	return list, err
}

func (b *Bolt) view(ctx context.Context, read func(*bbolt.Bucket) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return b.explain(guard(func() error {
		return b.db.View(func(tx *bbolt.Tx) error { return read(tx.Bucket(bucket)) })
	}))
}

// Commit implements KV. Alone it costs one write and its syncs. bbolt's own
// Batch would have it wait for company first, and redo the whole batch for each
// conflict in it.
func (b *Bolt) Commit(ctx context.Context, txn Txn) error {
	if err := txn.check(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	c := &commit{txn: txn, done: make(chan struct{})}
	b.mu.Lock()
	b.waiting = append(b.waiting, c)
	b.mu.Unlock()

	select {
	case <-c.done: // somebody else wrote it
	case b.turn <- struct{}{}:
		b.writeWaiting()
		<-b.turn
		<-c.done
	}
	return c.err
}

// writeWaiting writes all transactions that wait as one of bbolt's. The caller
// holds the turn.
func (b *Bolt) writeWaiting() {
	b.mu.Lock()
	batch, closed, broken := b.waiting, b.closed, b.broken
	b.waiting = nil
	b.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	err := broken
	if closed {
		err = ErrClosed
	}
	if err == nil {
		id := 0
		// gofail: var commitBegin struct{}
		err = guard(func() error {
			return b.db.Update(func(tx *bbolt.Tx) error {
				id = tx.ID()
				for _, c := range batch {
					if c.err = apply(tx.Bucket(bucket), c.txn); c.err != nil && !errors.Is(c.err, ErrConflict) {
						return c.err
					}
				}
				// gofail: var commitEnd struct{}
				// return errors.New("failpoint commitEnd")
				return nil
			})
		})
		// gofail: var commitDone struct{}
		if err != nil && !errors.Is(err, errDamaged) && b.holds(id) {
			// The cause is not wrapped: a disk that was full is not all that is wrong.
			err = fmt.Errorf("%w: %v", errUnsynced, err)
		}
		err = b.explain(err)
		if errors.Is(err, errDamaged) || errors.Is(err, errUnsynced) {
			// After damage bbolt may still hold its locks, and a further write could
			// hang. After the other, it would be one upon what may not be on disk.
			b.mu.Lock()
			b.broken = err
			b.mu.Unlock()
		}
	}
	for _, c := range batch {
		if err != nil {
			c.err = err
		}
		close(c.done)
	}
}

// errUnsynced is wrapped by the error of a commit that is in the file, and of
// which only the last sync failed: what a restart would find, nobody knows.
var errUnsynced = errors.New("the last change may or may not be on disk")

// holds reports whether the transaction with that ID is in the file.
func (b *Bolt) holds(id int) (there bool) {
	err := guard(func() error {
		return b.db.View(func(tx *bbolt.Tx) error {
			there = tx.ID() == id
			return nil
		})
	})
	return err != nil || there
}

// apply does one transaction. When it returns ErrConflict it has done nothing;
// after any other error the bbolt transaction must not be committed.
func apply(bk *bbolt.Bucket, txn Txn) error {
	for _, c := range txn.If {
		var e Entry
		if value := bk.Get([]byte(c.Key)); value != nil {
			var err error
			if e, err = decodeEntry([]byte(c.Key), value); err != nil {
				return err
			}
		}
		if e.Revision != c.Revision {
			return ErrConflict
		}
	}
	sequence, err := bk.NextSequence()
	if err != nil {
		return err
	}
	for _, key := range txn.Delete {
		if err := bk.Delete([]byte(key)); err != nil {
			return err
		}
	}
	for _, prefix := range txn.DeletePrefix {
		if err := deletePrefix(bk, prefix); err != nil {
			return err
		}
	}
	for _, pair := range txn.Put {
		created := sequence
		if old := bk.Get([]byte(pair.Key)); len(old) >= headerSize {
			created = binary.BigEndian.Uint64(old)
		}
		value := make([]byte, 0, headerSize+len(pair.Value))
		value = binary.BigEndian.AppendUint64(value, created)
		value = binary.BigEndian.AppendUint64(value, sequence)
		if err := bk.Put([]byte(pair.Key), append(value, pair.Value...)); err != nil {
			return err
		}
	}
	return nil
}

// deletePrefix collects before it deletes, since deleting moves a cursor.
func deletePrefix(bk *bbolt.Bucket, prefix string) error {
	var keys [][]byte
	c := bk.Cursor()
	for key, _ := c.Seek([]byte(prefix)); key != nil && strings.HasPrefix(string(key), prefix); key, _ = c.Next() {
		keys = append(keys, []byte(string(key)))
	}
	for _, key := range keys {
		if err := bk.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// decodeEntry copies, for bbolt's memory is gone after the transaction.
func decodeEntry(key, value []byte) (Entry, error) {
	if len(value) < headerSize {
		return Entry{}, badRecord(string(key), errors.New("it has no revision"))
	}
	return Entry{
		Key:      string(key),
		Value:    append([]byte{}, value[headerSize:]...),
		Created:  int64(binary.BigEndian.Uint64(value)),
		Revision: int64(binary.BigEndian.Uint64(value[8:])),
	}, nil
}

// Close implements KV, and gives up the lock.
func (b *Bolt) Close() error {
	b.turn <- struct{}{} // after the commit under way
	defer func() { <-b.turn }()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	if b.broken != nil {
		abandon(b.file)
		return nil
	}
	return guard(b.db.Close)
}

// errDamaged is wrapped by the errors that guard makes of panics.
var errDamaged = errors.New("the file is damaged")

// guard makes errors of the panics that bbolt answers damage with, and of the
// SIGBUS of a read that the disk or a cut-off file cannot serve.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("%w (%v)", errDamaged, reason)
		}
	}()
	return f()
}

func (b *Bolt) explain(err error) error {
	switch {
	case errors.Is(err, bolterrors.ErrDatabaseNotOpen):
		return ErrClosed
	case errors.Is(err, errDamaged):
		return fmt.Errorf("the database in %s cannot be used: %w; stop the dispatcher and restore it from a backup", b.folder, err)
	case errors.Is(err, errUnsynced):
		return fmt.Errorf("the database in %s: %w; restart the dispatcher", b.folder, err)
	case err != nil:
		return fmt.Errorf("the database in %s: %w; see whether its disk is full or failing", b.folder, unhide(err))
	}
	return nil
}

// unhide wraps the causes that bbolt only puts into the text of its errors, as it
// does when the file cannot grow.
func unhide(err error) error {
	for _, cause := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		if !errors.Is(err, cause) && strings.HasSuffix(err.Error(), cause.Error()) {
			return fmt.Errorf("%w (%w)", err, cause)
		}
	}
	return err
}

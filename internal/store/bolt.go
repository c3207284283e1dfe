package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/store/survey"
)

// Bolt is a KV in one bbolt file. One process at a time holds its lock. A commit is
// synced to disk before it returns; commits that arrive while another one is written
// share the next write.
type Bolt struct {
	db       *bbolt.DB
	file     *os.File // db's own
	pageSize int
	folder   string
	migrated Migration
	feed     *feed

	// turn is held by the goroutine that writes for all that wait.
	turn chan struct{}

	mu      sync.Mutex
	waiting []*commit
	closed  bool
	broken  error // why nothing is written any more
}

// commit is a transaction that waits to be written. err is set before done is closed.
type commit struct {
	txn      Txn
	err      error
	revision int64
	changes  []Change
	done     chan struct{}
}

// bucket holds all keys. There is only one, so that prefixes alone order our keys, as
// they would in etcd.
var bucket = []byte("fob")

// Get implements KV.
func (b *Bolt) Get(ctx context.Context, key string) (Entry, error) {
	e := Entry{Key: key}
	err := b.view(ctx, func(bk *bbolt.Bucket) (err error) {
		if stored := bk.Get([]byte(key)); stored != nil {
			e, _, err = readEntry([]byte(key), stored)
			e.Value = append([]byte{}, e.Value...)
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
			e, _, err := readEntry(key, value)
			if err != nil {
				return err
			}
			e.Value = append([]byte{}, e.Value...)
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

// Commit implements KV. A single commit costs one write and its syncs. bbolt's own
// Batch would make it wait for others first, and redo the whole batch for each conflict
// in it.
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
	case <-c.done: // another goroutine wrote it
	case b.turn <- struct{}{}:
		b.writeWaiting()
		<-b.turn
		<-c.done
	}
	return c.err
}

// writeWaiting writes all waiting transactions as one bbolt transaction. The caller
// holds the turn.
func (b *Bolt) writeWaiting() {
	b.mu.Lock()
	batch, closed, broken := b.waiting, b.closed, b.broken
	b.waiting = nil
	b.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	err, txid := broken, uint64(0)
	if closed {
		err = ErrClosed
	}
	if err == nil {
		// gofail: var commitBegin struct{}
		err = guard(func() error {
			return b.db.Update(func(tx *bbolt.Tx) error {
				txid = uint64(tx.ID())
				d, err := readDigest(tx)
				if err != nil {
					return err
				}
				for _, c := range batch {
					if c.err = c.apply(tx.Bucket(bucket), &d); c.err != nil && !errors.Is(c.err, ErrConflict) {
						return c.err
					}
				}
				// gofail: var commitEnd struct{}
				// return errors.New("failpoint commitEnd")
				return writeDigest(tx, d)
			})
		})
		// gofail: var commitDone struct{}
		if err != nil && !errors.Is(err, errDamaged) && b.landed(txid) {
			err = fmt.Errorf("%w: %w", errUnsure, err)
		}
		err = b.explain(err)
	}
	for _, c := range batch {
		if err != nil {
			c.err = err
		}
		if c.err == nil {
			b.feed.publish(c.revision, c.changes)
		}
		close(c.done)
	}
}

// apply does one transaction and updates d. If it returns ErrConflict, it has changed
// nothing. After any other error the bbolt transaction must not be committed.
func (c *commit) apply(bk *bbolt.Bucket, d *digest) error {
	for _, condition := range c.txn.If {
		var e Entry
		if stored := bk.Get([]byte(condition.Key)); stored != nil {
			var err error
			if e, _, err = readEntry([]byte(condition.Key), stored); err != nil {
				return err
			}
		}
		if e.Revision != condition.Revision {
			return ErrConflict
		}
	}
	sequence, err := bk.NextSequence()
	if err != nil {
		return err
	}
	c.revision = int64(sequence)
	gone := slices.Clone(c.txn.Delete)
	for _, prefix := range c.txn.DeletePrefix {
		gone = append(gone, keysBelow(bk, prefix)...)
	}
	for _, key := range gone {
		was, err := remove(bk, d, []byte(key))
		if err != nil {
			return err
		}
		if was {
			c.changes = append(c.changes, Change{key, c.revision, true})
		}
	}
	for _, pair := range c.txn.Put {
		key, created := []byte(pair.Key), sequence
		if old := bk.Get(key); old != nil {
			e, s, err := readEntry(key, old)
			if err != nil {
				return err
			}
			created = uint64(e.Created)
			d.remove(s)
		}
		stored, s := encodeEntry(key, created, sequence, pair.Value)
		if err := bk.Put(key, stored); err != nil {
			return err
		}
		d.add(s)
		c.changes = append(c.changes, Change{pair.Key, c.revision, false})
	}
	return nil
}

// remove deletes a key and reports whether it was there.
func remove(bk *bbolt.Bucket, d *digest, key []byte) (bool, error) {
	old := bk.Get(key)
	if old == nil {
		return false, nil
	}
	_, s, err := readEntry(key, old)
	if err != nil {
		return false, err
	}
	d.remove(s)
	return true, bk.Delete(key)
}

// keysBelow returns all keys that begin with prefix. They are collected before any is
// deleted, because a delete moves the cursor.
func keysBelow(bk *bbolt.Bucket, prefix string) (keys []string) {
	c := bk.Cursor()
	for key, _ := c.Seek([]byte(prefix)); key != nil && strings.HasPrefix(string(key), prefix); key, _ = c.Next() {
		keys = append(keys, string(key))
	}
	return keys
}

// readEntry is decodeEntry for a record of an open database. The record was valid when
// the database was opened.
func readEntry(key, stored []byte) (Entry, sum, error) {
	e, s, err := decodeEntry(key, stored)
	return e, s, damaged(err)
}

// readDigest returns the digest of the records.
func readDigest(tx *bbolt.Tx) (digest, error) {
	bk := tx.Bucket(bucketDigest)
	if bk == nil {
		return digest{}, damaged(errors.New("there is no digest of the records"))
	}
	d, err := decodeDigest(bk.Get(bucketDigest))
	return d, damaged(err)
}

// writeDigest stores the digest beside the records, with the last revision.
func writeDigest(tx *bbolt.Tx, d digest) error {
	d.sequence = tx.Bucket(bucket).Sequence()
	return tx.Bucket(bucketDigest).Put(bucketDigest, d.encode())
}

// Watch implements KV.
func (b *Bolt) Watch(ctx context.Context, prefix string, after int64) ([]Change, int64, error) {
	return b.feed.watch(ctx, prefix, after)
}

// Close implements KV. It also releases the lock.
func (b *Bolt) Close() error {
	b.turn <- struct{}{} // after the commit under way
	defer func() { <-b.turn }()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	b.feed.close()
	if b.broken != nil {
		abandon(b.file)
		return nil
	}
	return guard(b.db.Close)
}

// landed reports whether a failed commit is in the file after all. If so, only its last
// sync failed.
func (b *Bolt) landed(txid uint64) bool {
	found, err := survey.Transaction(b.file, txid%2, b.pageSize)
	return err == nil && found == txid
}

// Broken returns why nothing can be written any more, and what to do; or nil. Once
// broken, a Bolt stays so.
func (b *Bolt) Broken() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.broken
}

// errDamaged is wrapped by every error about data that is not as it was stored.
var errDamaged = errors.New("the file is damaged")

// errUnsure is wrapped by the error of a commit that may or may not survive a power
// cut. Nothing may be written after it: the commit's pages are in use, and a write
// could overwrite those to which a power cut would go back.
var errUnsure = errors.New("the disk failed, and whether the last change is safe is not known")

// damaged marks err as damage, unless it is nil.
func damaged(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errDamaged, err)
}

// guard turns bbolt's panics over damaged pages into errors, and likewise the SIGBUS of
// a read that the disk or a truncated file cannot serve.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("%w (%v)", errDamaged, reason)
		}
	}()
	return f()
}

// explain adds to an error of the file what to do about it. After damage, and after a
// commit that is unsure, it stops all writes: bbolt may still hold its locks, so
// another write could hang.
func (b *Bolt) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bolterrors.ErrDatabaseNotOpen):
		return ErrClosed
	case errors.Is(err, errDamaged):
		return b.breaks("%w; stop the dispatcher and %s", err, restoreAdvice(b.folder))
	case errors.Is(err, errUnsure):
		return b.breaks("%w; see to the disk and start the dispatcher again", err)
	}
	err = fmt.Errorf("the database in %s: %w; see whether its disk is full or failing", b.folder, unhide(err))
	if _, bySystem := errors.AsType[syscall.Errno](err); bySystem && !faas.DiskFull(err) {
		return faas.Errorf(faas.CodeStorage, "the database's disk failed: the dispatcher's log says why").After(10 * time.Second).Because(err)
	}
	return err
}

// breaks sets and returns the error that all further writes get.
func (b *Bolt) breaks(format string, args ...any) error {
	err := faas.Errorf(faas.CodeStorage, "the database cannot be used any more: the dispatcher's log says why, and what to do").
		Because(fmt.Errorf("the database in %s cannot be used: "+format, append([]any{b.folder}, args...)...))
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken == nil {
		b.broken = err
	}
	return err
}

// restoreAdvice says how to go back to a backup.
func restoreAdvice(folder string) string {
	return fmt.Sprintf("restore it from a backup: dispatcher restore --data %s FILE", folder)
}

// unhide wraps causes that bbolt only mentions in the text of its errors, for example
// that the file cannot grow.
func unhide(err error) error {
	for _, cause := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS} {
		if !errors.Is(err, cause) && strings.HasSuffix(err.Error(), cause.Error()) {
			return fmt.Errorf("%w (%w)", err, cause)
		}
	}
	return err
}

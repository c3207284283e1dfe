package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/flockofbirds/fob/internal/durable"
)

// Migration is what opening an older database did to it.
type Migration struct {
	From   int    // the schema before; 0 if there was no migration
	To     int    // the schema now
	Backup string // the path of the old database
}

// Migrated returns what opening the file did to it.
func (b *Bolt) Migrated() Migration { return b.migrated }

// migrate turns an older database into one of this schema. It writes a new file beside
// the old one and puts it in the old one's place when it is complete. The old file
// stays under another name. A crash at any moment leaves one or the other, and the next
// start does it again.
//
// It returns the new database, which holds the lock, and closes the old one.
func (b *Bolt) migrate(path string, from int) (*Bolt, error) {
	fail := func(err error) (*Bolt, error) {
		return nil, fmt.Errorf("migrating to schema %d: %w", schema, b.explain(err))
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fail(err)
	}
	if err := b.room("migrate the database", filepath.Dir(real)); err != nil {
		return fail(err)
	}
	next, err := b.copyAside(real, from)
	if err != nil {
		return fail(err)
	}
	backup, err := b.keepOld(real, fmt.Sprintf("%s.schema-%d", real, from))
	if err == nil {
		err = os.Rename(next.file.Name(), real)
	}
	if err == nil {
		err = durable.SyncFolder(filepath.Dir(real))
	}
	if err != nil {
		os.Remove(next.file.Name())
		return fail(errors.Join(err, next.Close()))
	}
	if err := b.Close(); err != nil {
		return fail(errors.Join(err, next.Close()))
	}
	next.migrated = Migration{From: from, To: schema, Backup: backup}
	return next, nil
}

// copyAside makes a new database beside path from what is in b, checked and synced.
func (b *Bolt) copyAside(path string, from int) (next *Bolt, err error) {
	folder := filepath.Dir(path)
	file, err := os.CreateTemp(folder, filepath.Base(path)+temporary+"*")
	if err != nil {
		return nil, err
	}
	next, err = overFile(file, b.folder, true)
	if err != nil {
		return nil, errors.Join(err, os.Remove(file.Name()))
	}
	err = guard(func() error {
		return b.db.View(func(old *bbolt.Tx) error { return copyRecords(old.Bucket(bucket), next.db, from) })
	})
	if err == nil {
		next.db.NoSync = false
		err = errors.Join(durable.SameOwner(file, folder), file.Sync())
	}
	if err == nil {
		found := readContents(file, func(Entry) {})
		next.feed = newFeed(int64(found.records.sequence))
		err = found.err()
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(file.Name()), next.Close())
	}
	return next, nil
}

// keepOld gives the database's file a second name and returns it: path or, if another
// database is kept there, path with the time. A name from an earlier attempt will do.
// now is the file's present name.
func (b *Bolt) keepOld(now, path string) (string, error) {
	kept, err := filepath.Glob(globEscape(path) + "*")
	if err != nil {
		return "", err
	}
	content, err := contentOf(b.file)
	if err != nil {
		return "", err
	}
	for _, name := range kept {
		if strings.HasSuffix(name, partial) { // cut off: only the database's owner writes it, and that is us
			if err := os.Remove(name); err != nil {
				return "", err
			}
		} else if holds(name, content) {
			return name, durable.SyncFolder(filepath.Dir(path))
		}
	}
	if slices.Contains(kept, path) {
		path += "-" + time.Now().UTC().Format("20060102T150405.000Z")
	}
	if err := os.Link(now, path); err != nil {
		return "", err
	}
	return path, durable.SyncFolder(filepath.Dir(path))
}

// contentOf returns the digest of the records of a database of any schema.
func contentOf(file *os.File) (d digest, err error) {
	err = readContents(file, func(e Entry) {
		_, s := encodeEntry([]byte(e.Key), uint64(e.Created), uint64(e.Revision), e.Value)
		d.add(s)
	}).err()
	return d, err
}

// holds reports whether the file called name is a database with that content.
func holds(name string, content digest) bool {
	file, err := os.Open(name)
	if err != nil {
		return false
	}
	defer file.Close()
	found, err := contentOf(file)
	return err == nil && found == content
}

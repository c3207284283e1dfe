package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/flockofbirds/fob/internal/durable"
)

// temporary stands between the database's path and a random number in the name
// of a file that is to become the database.
const temporary = ".new-"

// createFile puts an initialised database at path, or leaves the one that
// somebody else put there meanwhile. It is made aside and linked into place
// complete, so that there is no moment at which path is half a database; a
// link, unlike a rename, never replaces.
func createFile(ctx context.Context, path string) error {
	folder := filepath.Dir(path)
	if err := makeFolder(folder); err != nil {
		return err
	}
	f, err := os.CreateTemp(folder, filepath.Base(path)+temporary+"*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := initialiseFile(ctx, f.Name()); err != nil {
		return unlessLost(err)
	}
	// bbolt has synced the pages, but the sizes and the like only as far as
	// reading them needs.
	if err := errors.Join(durable.SameOwner(f, folder), f.Sync()); err != nil {
		return err
	}
	return unlessLost(os.Link(f.Name(), path))
}

// unlessLost returns err, unless it means that somebody else's database is in
// place and, perhaps, has had our temporary file cleared away.
func unlessLost(err error) error {
	if errors.Is(err, os.ErrExist) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// initialiseFile makes the empty file at path a database with a store in it.
func initialiseFile(ctx context.Context, path string) error {
	b := &Bolt{folder: filepath.Dir(path), turn: make(chan struct{}, 1), feed: newFeed(0)}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		OpenFile: func(path string, _ int, _ os.FileMode) (file *os.File, err error) {
			b.file, err = os.OpenFile(path, os.O_RDWR, 0) // not O_CREATE: it may be gone
			return b.file, err
		},
	})
	if err != nil {
		return err
	}
	b.db, b.pageSize = db, db.Info().PageSize
	err = db.Update(func(tx *bbolt.Tx) error {
		if err := createBuckets(tx); err != nil {
			return err
		}
		return writeDigest(tx, digest{})
	})
	if err == nil {
		_, err = New(ctx, b)
	}
	return errors.Join(err, b.Close())
}

func createBuckets(tx *bbolt.Tx) error {
	for _, name := range [][]byte{bucket, bucketDigest} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return nil
}

// makeFolder creates folder with what lies above it, durably.
func makeFolder(folder string) error {
	if _, err := os.Stat(folder); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if parent := filepath.Dir(folder); parent != folder {
		if err := makeFolder(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return durable.SyncFolder(filepath.Dir(folder))
}

// globEscape makes path stand for itself in a pattern of filepath.Glob.
func globEscape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/flockofbirds/fob/internal/durable"
)

// temporary stands between the database's path and a random number in the name of a
// file that is about to become the database.
const temporary = ".new-"

// createFile creates an initialised database at path, unless somebody else is quicker.
// It writes another file and links it into place when it is complete, so path is never
// half a database. Unlike a rename, a link never replaces a file.
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
	// bbolt has synced the pages, but metadata such as the size only as far as reading
	// needs it.
	if err := errors.Join(durable.SameOwner(f, folder), f.Sync()); err != nil {
		return err
	}
	return unlessLost(os.Link(f.Name(), path))
}

// unlessLost returns err, unless it means that somebody else's database is in place,
// whose owner may have removed our temporary file.
func unlessLost(err error) error {
	if errors.Is(err, os.ErrExist) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// initialiseFile makes the empty file at path a database with a store in it.
func initialiseFile(ctx context.Context, path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0) // without O_CREATE: it may be gone
	if err != nil {
		return err
	}
	b, err := overFile(file, filepath.Dir(path), false)
	if err != nil {
		return err
	}
	err = b.db.Update(func(tx *bbolt.Tx) error {
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

// overFile makes an open, empty file a new database and takes its lock. If it fails, it
// closes the file.
func overFile(file *os.File, folder string, noSync bool) (*Bolt, error) {
	db, err := bbolt.Open(file.Name(), 0o600, &bbolt.Options{
		Timeout:      time.Nanosecond, // nobody else knows the file
		FreelistType: bbolt.FreelistMapType,
		NoSync:       noSync,
		OpenFile:     func(string, int, os.FileMode) (*os.File, error) { return file, nil },
	})
	if err != nil {
		file.Close()
		return nil, err
	}
	return &Bolt{db: db, file: file, pageSize: db.Info().PageSize, folder: folder, turn: make(chan struct{}, 1), feed: newFeed(0)}, nil
}

func createBuckets(tx *bbolt.Tx) error {
	for _, name := range [][]byte{bucket, bucketDigest} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return nil
}

// makeFolder creates a folder and its missing parents, durably.
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

// globEscape returns a pattern of filepath.Glob that matches path and nothing else.
func globEscape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

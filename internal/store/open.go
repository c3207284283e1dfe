package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"github.com/flockofbirds/fob/internal/durable"
	"github.com/flockofbirds/fob/internal/faas"
)

// lockPoll is the pause between two attempts to take a lock.
const lockPoll = 50 * time.Millisecond

// maxCreations bounds the attempts to create a missing file. If it is still missing
// after that, it is a dangling link or somebody keeps deleting it.
const maxCreations = 10

// OpenBolt opens the database file at path and takes its lock. If the file is missing,
// it creates and initialises it, in a folder of mode 0700.
//
// While another process holds the lock, OpenBolt fails at once; if wait is set, it
// waits until ctx ends. It calls locked as soon as it holds the lock and before it
// reads, because reading a large database takes a while. An empty or damaged file is an
// error: it held functions, or should have, and only the operator knows whether they
// may go.
func OpenBolt(ctx context.Context, path string, wait bool, locked ...func()) (*Bolt, error) {
	folder := filepath.Dir(path)
	for creations := 0; ; {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("waiting for the dispatcher that uses %s: %w", folder, context.Cause(ctx))
		}
		b, found, err := openFile(path, locked)
		switch {
		case err == nil:
			if err := b.settle(path); err != nil {
				return nil, errors.Join(err, b.Close())
			}
			if found.schema >= schema { // New explains newer ones
				return b, nil
			}
			next, err := b.migrate(path, found.schema)
			if err != nil {
				return nil, errors.Join(err, b.Close())
			}
			return next, nil
		case errors.Is(err, errReplaced):
		case errors.Is(err, os.ErrNotExist) && creations < maxCreations:
			creations++
			switch err := createFile(ctx, path); {
			case faas.DiskFull(err):
				return nil, fmt.Errorf("cannot set up the data folder %s: %w; free space there, or name another with FOB_DATA", folder, err)
			case err != nil:
				return nil, fmt.Errorf("cannot set up the data folder %s: %w; make it a folder this user can write to, or name another with FOB_DATA", folder, err)
			}
		case errors.Is(err, ErrInUse) && wait:
			select {
			case <-ctx.Done():
			case <-time.After(lockPoll):
			}
		case errors.Is(err, ErrInUse):
			return nil, fmt.Errorf("another dispatcher uses %s: stop it, start this one with --standby, or give it a folder of its own with FOB_DATA", folder)
		case errors.Is(err, os.ErrPermission):
			return nil, fmt.Errorf("cannot open the database: %w; run as the user that owns it, or name another data folder with FOB_DATA", err)
		case errors.Is(err, errNewer):
			return nil, fmt.Errorf("the database %s cannot be used: %w", path, err)
		default:
			return nil, fmt.Errorf("the database %s cannot be used: %w; %s, or move it away to begin with no functions", path, err, restoreAdvice(folder))
		}
	}
}

// settle syncs the file's directory entry, because whoever created the file may have
// died before that, and clears away what dead processes left. It may also take the
// temporary file of a process that is still at work; that one has lost the race to
// create path and expects it. Leftovers of a migration or a restore are where path
// leads to, if it is a link.
func (b *Bolt) settle(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	var leftovers []string
	for _, path := range []string{path, real} {
		found, err := filepath.Glob(globEscape(path) + temporary + "*")
		if err != nil {
			return err
		}
		leftovers = append(leftovers, found...)
	}
	for _, name := range leftovers {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return durable.SyncFolder(b.folder)
}

// ErrInUse says that another process, usually a dispatcher, holds the lock of a
// database.
var ErrInUse = errors.New("another process uses it")

// errReplaced says that path leads to another file by now.
var errReplaced = errors.New("the file was replaced")

// openFile opens an existing database. It never creates one.
func openFile(path string, locked []func()) (*Bolt, *contents, error) {
	b := &Bolt{folder: filepath.Dir(path), turn: make(chan struct{}, 1)}
	var found *contents
	err := guard(func() (err error) {
		b.db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout: time.Nanosecond, // we hold the lock already
			// Keep the list of free pages on disk. Without it bbolt reads all pages to
			// find the free ones, also after each failed write, and does so in a
			// goroutine whose panics nobody can catch.
			NoFreelistSync: false,
			// It takes the same time to find a free page however many there are.
			FreelistType: bbolt.FreelistMapType,
			OpenFile: func(path string, _ int, _ os.FileMode) (*os.File, error) {
				b.file, found, err = lockFile(path, locked)
				return b.file, err
			},
		})
		return err
	})
	if err == nil {
		b.pageSize, b.feed = found.pageSize, newFeed(int64(found.records.sequence))
		return b, found, nil
	}
	if b.file != nil {
		abandon(b.file)
	}
	return nil, nil, err
}

// lockFile opens a database, takes its lock, calls locked, and surveys the file before
// bbolt sees any of it.
func lockFile(path string, locked []func()) (*os.File, *contents, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0) // unlike bbolt, without O_CREATE
	if err != nil {
		return nil, nil, err
	}
	found, err := lockAndSurvey(file, path, locked)
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return file, found, nil
}

func lockAndSurvey(file *os.File, path string, locked []func()) (*contents, error) {
	if err := takeLock(file, path, lockAlone); err != nil {
		return nil, err
	}
	for _, f := range locked {
		f()
	}
	info, err := file.Stat()
	if err == nil && info.Size() == 0 {
		err = errors.New("the file is empty") // which bbolt would initialise
	}
	if err != nil {
		return nil, err
	}
	found := readContents(file, func(Entry) {})
	return found, found.err()
}

// takeLock tries once to take bbolt's lock on the file at path. It fails with ErrInUse,
// or with errReplaced if path leads to another file by now.
func takeLock(file *os.File, path string, how int) error {
	err := syscall.Flock(int(file.Fd()), how|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrInUse
	}
	if err != nil {
		return fmt.Errorf("its lock: %w", err)
	}
	now, err := os.Stat(path)
	if err != nil {
		return err
	}
	locked, err := file.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(now, locked) {
		return errReplaced
	}
	return nil
}

// abandon releases the lock of a database in which bbolt has panicked, because db.Close
// could hang. Closing the file does not release the lock while the file is mapped.
// After an error of bbolt.Open the file is closed already, and abandon does nothing.
func abandon(file *os.File) {
	if raw, err := file.SyscallConn(); err == nil {
		// This fails only if the file is closed.
		_ = raw.Control(func(fd uintptr) { _ = syscall.Flock(int(fd), syscall.LOCK_UN) })
	}
	file.Close()
}

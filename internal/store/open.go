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

// lockPoll is how often a held lock is tried again.
const lockPoll = 50 * time.Millisecond

// maxCreations bounds how often a missing file is created: one that is missing
// still is a link to nowhere, or somebody deletes it.
const maxCreations = 10

// OpenBolt opens the database file at path and takes its lock. A missing file
// is initialised, its folder created with mode 0700.
//
// While another process holds the lock, OpenBolt fails at once, or, when wait
// is set, waits for it until ctx ends. locked are called once the lock is had,
// before anything is read, which takes a while where there is much. An empty or
// damaged file is an error: it held functions, or was meant to, and only the
// operator knows whether those can go.
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
			if found.schema >= schema { // of a newer one New says what to do
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

// settle makes the directory entry durable, which whoever created the file may
// not have lived to do, and clears away what dead processes left. One
// still at work has lost the race to whoever made path and can take the loss
// of its temporary file. What a migration or a restore left is where path leads to,
// if it is a link.
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

// ErrInUse is that another process, a dispatcher in most cases, has the lock of
// a database.
var ErrInUse = errors.New("another process uses it")

// errReplaced is that another file has taken the path's place meanwhile.
var errReplaced = errors.New("the file was replaced")

// openFile opens an existing database, and never creates one.
func openFile(path string, locked []func()) (*Bolt, *contents, error) {
	b := &Bolt{folder: filepath.Dir(path), turn: make(chan struct{}, 1)}
	var found *contents
	err := guard(func() (err error) {
		b.db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout: time.Nanosecond, // we have the lock by then
			// The list of free pages stays on disk. Without it bbolt finds the
			// free pages by reading all, after each failed write too, and does
			// so in a goroutine whose panics nobody can catch.
			NoFreelistSync: false,
			// Finds a free page in the same time however many there are.
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

// lockFile opens a database, takes its lock, says so and surveys it, before bbolt
// sees any of it.
func lockFile(path string, locked []func()) (*os.File, *contents, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0) // not O_CREATE, as bbolt would
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
		err = errors.New("the file is empty") // bbolt would initialise it
	}
	if err != nil {
		return nil, err
	}
	found := readContents(file, func(Entry) {})
	return found, found.err()
}

// takeLock tries once to take bbolt's lock of the file at path. It fails with
// ErrInUse, and with errReplaced when path is another file by now.
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

// abandon gives up the lock of a database that bbolt has panicked in, where
// db.Close could hang. Closing alone would not do, for as long as the file is
// mapped. After an error of bbolt.Open the file is closed, and nothing happens.
func abandon(file *os.File) {
	if raw, err := file.SyscallConn(); err == nil {
		// What fails here fails for a file that is closed.
		_ = raw.Control(func(fd uintptr) { _ = syscall.Flock(int(fd), syscall.LOCK_UN) })
	}
	file.Close()
}

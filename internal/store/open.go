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
	bolterrors "go.etcd.io/bbolt/errors"

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
// is set, waits for it until ctx ends. An empty or damaged file is an error: it
// held functions, or was meant to, and only the operator knows whether those
// can go.
func OpenBolt(ctx context.Context, path string, wait bool) (*Bolt, error) {
	folder := filepath.Dir(path)
	for creations := 0; ; {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("waiting for the dispatcher that uses %s: %w", folder, context.Cause(ctx))
		}
		b, err := openFile(path)
		switch {
		case err == nil:
			if err := b.settle(path); err != nil {
				return nil, errors.Join(err, b.Close())
			}
			return b, nil
		case errors.Is(err, os.ErrNotExist) && creations < maxCreations:
			creations++
			switch err := createFile(ctx, path); {
			case faas.DiskFull(err):
				return nil, fmt.Errorf("cannot set up the data folder %s: %w; free space there, or name another with FOB_DATA", folder, err)
			case err != nil:
				return nil, fmt.Errorf("cannot set up the data folder %s: %w; make it a folder this user can write to, or name another with FOB_DATA", folder, err)
			}
		case errors.Is(err, bolterrors.ErrTimeout) && wait:
			select {
			case <-ctx.Done():
			case <-time.After(lockPoll):
			}
		case errors.Is(err, bolterrors.ErrTimeout):
			return nil, fmt.Errorf("another dispatcher uses %s: stop it, start this one with --standby, or give it a folder of its own with FOB_DATA", folder)
		case errors.Is(err, os.ErrPermission):
			return nil, fmt.Errorf("cannot open the database: %w; run as the user that owns it, or name another data folder with FOB_DATA", err)
		default:
			return nil, fmt.Errorf("the database %s cannot be used: %w; restore it from a backup, or move it away to begin with no functions", path, err)
		}
	}
}

// settle makes the directory entry durable, which whoever created the file may
// not have lived to do, and clears away what dead initialisations left. One
// still at work has lost the race to whoever made path and can take the loss
// of its temporary file.
func (b *Bolt) settle(path string) error {
	leftovers, err := filepath.Glob(globEscape(path) + temporary + "*")
	if err != nil {
		return err
	}
	for _, name := range leftovers {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return syncFolder(b.folder)
}

// openFile opens an existing database, and never creates one.
func openFile(path string) (*Bolt, error) {
	b := &Bolt{folder: filepath.Dir(path), turn: make(chan struct{}, 1)}
	err := guard(func() (err error) {
		b.db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			// One try at the lock.
			Timeout: time.Nanosecond,
			// The list of free pages stays on disk: without it every start
			// would read the whole file, and a start has a second.
			NoFreelistSync: false,
			// Finds a free page in the same time however many there are.
			FreelistType: bbolt.FreelistMapType,
			OpenFile: func(path string, _ int, _ os.FileMode) (*os.File, error) {
				f, err := os.OpenFile(path, os.O_RDWR, 0) // not O_CREATE, as bbolt would
				if err != nil {
					return nil, err
				}
				info, err := f.Stat()
				if err == nil && info.Size() == 0 {
					err = errors.New("the file is empty") // bbolt would initialise it
				}
				if err != nil {
					return nil, errors.Join(err, f.Close())
				}
				b.file = f
				return f, nil
			},
		})
		if err != nil {
			return err
		}
		return b.db.View(func(tx *bbolt.Tx) error {
			info, err := b.file.Stat()
			if err != nil {
				return err
			}
			// Reading past the end of the file would be a SIGBUS.
			if info.Size() < tx.Size() {
				return fmt.Errorf("the file is cut off: it has %d bytes of %d", info.Size(), tx.Size())
			}
			if tx.Bucket(bucket) == nil {
				return errors.New("another program's data is in it")
			}
			return nil
		})
	})
	if err == nil {
		return b, nil
	}
	switch {
	case b.db != nil && !errors.Is(err, errDamaged):
		err = errors.Join(err, b.db.Close())
	case b.file != nil:
		abandon(b.file)
	}
	return nil, err
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

package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"go.etcd.io/bbolt"

	"github.com/flockofbirds/fob/internal/durable"
	"github.com/flockofbirds/fob/internal/faas"
)

// Snapshot returns a copy of the whole database as it is now, in a nameless file that
// is positioned at its beginning. A slow reader of the copy holds up nobody; while the
// copy is made, commits cannot enlarge the database. Snapshot fails if what it copied
// is damaged, or if the copy would leave less than a tenth of its size free on the
// disk, because others need space, too. It calls begun at the moment that the copy
// shows.
func (b *Bolt) Snapshot(ctx context.Context, begun ...func()) (*os.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := b.room("back up the database", b.folder); err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(b.folder, filepath.Base(b.file.Name())+temporary+"*")
	if err != nil {
		return nil, fmt.Errorf("a copy of the database in %s: %w", b.folder, err)
	}
	err = os.Remove(file.Name())
	if err == nil {
		err = guard(func() error {
			return b.db.View(func(tx *bbolt.Tx) error {
				for _, f := range begun {
					f()
				}
				_, err := tx.WriteTo(file)
				return err
			})
		})
	}
	if err == nil {
		err = readContents(file, func(Entry) {}).err()
	}
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if _, bySystem := errors.AsType[syscall.Errno](err); bySystem { // the copy failed; the database is not to blame
		err = fmt.Errorf("a copy of the database in %s: %w", b.folder, err)
	} else {
		err = b.explain(err)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// room fails with faas.CodeNoSpace if the folder's disk cannot hold a copy of the
// database and a tenth of its size besides.
func (b *Bolt) room(doing, folder string) error {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(folder, &disk); err != nil {
		return fmt.Errorf("the free space in %s: %w", folder, err)
	}
	info, err := b.file.Stat()
	if err != nil {
		return fmt.Errorf("the database in %s: %w", b.folder, err)
	}
	if free, need := int64(disk.Bavail)*int64(disk.Bsize), info.Size()+info.Size()/10; free < need {
		return faas.NoSpace(doing, "FOB_DATA", fmt.Errorf("%s has %d bytes free, and that needs %d: %w", folder, free, need, syscall.ENOSPC))
	}
	return nil
}

// Snapshot returns a copy of the database, as Bolt.Snapshot does. It never copies in
// the middle of ResealSecrets, because no single key file could open all secrets of
// such a copy.
func (s *Store) Snapshot(ctx context.Context) (*os.File, error) {
	const doing = "back up the database"
	b, ok := s.kv.(*Bolt)
	if !ok {
		return nil, internal(doing, fmt.Errorf("it is a %T, which has no file", s.kv))
	}
	s.resealing.RLock()
	begun := sync.OnceFunc(s.resealing.RUnlock)
	defer begun()
	file, err := b.Snapshot(ctx, begun)
	return file, internal(doing, err)
}

// Broken returns why nothing can be stored any more, as Bolt.Broken does.
func (s *Store) Broken() error {
	if b, ok := s.kv.(*Bolt); ok {
		return b.Broken()
	}
	return nil
}

// Migrated returns what opening the store did to the database.
func (s *Store) Migrated() Migration {
	if b, ok := s.kv.(*Bolt); ok {
		return b.migrated
	}
	return Migration{}
}

// SaveBackup writes a backup to path: checked, complete and synced, in place of a file
// that is there. It refuses to replace a database that is in use, or anything but a
// regular file.
func SaveBackup(path string, backup io.Reader) (*Report, error) {
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file, and a backup would take its place: give another name, or - for standard output", path)
	}
	if file, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
		err := takeLock(file, path, lockAlone)
		defer file.Close()
		if errors.Is(err, ErrInUse) {
			return nil, fmt.Errorf("%s is the database of a dispatcher: give the backup another name", path)
		}
	}
	var report *Report
	err := writeFile(path, func(file *os.File) error {
		if _, err := io.Copy(file, backup); err != nil {
			return err
		}
		var err error
		if report, err = checkOpen(file); err != nil {
			return err
		}
		return report.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("the backup was not kept: %w", err)
	}
	return report, nil
}

// partial ends the name of a file that writeFile has not put in place yet.
const partial = ".partial"

// writeFile writes a file to path, complete and synced, in place of one that is there.
// Until it is complete, it is called path.partial, and locked.
func writeFile(path string, write func(*os.File) error) error {
	file, err := os.OpenFile(path+partial, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := takeLock(file, file.Name(), lockAlone); err != nil {
		return fmt.Errorf("%s is being written by another process: %w", file.Name(), err)
	}
	err = errors.Join(file.Truncate(0), file.Chmod(0o600)) // an earlier attempt may have been cut off
	if err == nil {
		err = write(file)
	}
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return durable.SyncFolder(filepath.Dir(path))
}

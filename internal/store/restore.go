package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/flockofbirds/fob/internal/durable"
)

// Restored is what Restore did.
type Restored struct {
	Report        // about the backup
	Kept   string // the path of the former database; "" if there was none
}

// Restore puts a backup in the place of the database at path, which may be damaged or
// missing. name is the backup's name, for errors. The former database is kept beside
// it, under a name with the time now. Restore changes nothing unless the whole backup
// is good, and fails with ErrInUse while a dispatcher uses the database. A crash leaves
// one database or the other.
func Restore(backup io.Reader, name, path string, now time.Time) (*Restored, error) {
	if err := makeFolder(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	present, err := lockPresent(path)
	if err != nil {
		return nil, err
	}
	if present != nil {
		defer present.Close() // not before the new one is in place
	}
	next, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+temporary+"*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(next.Name())
	defer next.Close()
	if _, err := io.Copy(next, backup); err != nil {
		return nil, err
	}
	report, err := checkOpen(next)
	if err == nil {
		err = report.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("the backup %s cannot be used, and nothing was changed: %w", name, err)
	}
	if err := durable.SameOwner(next, filepath.Dir(path)); err != nil {
		return nil, err
	}
	if err := next.Sync(); err != nil {
		return nil, err
	}
	done := &Restored{Report: *report}
	if present == nil {
		// Unlike a rename, a link fails if somebody has created a database meanwhile.
		err = os.Link(next.Name(), path)
	} else {
		done.Kept = path + ".before-restore-" + now.UTC().Format("20060102T150405.000Z")
		if err = os.Link(path, done.Kept); err == nil {
			err = durable.SyncFolder(filepath.Dir(path))
		}
		if err == nil {
			err = os.Rename(next.Name(), path)
		}
	}
	if err != nil {
		return nil, err
	}
	return done, durable.SyncFolder(filepath.Dir(path))
}

// lockPresent opens the database that is to be replaced and takes its lock. It returns
// nil if there is none.
func lockPresent(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := takeLock(file, path, lockAlone); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), file.Close())
	}
	return file, nil
}

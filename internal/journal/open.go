package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/flockofbirds/fob/internal/durable"
)

// Open opens the journal in a folder, or begins one. The caller must see to it that a
// folder's journal is opened only once at a time, and must call Close.
func Open(folder string, options Options) (*Journal, error) {
	if options.Segment == 0 {
		options.Segment = defaultSegment
	}
	options.First = max(options.First, 1)
	j := &Journal{folder: folder, options: options, last: options.First - 1, prior: options.First - 1, group: newGroup(), syncing: make(lock, 1)}
	if err := makeFolder(folder); err != nil {
		return nil, err
	}
	all, err := list(folder)
	if err != nil {
		return nil, err
	}
	if all, err = j.openLast(all); err != nil {
		return nil, err
	}
	for i := range all {
		if err := all[i].stat(folder); err != nil {
			return nil, j.abandon(err)
		}
	}
	j.keep(all)
	if j.file == nil {
		if err := j.begin(); err != nil {
			return nil, err
		}
	}
	j.tell(j.Trim())
	return j, nil
}

// abandon closes everything after an error of Open, and returns the error.
func (j *Journal) abandon(err error) error {
	if j.file == nil {
		return err
	}
	return errors.Join(err, j.file.Close())
}

// makeFolder creates the folder if need be and closes it to others. It syncs the
// folder, so that the folder and the files in it survive a power cut, even if whoever
// made them was killed.
func makeFolder(folder string) error {
	err := os.Mkdir(folder, 0o700)
	made := err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	file, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer file.Close()
	parent := filepath.Dir(folder)
	err = file.Chmod(0o700)
	if made && err == nil {
		err = durable.SameOwner(file, parent)
	}
	return errors.Join(err, durable.SyncFolder(folder), durable.SyncFolder(parent))
}

// openLast opens the last segment for writing, if there is one that can be written to,
// and returns the segments that stay.
func (j *Journal) openLast(all []segment) ([]segment, error) {
	for len(all) > 0 {
		s := all[len(all)-1]
		path := s.path(j.folder)
		found, err := survey(j.folder, s, j.tell)
		if err != nil {
			return nil, err
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		j.last, j.prior = max(j.last, found.last), found.last
		if found.end == 0 { // nothing in it can be read
			if info.Size() > beginSize {
				// Skip as many numbers as it can have had.
				j.last += uint64(info.Size() / headerSize)
				j.prior = j.last
				return all, nil
			}
			// It broke off while it was begun, so it has no record.
			if err := os.Remove(path); err != nil {
				return nil, err
			}
			all = all[:len(all)-1]
			continue
		}
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		err = file.Chmod(0o600) // somebody may have changed it
		if torn := info.Size() - found.end; torn > 0 && err == nil {
			j.tell(fmt.Errorf("the last %d bytes of %s are not a whole record, and were cut off: a crash or a power cut broke them off, or they were damaged since", torn, path))
			err = file.Truncate(found.end)
		}
		if err == nil {
			err = file.Sync() // what has been read must not be lost later
		}
		if err != nil {
			return nil, errors.Join(err, file.Close())
		}
		j.file, j.end = file, found.end
		return all, nil
	}
	return nil, nil
}

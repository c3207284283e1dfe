// Package durable keeps the files of the data folder usable: after a power cut, and for
// their owner alone.
package durable

import (
	"errors"
	"os"
	"syscall"
)

// SyncFolder syncs a folder's entries, so that files that were created, linked or
// renamed in it survive a power cut. It does nothing on file systems that cannot do
// this, such as some network file systems.
func SyncFolder(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) {
		err = nil
	}
	return errors.Join(err, f.Close())
}

// SameOwner gives a new file to its folder's owner, if root created it. So a command
// that root runs on the data folder leaves no file that the dispatcher, running as
// another user, could not open.
func SameOwner(file *os.File, folder string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	there, err := os.Stat(folder)
	if err != nil {
		return err
	}
	here, err := file.Stat()
	if err != nil {
		return err
	}
	// On some network file systems everything belongs to one user. There nothing can be
	// given away, nor has to be.
	owner, maker := there.Sys().(*syscall.Stat_t), here.Sys().(*syscall.Stat_t)
	if owner.Uid == maker.Uid && owner.Gid == maker.Gid {
		return nil
	}
	return file.Chown(int(owner.Uid), int(owner.Gid))
}

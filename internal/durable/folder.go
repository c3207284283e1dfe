// Package durable has what keeps the files of the data folder usable: after a
// power cut, and for whoever they belong to, and nobody else.
package durable

import (
	"errors"
	"os"
	"syscall"
)

// SyncFolder makes a folder's entries durable: files that were made, linked or
// renamed in it are there after a power cut. Where a file system cannot, as some
// network ones, it does nothing.
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

// SameOwner gives a new file to its folder's owner, when root made it: a command
// that root runs on the data folder leaves nothing that the dispatcher, which runs
// as another user, cannot open.
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
	// Where all belongs to one user, as on some network file systems, nothing
	// can be given away, nor need it be.
	owner, maker := there.Sys().(*syscall.Stat_t), here.Sys().(*syscall.Stat_t)
	if owner.Uid == maker.Uid && owner.Gid == maker.Gid {
		return nil
	}
	return file.Chown(int(owner.Uid), int(owner.Gid))
}

// Package durable has what makes changes to files outlive a power cut.
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

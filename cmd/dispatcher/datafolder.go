package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/flockofbirds/fob/internal/audit"
	"github.com/flockofbirds/fob/internal/durable"
)

// In the data folder, unless other settings say so.
const (
	secretKeyName = "secret.key"
	socketsName   = "sockets"
)

// ownData returns the absolute path of a data folder. It fails where others than
// its owner can change it, or what is in it: they could put a control socket of
// their own there, and be told secrets. One that is not there will be ours.
func ownData(data string) (string, error) {
	data, err := filepath.Abs(data)
	if err != nil {
		return "", fmt.Errorf("FOB_DATA: %w", err)
	}
	owner, err := durable.Guard(data)
	for _, file := range []string{databaseName, audit.Name, secretKeyName, socketsName} {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			_, err = durable.Guard(filepath.Join(data, file), owner)
		}
	}
	return data, guarded("FOB_DATA", err)
}

// ownPlaces is ownData for all places that a dispatcher uses.
func (c *Config) ownPlaces() error {
	if _, err := ownData(c.Data); err != nil {
		return err
	}
	_, err := durable.Guard(c.Sockets)
	if err := guarded("FOB_SOCKETS", err); err != nil {
		return err
	}
	_, err = durable.Guard(c.KeyFile)
	return guarded("FOB_KEY_FILE", err)
}

// guarded names the setting in an error of durable.Guard's, but for that there is
// nothing yet.
func guarded(setting string, err error) error {
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("%s: %w", setting, err)
}

// folderIdentity tells a data folder from a copy of it, by whatever path, and from
// whatever container, it is looked at: its device and inode.
func folderIdentity(data string) (string, error) {
	info, err := os.Stat(data)
	if err != nil {
		return "", fmt.Errorf("FOB_DATA: %w", err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%x-%x", stat.Dev, stat.Ino), nil
}

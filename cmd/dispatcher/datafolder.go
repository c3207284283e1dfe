package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/flockofbirds/fob/internal/audit"
	"github.com/flockofbirds/fob/internal/durable"
)

// Where things are in the data folder unless settings say otherwise.
const (
	secretKeyName = "secret.key"
	socketsName   = "sockets"
)

// ownData returns the absolute path of a data folder. It fails when somebody other than
// the owner can change the folder or what is in it: they could plant a control socket
// there and be told secrets. A folder that does not exist yet passes, because we shall
// create it.
func ownData(data string) (string, error) {
	data, _, err := guardData(data)
	return data, err
}

// guardData does what ownData does, and also returns the folder's owner.
func guardData(data string) (path string, owner int, err error) {
	data, err = filepath.Abs(data)
	if err != nil {
		return "", 0, fmt.Errorf("FOB_DATA: %w", err)
	}
	owner, err = durable.Guard(data)
	for _, file := range []string{databaseName, audit.Name, audit.OldName, secretKeyName, socketsName} {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			_, err = durable.Guard(filepath.Join(data, file), owner)
		}
	}
	return data, owner, guarded("FOB_DATA", err)
}

// ownPlaces checks every place that a dispatcher uses, as ownData does. What is below
// the data folder belongs to the folder's owner; other places may be another user's.
func (c *Config) ownPlaces() error {
	data, owner, err := guardData(c.Data)
	if err != nil {
		return err
	}
	for _, place := range []struct{ setting, path, usual string }{
		{"FOB_SOCKETS", c.Sockets, socketsName},
		{"FOB_KEY_FILE", c.KeyFile, secretKeyName},
	} {
		var err error
		switch {
		case place.path == filepath.Join(data, place.usual): // checked already
		case strings.HasPrefix(place.path, data+"/"):
			_, err = durable.Guard(place.path, owner)
		default:
			_, err = durable.Guard(place.path)
		}
		if err := guarded(place.setting, err); err != nil {
			return err
		}
	}
	return nil
}

// guarded adds the setting's name to an error of durable.Guard. A place that does not
// exist yet is no error.
func guarded(setting string, err error) error {
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("%s: %w", setting, err)
}

// folderIdentity returns the device and inode of a data folder. They tell the folder
// from a copy of it, whichever path or container it is looked at from.
func folderIdentity(data string) (string, error) {
	info, err := os.Stat(data)
	if err != nil {
		return "", fmt.Errorf("FOB_DATA: %w", err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%x-%x", stat.Dev, stat.Ino), nil
}

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

// In the data folder, unless other settings say so.
const (
	secretKeyName = "secret.key"
	socketsName   = "sockets"
)

// ownData returns the absolute path of a data folder. It fails where others than
// its owner can change it, or what is in it: they could put a control socket of
// their own there, and be told secrets. One that is not there will be ours.
func ownData(data string) (string, error) {
	data, _, err := guardData(data)
	return data, err
}

// guardData is ownData, and tells whose the folder is, too.
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

// ownPlaces is ownData for all places that a dispatcher uses. Whoever has the data
// folder has what is below it, too; what is elsewhere may be another user's.
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
		case place.path == filepath.Join(data, place.usual): // has just been looked at
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

package docker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/flockofbirds/fob/internal/sandbox"
)

// maxSocketPath is the longest path that sockaddr_un holds on Linux, without the final
// NUL.
const maxSocketPath = 107

// socketDir is a directory with a folder for each sandbox, named AVIARY-ID. Aviaries
// may share the directory; none removes another's folders.
type socketDir struct {
	path   string // as we see it
	source string // as the Docker engine sees it
	prefix string // of our folders' names
	owner  *owner // the first owner that we saw
}

// owner is the user and the group that own a folder.
type owner struct{ uid, gid uint32 }

func newSocketDir(path, aviary string) (*socketDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	d := &socketDir{path: path, source: path, prefix: aviary + "-"}
	if n := len(d.socket("0123456789abcdef")); n > maxSocketPath {
		return nil, fmt.Errorf("the sockets in %s would have paths of %d bytes, and a Unix socket's has at most %d: set FOB_SOCKETS to a folder with a path that is %d bytes shorter",
			path, n, maxSocketPath, n-maxSocketPath)
	}
	_, err = d.ensure()
	return d, err
}

// ensure creates the directory if it is missing, which it reports, and closes it to
// others. Somebody may remove it or create it anew, with other permissions, at any
// time.
func (d *socketDir) ensure() (made bool, err error) {
	info, err := os.Stat(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(d.path, 0o700); err != nil {
			return false, fmt.Errorf("%w: making it: %w; set FOB_SOCKETS to one that can be made", sandbox.ErrNoFolder, err)
		}
		made = true
		info, err = os.Stat(d.path)
	}
	if err != nil {
		return made, fmt.Errorf("%w: %w", sandbox.ErrNoFolder, err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return made, fmt.Errorf("%w: %s is not a folder; remove it, or set FOB_SOCKETS to another", sandbox.ErrNoFolder, d.path)
	case stat.Nlink == 0: // it has no name any more; a mount keeps it
		return made, fmt.Errorf("%w: what is mounted at %s was removed outside of the container that this runs in: start that container again", sandbox.ErrNoFolder, d.path)
	}
	// An owner could open it to others, so it must keep its first owner.
	if owner := (owner{stat.Uid, stat.Gid}); d.owner == nil {
		d.owner = &owner
	} else if *d.owner != owner {
		if err := os.Chown(d.path, int(d.owner.uid), int(d.owner.gid)); err != nil {
			return made, fmt.Errorf("%w: it was made anew by user %d: %w; remove it", sandbox.ErrNoFolder, stat.Uid, err)
		}
	}
	// While a driver creates its socket, its folder is open to all. The mode of the
	// directory keeps other users of the machine out.
	if info.Mode() == fs.ModeDir|0o700 {
		return made, nil
	}
	if err := os.Chmod(d.path, 0o700); err != nil {
		return made, fmt.Errorf("%w: closing it to others: %w; set FOB_SOCKETS to one of your own", sandbox.ErrNoFolder, err)
	}
	return made, nil
}

func (d *socketDir) folder(id string) string { return filepath.Join(d.path, d.prefix+id) }
func (d *socketDir) socket(id string) string { return filepath.Join(d.folder(id), sandbox.SocketName) }

// engineFolder returns the Docker engine's path of a sandbox's folder.
func (d *socketDir) engineFolder(id string) string { return filepath.Join(d.source, d.prefix+id) }

// open creates a sandbox's folder, in which its driver can create a socket.
func (d *socketDir) open(id string) error {
	folder := d.folder(id)
	if err := os.Mkdir(folder, 0o777); err != nil {
		return fmt.Errorf("%w: making one for a sandbox: %w", sandbox.ErrNoFolder, err)
	}
	return os.Chmod(folder, 0o777) // regardless of the umask
}

// seal makes the folder read-only for everybody but us, its owner. Connecting to the
// sockets stays possible.
func (d *socketDir) seal(id string) error { return os.Chmod(d.folder(id), 0o755) }

// clear removes a sandbox's folder. Its contents may belong to the driver's user;
// owning the folder is enough to remove them.
func (d *socketDir) clear(id string) error {
	folder := d.folder(id)
	err := os.Chmod(folder, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = os.RemoveAll(folder)
	}
	if err != nil {
		return fmt.Errorf("clearing a sandbox's socket folder: %w", err)
	}
	return nil
}

// list returns the IDs of the sandboxes that have a folder.
func (d *socketDir) list() ([]string, error) {
	entries, err := os.ReadDir(d.path)
	if errors.Is(err, fs.ErrNotExist) { // then it has no folders
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing socket folders: %w", err)
	}
	var ids []string
	for _, entry := range entries {
		if id, ours := strings.CutPrefix(entry.Name(), d.prefix); ours && sandbox.IsID(id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// purge removes the folders of all sandboxes.
func (d *socketDir) purge() error {
	folders, err := d.list()
	if err != nil {
		return err
	}
	var all []error
	for _, id := range folders {
		all = append(all, d.clear(id))
	}
	return errors.Join(all...)
}

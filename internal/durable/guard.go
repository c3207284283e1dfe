package durable

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// maxLinks is how many symbolic links the kernel follows in a path.
const maxLinks = 40

// Guard returns the user ID of the owner of the file or folder at path. It fails, and
// says what to run, if others can change it or put something else in its place. The
// mode of path, and of each folder on the way to it, links followed, must not let
// others write. Each of them must belong to root, to this user, or to one of owners.
// Root, if given no owners, trusts whoever owns path, such as the user whose folder is
// mounted in a container.
//
// The error wraps fs.ErrNotExist if path does not exist and the existing part of the
// way to it is safe.
func Guard(path string, owners ...int) (owner int, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return 0, err
	}
	trusted := append([]int{0, os.Geteuid()}, owners...)
	if os.Geteuid() == 0 && len(owners) == 0 {
		if info, err := os.Stat(path); err == nil {
			trusted = append(trusted, ownerOf(info))
		}
	}
	at, rest, links := "/", split(path), 0
	for {
		info, err := os.Lstat(at)
		if err != nil {
			return 0, err
		}
		owner = ownerOf(info)
		if !slices.Contains(trusted, owner) && !unmapped(owner) {
			return 0, fmt.Errorf("%s belongs to the user with the ID %d, who could put something else there: %s", at, owner, ownAdvice(path, at, len(rest) > 0 || info.Mode()&fs.ModeSymlink != 0, trusted))
		}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(at)
			if err != nil {
				return 0, err
			}
			if links++; links > maxLinks {
				return 0, fmt.Errorf("%s: %w", path, syscall.ELOOP)
			}
			at = filepath.Dir(at)
			if filepath.IsAbs(target) {
				at = "/"
			}
			rest = append(split(target), rest...)
		case len(rest) == 0 && writable(info):
			return 0, fmt.Errorf("others may write to %s, its mode is %#o: chmod go-w %s, or %s", at, info.Mode().Perm(), at, elsewhere)
		case len(rest) == 0:
			return owner, nil
		case writable(info) && info.Mode()&fs.ModeSticky == 0: // in a folder like /tmp others may only add files
			return 0, fmt.Errorf("others may write to %s, its mode is %#o, and so could take away what is in it: chmod go-w %s, or %s",
				at, info.Mode().Perm(), at, elsewhere)
		}
		if len(rest) > 0 { // a link's target may be just /
			at, rest = filepath.Join(at, rest[0]), rest[1:]
		}
	}
}

// elsewhere is the other thing to do, because on some mounts the first has no effect.
const elsewhere = "use another folder; where that changes nothing, as in one shared from Windows or a Mac, a volume"

// ownAdvice says what to do about at, which belongs to a user who is not trusted. at is
// path, or a folder on the way to it. Such a folder may be that user's home, so the
// advice never takes it away from them.
func ownAdvice(path, at string, onWay bool, trusted []int) string {
	owner := trusted[len(trusted)-1]
	if !onWay {
		return fmt.Sprintf("chown %d %s, or %s", owner, at, elsewhere)
	}
	advice := "use a folder in one of root's"
	if owner != 0 {
		return fmt.Sprintf("%s, or in one of the user with the ID %d", advice, owner)
	}
	if _, err := os.Stat(path); err != nil {
		return fmt.Sprintf("%s, or make %s first, as the user whose it is to be", advice, path)
	}
	return advice
}

// writable reports whether users other than its owner may write to a file or folder. A
// group that has only the owner in it, as many systems give to each user, has the same
// number as the user.
func writable(info fs.FileInfo) bool {
	others := fs.FileMode(0o022)
	if stat := info.Sys().(*syscall.Stat_t); stat.Gid == stat.Uid {
		others = 0o002
	}
	return info.Mode().Perm()&others != 0
}

// unmapped reports whether a file's owner has no ID in our user namespace. The kernel
// shows all such owners as one user, and nobody in the namespace can be them. Where
// every user has an ID, that one is a user like others.
func unmapped(owner int) bool {
	const overflow = 65534
	if owner != overflow {
		return false
	}
	users, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && !slices.Equal(strings.Fields(string(users)), []string{"0", "0", "4294967295"})
}

func ownerOf(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

// split returns the names in a path.
func split(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(name string) bool { return name == "" || name == "." })
}

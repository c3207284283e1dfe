package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/flockofbirds/fob/internal/durable"
)

// controlName is the socket in the data folder on which the dispatcher that has
// its lock answers like on its address, but asks for no token: whoever may open
// it could as well read and change the folder itself.
const controlName = "control.sock"

// maxSocketPath is how long a path a Unix socket's address holds, in bytes.
const maxSocketPath = 107

// listenControl opens the control socket. The caller has the folder's lock, so
// one that is there is a dead dispatcher's.
func listenControl(data string) (net.Listener, error) {
	path := filepath.Join(data, controlName)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the control socket: %w", err)
	}
	short, done, err := shortPath(path)
	if err != nil {
		return nil, fmt.Errorf("the control socket: %w", err)
	}
	defer done()
	private := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		// Before it is bound, so that it is never open to others.
		return errors.Join(c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }), err)
	}}
	listener, err := private.Listen(context.Background(), "unix", short)
	if err != nil {
		return nil, fmt.Errorf("the control socket: %w", err)
	}
	// The path is the next dispatcher's to clear away, for by the time that we
	// close this it may be that one's.
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	return listener, nil
}

// dialControl connects to the control socket of a data folder, unless others than
// its owner could have put one there, or listen on it. The error wraps
// fs.ErrNotExist or syscall.ECONNREFUSED when no dispatcher has it open.
func dialControl(ctx context.Context, data string) (net.Conn, error) {
	owner, err := durable.Guard(data)
	if err != nil {
		return nil, err
	}
	short, done, err := shortPath(filepath.Join(data, controlName))
	if err != nil {
		return nil, err
	}
	defer done()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", short)
	if err != nil {
		return nil, err
	}
	if err := checkPeer(conn, owner); err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s: %w", filepath.Join(data, controlName), err)
	}
	return conn, nil
}

// shortPath returns a path for a socket that fits its address: a longer one
// leads through the open folder.
func shortPath(path string) (short string, done func(), err error) {
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	return filepath.Join("/proc/self/fd", strconv.Itoa(int(folder.Fd())), filepath.Base(path)), func() { folder.Close() }, nil
}

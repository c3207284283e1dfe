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

// controlName is the control socket in the data folder. The dispatcher that holds the
// folder's lock answers on it as on its address, but asks for no token: whoever can
// open the socket can read and change the folder anyway.
const controlName = "control.sock"

// maxSocketPath is the longest path that fits a Unix socket's address, in bytes.
const maxSocketPath = 107

// listenControl opens the control socket. The caller holds the folder's lock, so a
// socket that is already there belongs to a dead dispatcher.
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
		// Set the mode before the bind, so that the socket is never open to others.
		return errors.Join(c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }), err)
	}}
	listener, err := private.Listen(context.Background(), "unix", short)
	if err != nil {
		return nil, fmt.Errorf("the control socket: %w", err)
	}
	// Do not unlink the socket on close: by then it may be the next dispatcher's. That
	// one clears away what it finds.
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	return listener, nil
}

// dialControl connects to the control socket of a data folder. It refuses when somebody
// other than the folder's owner could have created the socket or listens on it. The
// error wraps fs.ErrNotExist or syscall.ECONNREFUSED when no dispatcher listens.
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

// shortPath returns a path for a socket that fits its address. A path that is too long
// is replaced by one through the open folder.
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

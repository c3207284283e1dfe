package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
)

// ProxyName is the file name of the socket by which a sandbox reaches its proxy. It is
// in the same folder as the driver's socket. It is as long as SocketName, so that its
// path fits, too.
const ProxyName = "net.sock"

// LogName is the file name of the socket to which a driver sends the function's log. It
// is there as ProxyName is.
const LogName = "log.sock"

// ListenUnix listens on a Unix socket at path, for an engine's Listen. It removes a
// socket that an earlier dispatcher left there.
func ListenUnix(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing an old socket: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listening in a sandbox's folder: %w", err)
	}
	// The folder goes with the sandbox. By then a later dispatcher may listen at this
	// path.
	listener.SetUnlinkOnClose(false)
	// Connecting needs permission to write. The folder keeps others out.
	if err := os.Chmod(path, 0o666); err != nil {
		listener.Close()
		return nil, fmt.Errorf("opening a socket to the driver's user: %w", err)
	}
	return listener, nil
}

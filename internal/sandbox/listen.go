package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
)

// ProxyName is the file name of the socket by which a sandbox reaches its proxy,
// in the folder of the driver's own. It is as long as SocketName, so that the
// path is not too long either.
const ProxyName = "net.sock"

// ListenUnix listens on a Unix socket at path for an engine's Listen. What an
// earlier dispatcher left there goes.
func ListenUnix(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing an old socket: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listening in a sandbox's folder: %w", err)
	}
	// The folder goes with the sandbox; and by then a later dispatcher may listen there.
	listener.SetUnlinkOnClose(false)
	// To connect one has to be allowed to write; the folder keeps others out.
	if err := os.Chmod(path, 0o666); err != nil {
		listener.Close()
		return nil, fmt.Errorf("opening a socket to the driver's user: %w", err)
	}
	return listener, nil
}

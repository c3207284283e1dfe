package main

import (
	"fmt"
	"net"
	"syscall"
)

// checkPeer fails unless the process that listens at the other end of a Unix socket
// runs as root or as owner.
func checkPeer(conn net.Conn, owner int) error {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return err
	}
	var peer *syscall.Ucred
	if controlErr := raw.Control(func(fd uintptr) {
		peer, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err == nil {
		err = controlErr
	}
	if err != nil {
		return fmt.Errorf("asking who listens there: %w", err)
	}
	if uid := int(peer.Uid); uid != 0 && uid != owner {
		return fmt.Errorf("process %d of the user with the ID %d listens there and not the folder's owner, so it is told nothing: remove the socket, and start the dispatcher again", peer.Pid, uid)
	}
	return nil
}

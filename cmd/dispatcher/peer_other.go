//go:build !linux

package main

import "net"

// checkPeer works on Linux alone. Elsewhere the check of the folder has to do.
func checkPeer(net.Conn, int) error { return nil }

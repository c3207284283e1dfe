//go:build !linux

package main

import "net"

// checkPeer is for Linux alone; elsewhere the folder is what is gone by.
func checkPeer(net.Conn, int) error { return nil }

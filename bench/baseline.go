package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"

	"github.com/flockofbirds/fob/internal/client"
)

// serveBaseline runs one of the programs with which the dispatcher is compared.
func serveBaseline(name, socket, addr string) error {
	switch name {
	case "proxy":
		return serveProxy(socket, addr)
	case "forwarder":
		return serveForwarder(socket, addr)
	}
	return fmt.Errorf("-serve: there are proxy and forwarder, not %q", name)
}

// baseline is such a program in a process of its own, like the dispatcher.
type baseline struct {
	url string
	cmd *exec.Cmd
}

func startBaseline(name, socket string) (*baseline, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	addr, err := client.FreeAddr()
	if err != nil {
		return nil, err
	}
	b := &baseline{url: "http://" + addr, cmd: exec.Command(self, "-serve", name, "-socket", socket, "-addr", addr)}
	b.cmd.Stderr = os.Stderr
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			return b, nil
		}
	}
	b.stop()
	return nil, fmt.Errorf("the %s does not listen on %s", name, addr)
}

func (b *baseline) stop() {
	if b != nil {
		b.cmd.Process.Kill()
		b.cmd.Wait()
	}
}

package sandboxtest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Cable is a connection to an engine's socket that a test can cut.
type Cable struct {
	Path   string // where it listens
	Target string // the engine's socket

	all sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil while it is cut
	conns    []net.Conn
}

// Join makes the engine reachable again.
func (c *Cable) Join(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("unix", c.Path)
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.listener = listener
	c.mu.Unlock()
	c.all.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("unix", c.Target)
			if err != nil {
				near.Close()
				continue
			}
			c.mu.Lock()
			if c.listener != listener {
				near.Close()
				far.Close()
			}
			c.conns = append(c.conns, near, far)
			c.mu.Unlock()
			c.all.Go(func() { io.Copy(near, far); near.Close() })
			c.all.Go(func() { io.Copy(far, near); far.Close() })
		}
	})
}

// Cut ends all connections and refuses new ones.
func (c *Cable) Cut() {
	c.mu.Lock()
	if c.listener != nil {
		c.listener.Close()
		c.listener = nil
	}
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
	c.mu.Unlock()
	c.all.Wait()
}

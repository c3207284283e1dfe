package egress

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// errTooMany is the error of a connection beyond MaxConnections.
var errTooMany = errors.New("too many connections")

// dial connects to a target. Each address is checked at the moment when it is dialled,
// so it does not matter what the name resolved to before, or resolves to later.
func (p *Proxy) dial(ctx context.Context, to target) (net.Conn, error) {
	if p.open.Add(1) > p.most {
		p.open.Add(-1)
		return nil, errTooMany
	}
	ctx, cancel := context.WithTimeout(ctx, p.limits.dial)
	defer cancel()
	dialer := net.Dialer{
		Resolver: p.resolver,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			addr, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			return p.rule.check(addr.Addr())
		},
	}
	conn, err := dialer.DialContext(ctx, "tcp", to.String())
	if err != nil {
		p.open.Add(-1)
		return nil, err
	}
	return &counted{TCPConn: conn.(*net.TCPConn), open: &p.open}, nil
}

// dialForward connects to the target of a plain request. A pause ends the connection.
func (g *Gate) dialForward(address string) (net.Conn, error) {
	to, err := parseTarget(address, 0)
	if err != nil {
		return nil, err
	}
	conn, err := g.proxy.dial(g.ctx, to)
	if err != nil {
		return nil, err
	}
	return newPulse(g.proxy.limits.idle, conn).watch(conn), nil
}

// counted is a connection to the world that counts towards MaxConnections.
type counted struct {
	*net.TCPConn
	open *atomic.Int64
	once sync.Once
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.TCPConn.Close()
}

// pulse ends connections that belong together when no byte has passed on any of them
// for some time.
type pulse struct {
	conns []net.Conn

	mu   sync.Mutex
	idle time.Duration
	last time.Time
}

func newPulse(idle time.Duration, conns ...net.Conn) *pulse {
	p := &pulse{conns: conns, idle: idle}
	p.beat()
	return p
}

// beat notes that a byte passed. It moves the deadlines only now and then.
func (p *pulse) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); now.Sub(p.last) > p.idle/16 {
		p.last = now
		p.extend()
	}
}

// quicken shortens the time.
func (p *pulse) quicken(idle time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle, p.last = idle, time.Now()
	p.extend()
}

func (p *pulse) extend() {
	for _, conn := range p.conns {
		conn.SetDeadline(p.last.Add(p.idle))
	}
}

// watch returns a connection whose bytes are beats.
func (p *pulse) watch(conn net.Conn) net.Conn { return &watched{conn, p} }

// watched is a connection whose bytes are beats of a pulse.
type watched struct {
	net.Conn
	pulse *pulse
}

// Read implements net.Conn.
func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if n > 0 {
		w.pulse.beat()
	}
	return n, err
}

// Write implements net.Conn.
func (w *watched) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	if n > 0 {
		w.pulse.beat()
	}
	return n, err
}

// A buffer is what tunnels copy with.
type buffer [32 << 10]byte

// join passes bytes in both directions until both sides have ended, one breaks, or
// nothing comes for too long. It closes neither.
func (p *Proxy) join(client, remote net.Conn) {
	together := newPulse(p.limits.idle, client, remote)
	var both sync.WaitGroup
	pass := func(to, from net.Conn) {
		if err := copyAll(to, together.watch(from)); err != nil {
			client.Close()
			remote.Close()
			return
		}
		// One direction may end while the other goes on.
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		}
		together.quicken(p.limits.half)
	}
	both.Go(func() { pass(remote, client) })
	pass(client, remote)
	both.Wait()
}

func copyAll(to io.Writer, from io.Reader) error {
	var space buffer
	for {
		n, err := from.Read(space[:])
		if n > 0 {
			if _, err := to.Write(space[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// bounded is a listener with a bound on open connections. More wait.
type bounded struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newBounded(listener net.Listener, most int) *bounded {
	return &bounded{Listener: listener, slots: make(chan struct{}, most), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.slots <- struct{}{}:
	case <-b.closed:
		return nil, net.ErrClosed
	}
	conn, err := b.Listener.Accept()
	if err != nil {
		<-b.slots
		return nil, err
	}
	return &slotted{Conn: conn, free: sync.OnceFunc(func() { <-b.slots })}, nil
}

// Close implements net.Listener.
func (b *bounded) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.Listener.Close()
}

// slotted is a connection that occupies one of the slots.
type slotted struct {
	net.Conn
	free func()
}

// Close implements net.Conn.
func (s *slotted) Close() error {
	defer s.free()
	return s.Conn.Close()
}

// CloseWrite closes the sending side, if the connection can do that.
func (s *slotted) CloseWrite() error {
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Package front is the HTTP server in front of the API. Calls are short, and
// net/http's own cost is more than that of dispatching them, so plain requests
// are read and answered here: one goroutine a connection, one read and one
// write a request. Whatever is not plain (see head.go), and with it all that is
// hard about HTTP, goes to net/http, connection and all. docs/inside/benchmarks.md has
// what that bought.
package front

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flockofbirds/fob/internal/buffer"
)

// Server serves HTTP/1.1 on one listener.
type Server struct {
	// HTTP serves what is not plain. Its Handler, IdleTimeout and ErrorLog are
	// for plain requests as well; the first two must be set.
	HTTP *http.Server

	// Prefix is how the paths begin that are served as plain requests. What
	// follows it in those has neither slashes nor percent signs.
	Prefix string

	// Refuse answers what net/http cannot read, when it is set, and, with status
	// 503, a head for which Buffers has no room.
	Refuse Refuse

	// MaxConns is how many connections there may be at a time, both kinds
	// together; 0 is no bound. One more is sent Full, which is a whole answer,
	// and closed.
	MaxConns int
	Full     []byte

	Buffers *buffer.Budget // for connections; nil for no bound

	mu       sync.Mutex
	listener net.Listener
	handler  http.Handler // of plain requests
	conns    map[*conn]struct{}
	rest     *handover // to HTTP

	open     atomic.Int64 // connections
	refusing atomic.Int64 // those that are just being sent Full
	draining atomic.Bool
	clock    clock
}

// Serve takes connections until Shutdown or Close, and then returns
// http.ErrServerClosed, as net/http does.
func (s *Server) Serve(listener net.Listener) error {
	s.mu.Lock()
	if s.draining.Load() {
		s.mu.Unlock()
		return http.ErrServerClosed
	}
	s.listener, s.handler = listener, s.HTTP.Handler
	s.conns = make(map[*conn]struct{})
	s.rest = &handover{addr: listener.Addr(), conns: make(chan net.Conn), closed: make(chan struct{})}
	s.mu.Unlock()
	watchSpoken(s.HTTP)
	watchHeads(s.HTTP)
	served := make(chan error, 1)
	go func() { served <- s.HTTP.Serve(s.rest) }()
	wait := firstWait
	for {
		nc, err := listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				if !s.draining.Load() { // by somebody else than Shutdown and Close, which end net/http's part as well
					s.rest.Close()
				}
				return <-served
			}
			// Out of file descriptors, most likely: some come free again.
			s.logf("front: cannot accept: %v; trying again in %v", err, wait)
			time.Sleep(wait)
			wait = min(2*wait, time.Second)
			continue
		}
		wait = firstWait
		if n := s.open.Add(1); s.MaxConns > 0 && n > int64(s.MaxConns) {
			s.open.Add(-1)
			s.refuse(nc)
			continue
		}
		s.Buffers.Force(buffer.Connection) // of which MaxConns is the bound
		c := newConn(s, &counted{Conn: nc, server: s})
		if !s.add(c) {
			c.nc.Close()
			continue
		}
		go c.serve()
	}
}

const firstWait = 5 * time.Millisecond

// maxRefusing is of how many connections above MaxConns it is awaited at a time that
// they have taken Full. The others are closed without a word.
const maxRefusing = 64

// refuse sends Full and closes the connection.
func (s *Server) refuse(nc net.Conn) {
	if s.refusing.Add(1) > maxRefusing {
		s.refusing.Add(-1)
		nc.Close()
		return
	}
	go func() {
		defer s.refusing.Add(-1)
		defer nc.Close()
		lastWord(nc, s.Full)
	}()
}

// logf writes to where net/http does.
func (s *Server) logf(format string, args ...any) {
	if s.HTTP.ErrorLog != nil {
		s.HTTP.ErrorLog.Printf(format, args...)
	} else {
		log.Printf(format, args...)
	}
}

// add keeps account of a connection, unless the server takes no more.
func (s *Server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Load() {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// shutdownPoll is how often Shutdown looks whether all requests are answered.
const shutdownPoll = 5 * time.Millisecond

// Shutdown takes no more connections, closes idle ones, and returns when all
// requests have been answered, or with ctx's error when that ends first.
func (s *Server) Shutdown(ctx context.Context) error {
	s.drain()
	rest := make(chan error, 1)
	go func() { rest <- s.HTTP.Shutdown(ctx) }()
	poll := time.NewTicker(shutdownPoll)
	defer poll.Stop()
	for s.closeIdle() > 0 {
		select {
		case <-ctx.Done():
			<-rest
			return ctx.Err()
		case <-poll.C:
		}
	}
	return <-rest
}

// Close closes everything at once.
func (s *Server) Close() error {
	s.drain()
	s.mu.Lock()
	for c := range s.conns {
		c.nc.Close()
	}
	s.mu.Unlock()
	return s.HTTP.Close()
}

// drain takes no more connections.
func (s *Server) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining.Store(true)
	if s.listener != nil {
		s.listener.Close()
	}
}

// closeIdle tells connections that wait for a request to end, and returns how
// many there still are.
func (s *Server) closeIdle() (open int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if !c.nudged && !c.busy.Load() {
			c.nudged = true
			c.nc.SetReadDeadline(time.Unix(1, 0))
		}
	}
	return len(s.conns)
}

// spare keeps closeIdle, which may have taken a connection for idle a moment
// ago, from a request that has begun: after it no deadline is set but its own.
func (s *Server) spare(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.nudged = true
}

// handover is the listener from which net/http takes the connections that it is
// given.
type handover struct {
	addr   net.Addr
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

// give hands a connection over, and closes it when nobody takes it any more.
func (h *handover) give(nc net.Conn) {
	select {
	case h.conns <- nc:
	case <-h.closed:
		nc.Close()
	}
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case nc := <-h.conns:
		return nc, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *handover) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

func (h *handover) Addr() net.Addr { return h.addr }

// counted is a connection that counts as open until it is closed. It can do what
// net/http and handlers ask of a *net.TCPConn.
type counted struct {
	net.Conn
	once   sync.Once
	server *Server
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.once.Do(func() {
		c.server.open.Add(-1)
		c.server.Buffers.Give(buffer.Connection)
	})
	return c.Conn.Close()
}

// CloseWrite ends what is sent: net/http lets a client read its answer to a
// request that is still coming.
func (c *counted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SetLinger is for who ends a connection with a reset.
func (c *counted) SetLinger(seconds int) error {
	if lingers, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return lingers.SetLinger(seconds)
	}
	return errors.ErrUnsupported
}

// Package front is the HTTP server in front of the API. Calls are short, and net/http
// costs more than dispatching them. So front reads and answers plain requests itself:
// one goroutine a connection, one read and one write a request. Every other request
// (see head.go), and with it everything that is hard about HTTP, goes to net/http
// together with its connection. With 16 clients that is × 1.2 of the calls a second of the
// same program on net/http alone (November 2026; the bench's section against). Below × 1.1
// it is to go.
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
	// HTTP serves requests that are not plain. Its Handler, IdleTimeout and ErrorLog
	// are used for plain requests, too; Handler and IdleTimeout must be set.
	HTTP *http.Server

	// Prefix begins the paths that are served as plain requests. The rest of such a
	// path has neither slashes nor percent signs.
	Prefix string

	// Refuse, if set, answers requests that net/http cannot read. With status 503 it
	// answers those for whose head Buffers has no room.
	Refuse Refuse

	// MaxConns bounds the connections of both kinds together; 0 means no bound. Any
	// further connection is sent Full, which is a whole answer, and closed.
	MaxConns int
	Full     []byte

	Buffers *buffer.Budget // for connections; nil for no bound

	mu       sync.Mutex
	listener net.Listener
	handler  http.Handler // of plain requests
	conns    map[*conn]struct{}
	rest     *handover // hands connections to HTTP

	open     atomic.Int64 // connections
	refusing atomic.Int64 // connections that are being sent Full
	draining atomic.Bool
	clock    clock
}

// Serve accepts connections until Shutdown or Close, and then returns
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
				if !s.draining.Load() { // something other than Shutdown and Close closed it; they also end net/http's part
					s.rest.Close()
				}
				return <-served
			}
			// The process is probably out of file descriptors. Some will come free.
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
		s.Buffers.Force(buffer.Connection) // MaxConns bounds them
		c := newConn(s, &counted{Conn: nc, server: s})
		if !s.add(c) {
			c.nc.Close()
			continue
		}
		go c.serve()
	}
}

const firstWait = 5 * time.Millisecond

// maxRefusing bounds how many connections above MaxConns are sent Full at a time.
// Others are closed at once.
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

// logf logs where net/http logs.
func (s *Server) logf(format string, args ...any) {
	if s.HTTP.ErrorLog != nil {
		s.HTTP.ErrorLog.Printf(format, args...)
	} else {
		log.Printf(format, args...)
	}
}

// add registers a connection, unless the server accepts no more.
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

// shutdownPoll is how often Shutdown checks whether all requests are answered.
const shutdownPoll = 5 * time.Millisecond

// Shutdown stops accepting connections, closes idle ones, and returns when all requests
// have been answered. If ctx ends first, it returns ctx's error.
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

// drain stops accepting connections.
func (s *Server) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining.Store(true)
	if s.listener != nil {
		s.listener.Close()
	}
}

// closeIdle tells connections that wait for a request to end. It returns how many
// connections are still open.
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

// spare protects a request that has just begun from closeIdle, which may have taken its
// connection for idle. After spare, only the connection itself sets deadlines.
func (s *Server) spare(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.nudged = true
}

// handover is the listener from which net/http accepts the connections that it is
// given.
type handover struct {
	addr   net.Addr
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

// give hands a connection over. It closes the connection if nobody accepts it any more.
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

// counted is a connection that counts as open until it is closed. It has the methods of
// a *net.TCPConn that net/http and handlers use.
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

// CloseWrite closes the sending side. With it net/http lets a client read the answer to
// a request that is still coming.
func (c *counted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SetLinger is for ending a connection with a reset.
func (c *counted) SetLinger(seconds int) error {
	if lingers, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return lingers.SetLinger(seconds)
	}
	return errors.ErrUnsupported
}

package front

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// conn is a client's connection for as long as its requests are plain.
type conn struct {
	server *Server
	nc     *counted
	addr   string
	alive  time.Time // when the deadlines were last set
	begun  bool      // it has begun to wait for the first request

	// buf[:end] has been read, and buf[:at] dealt with.
	buf     []byte
	at, end int

	busy   atomic.Bool // with a request
	nudged bool        // told to end when idle; the server's mu guards it

	// These are reused for each request.
	head     head
	watch    *watch
	request  *http.Request
	url      url.URL
	body     body
	response response
}

// body is the body of a request. It has what came with the head, and reads the rest
// from the connection when the handler asks for it. So refusing a request because of
// its head costs little.
type body struct {
	c     *conn
	held  []byte // what came with the head
	at    int    // how much of held has been read
	left  int    // how many bytes are still to come
	begun bool   // reading from the connection has begun
	timed bool   // a deadline is set
	err   error  // why no more come
}

func (b *body) set(held []byte, left int) {
	b.held, b.at, b.left, b.begun, b.timed, b.err = held, 0, left, false, false, nil
}

// Held returns the whole body without copying it, or nil if some of it is still to
// come. The result is valid until the handler returns.
func (b *body) Held() []byte {
	if b.left > 0 || b.begun {
		return nil
	}
	return b.held
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	switch {
	case b.at < len(b.held):
		n := copy(p, b.held[b.at:])
		b.at += n
		return n, nil
	case b.err != nil:
		return 0, b.err
	case b.left == 0:
		return 0, io.EOF
	}
	if !b.begun {
		b.begun = true
		if !b.timed {
			b.setDeadline(time.Now().Add(bodyPatience))
		}
	}
	n, err := b.c.nc.Read(p[:min(len(p), b.left)])
	b.left -= n
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	b.err = err
	if n > 0 {
		err = nil
	}
	return n, err
}

// setDeadline sets the deadline for the rest of the body.
func (b *body) setDeadline(t time.Time) {
	b.timed = true
	b.c.ownDeadline()
	b.c.nc.SetReadDeadline(t)
}

// skip reads what the handler did not read, and reports whether all of it came.
func (b *body) skip() bool {
	if b.left > 0 {
		b.setDeadline(time.Now().Add(bodyPatience))
		b.at = len(b.held)
	}
	for b.left > 0 && b.err == nil {
		b.Read(b.c.buf)
	}
	return b.err == nil
}

// Close implements io.Closer.
func (*body) Close() error { return nil }

func newConn(s *Server, nc *counted) *conn {
	c := &conn{server: s, nc: nc, addr: nc.RemoteAddr().String(), buf: make([]byte, maxHead)}
	c.head.header = make(http.Header, 8)
	c.body.c = c
	c.response = response{c: c, header: make(http.Header, 8)}
	c.renew()
	return c
}

// renew replaces the parts of a request that others may hold on to.
func (c *conn) renew() {
	c.watch = &watch{c: c}
	c.request = new(http.Request).WithContext(c.watch)
}

// serve answers requests until the connection ends, or until a request is not plain.
func (c *conn) serve() {
	if c.turns() {
		c.nc.SetDeadline(time.Time{})
		c.server.remove(c)
		c.server.rest.give(&replay{
			counted: c.nc, said: spoken{Conn: c.nc, refuse: c.server.Refuse}, read: c.unread(), patience: c.server.HTTP.IdleTimeout,
		})
		return
	}
	c.nc.Close()
	c.server.remove(c)
}

// turns answers requests, and reports whether net/http has to take over the connection.
func (c *conn) turns() (handOver bool) {
	for {
		if c.at == c.end && !c.read() {
			return false
		}
		c.busy.Store(true)
		if c.server.draining.Load() {
			c.server.spare(c)
		}
		end := headEnd(c.buf[c.at:c.end])
		if end < 0 || !c.head.parse(string(c.buf[c.at:c.at+end-len(endOfHead)]), c.server.Prefix) {
			if c.server.Refuse != nil && isTLS(c.buf[c.at:c.end]) {
				c.nc.Write(c.server.Refuse(http.StatusBadRequest, "it is TLS, and here is plain HTTP: write http:// for https://"))
				return false
			}
			return true
		}
		c.at += end
		c.takeBody()
		if !c.answer() {
			return false
		}
		c.busy.Store(false)
	}
}

// isTLS reports whether a client begins with a TLS handshake. net/http would wait for
// the end of its first line.
func isTLS(b []byte) bool { return len(b) > 1 && b[0] == 0x16 && b[1] == 3 }

// unread returns what has been read of a request that is not plain. Some clients send
// an empty line after a POST's body. net/http ignores up to that many bytes after a
// POST of its own, so they are left out here.
func (c *conn) unread() []byte {
	const forgiven = 4
	rest := c.buf[c.at:c.end]
	for n := 0; n < forgiven && c.head.method == http.MethodPost && len(rest) > 0 && (rest[0] == '\r' || rest[0] == '\n'); n++ {
		rest = rest[1:]
	}
	return rest
}

// grace is how long a connection that is told to end may still receive a request that
// was on its way.
const grace = 20 * time.Millisecond

// read waits for the next request.
func (c *conn) read() bool {
	if c.begun {
		c.stayAlive()
	} else {
		c.begun = true
		c.nc.SetDeadline(time.Now().Add(c.server.firstPatience()))
	}
	n, err := 0, error(net.ErrClosed)
	if !c.server.draining.Load() { // after setting the deadline, because Shutdown sets draining first and then its deadline
		n, err = c.nc.Read(c.buf)
	}
	if err != nil && c.server.draining.Load() {
		c.nc.SetReadDeadline(time.Now().Add(grace))
		n, err = c.nc.Read(c.buf)
	}
	c.at, c.end = 0, n
	return err == nil
}

// firstPatience is how long a client may take to send its first byte. As in net/http,
// it is shorter than the idle timeout.
func (s *Server) firstPatience() time.Duration {
	if d := s.HTTP.ReadHeaderTimeout; d > 0 {
		return min(d, s.HTTP.IdleTimeout)
	}
	return s.HTTP.IdleTimeout
}

// aliveStep is the precision of timeouts: deadlines are set again when they are off by
// this much, not for each request.
const aliveStep = time.Second

// stayAlive gives the client time for its next action.
func (c *conn) stayAlive() {
	if now := time.Now(); now.Sub(c.alive) > aliveStep {
		c.alive = now
		c.nc.SetDeadline(now.Add(c.server.HTTP.IdleTimeout))
	}
}

// ownDeadline says that somebody has set other deadlines than stayAlive's.
func (c *conn) ownDeadline() { c.alive = time.Time{} }

// bodyPatience is how long a client may take to send a body.
const bodyPatience = time.Minute

// takeBody sets the request's body, with as much of it as has come.
func (c *conn) takeBody() {
	length, have := max(0, c.head.length), c.buf[c.at:c.end]
	n := min(length, len(have))
	c.body.set(have[:n:n], length-n)
	c.at += n
}

// answer has the handler answer the request, and reports whether another request may
// follow on this connection.
func (c *conn) answer() (another bool) {
	h, r := &c.head, c.request
	c.url = url.URL{Path: h.path, RawQuery: h.query}
	r.Method, r.URL, r.RequestURI, r.Host, r.Header = h.method, &c.url, h.target, h.host, h.header
	r.Proto, r.ProtoMajor, r.ProtoMinor, r.RemoteAddr = "HTTP/1.1", 1, 1, c.addr
	r.ContentLength, r.Body = int64(max(0, h.length)), http.NoBody
	if h.length > 0 {
		r.Body = &c.body
	}
	c.response.reset()
	if !c.handle() {
		return false
	}
	gone := c.watch.end()
	if !c.response.finish() || gone || !c.body.skip() {
		return false
	}
	if c.at == c.end {
		c.at, c.end = 0, 0
	}
	return true
}

// handle calls the handler, and reports whether it returned normally.
func (c *conn) handle() (ended bool) {
	defer func() {
		if ended {
			return
		}
		c.watch.end()
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			c.server.logf("front: panic serving %s: %v\n%s", c.addr, p, debug.Stack())
		}
	}()
	c.server.handler.ServeHTTP(&c.response, c.request)
	return true
}

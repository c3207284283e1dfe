package front

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// conn is one client's connection, as long as its requests are plain.
type conn struct {
	server *Server
	nc     *counted
	addr   string
	alive  time.Time // when the deadlines were last set
	begun  bool      // to wait for the first request

	// What has been read is buf[:end]; the first at bytes have been dealt with.
	buf     []byte
	at, end int

	busy   atomic.Bool // with a request
	nudged bool        // told to end when idle; the server's mu guards it

	// Reused for each request.
	head     head
	watch    *watch
	request  *http.Request
	url      url.URL
	body     body
	response response
}

// body is a request's body that has been read already, or as much of it as came.
type body struct {
	bytes.Reader
	held []byte
	err  error // why there is no more of it
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF && b.err != nil {
		err = b.err
	}
	return n, err
}

// Held returns the whole body without copying it. It is valid until the
// handler returns.
func (b *body) Held() ([]byte, error) { return b.held, b.err }

// Close implements io.Closer.
func (*body) Close() error { return nil }

func (b *body) set(held []byte, err error) {
	b.held, b.err = held, err
	b.Reset(held)
}

func newConn(s *Server, nc *counted) *conn {
	c := &conn{server: s, nc: nc, addr: nc.RemoteAddr().String(), buf: make([]byte, maxHead)}
	c.head.header = make(http.Header, 8)
	c.response = response{c: c, header: make(http.Header, 8)}
	c.renew()
	return c
}

// renew makes the parts of a request that others may hold on to.
func (c *conn) renew() {
	c.watch = &watch{c: c}
	c.request = new(http.Request).WithContext(c.watch)
}

// serve answers requests until the connection ends, or has one that is not
// plain.
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

// turns answers requests, and reports whether the connection is now one for
// net/http.
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
			return true
		}
		c.at += end
		c.readBody()
		if !c.answer() {
			return false
		}
		c.busy.Store(false)
	}
}

// unread is what has been read of a request that is not plain. Some clients send
// an empty line behind a POST's body, which net/http forgives up to this length
// when it had the POST.
func (c *conn) unread() []byte {
	const forgiven = 4
	rest := c.buf[c.at:c.end]
	for n := 0; n < forgiven && c.head.method == http.MethodPost && len(rest) > 0 && (rest[0] == '\r' || rest[0] == '\n'); n++ {
		rest = rest[1:]
	}
	return rest
}

// grace is how long a connection that is told to end may still bring a request
// that was on its way.
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
	if !c.server.draining.Load() { // which is looked at after the deadline is set, as Shutdown sets one after that
		n, err = c.nc.Read(c.buf)
	}
	if err != nil && c.server.draining.Load() {
		c.nc.SetReadDeadline(time.Now().Add(grace))
		n, err = c.nc.Read(c.buf)
	}
	c.at, c.end = 0, n
	return err == nil
}

// firstPatience is how long a client may take to say anything at all. As with
// net/http that is less than it may be idle later on.
func (s *Server) firstPatience() time.Duration {
	if d := s.HTTP.ReadHeaderTimeout; d > 0 {
		return min(d, s.HTTP.IdleTimeout)
	}
	return s.HTTP.IdleTimeout
}

// aliveStep is how exactly connections are timed out: deadlines are set anew
// when they are off by that much, and not for each request.
const aliveStep = time.Second

// stayAlive gives the client time for what it is to do next.
func (c *conn) stayAlive() {
	if now := time.Now(); now.Sub(c.alive) > aliveStep {
		c.alive = now
		c.nc.SetDeadline(now.Add(c.server.HTTP.IdleTimeout))
	}
}

// ownDeadline says that stayAlive's deadlines are no longer those that are set.
func (c *conn) ownDeadline() { c.alive = time.Time{} }

// bodyPatience is how long a client may take to send a body.
const bodyPatience = time.Minute

// readBody reads what is missing of the request's body. It is the handler that
// says what is wrong when not all of it comes.
func (c *conn) readBody() {
	length, have := max(0, c.head.length), c.buf[c.at:c.end]
	if length <= len(have) {
		c.at += length
		c.body.set(have[:length], nil)
		return
	}
	whole := make([]byte, length)
	n := copy(whole, have)
	c.at, c.end = 0, 0
	c.ownDeadline()
	c.nc.SetReadDeadline(time.Now().Add(bodyPatience))
	more, err := io.ReadFull(c.nc, whole[n:])
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	c.body.set(whole[:n+more], err)
}

// answer has the handler answer the request, and reports whether another may
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
	if !c.response.finish() || gone || c.body.err != nil {
		return false
	}
	if c.at == c.end {
		c.at, c.end = 0, 0
	}
	return true
}

// handle calls the handler, and reports whether it came to an end.
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
	c.server.HTTP.Handler.ServeHTTP(&c.response, c.request)
	return true
}

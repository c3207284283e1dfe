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

// body is the body of a request: what came with its head, and then what is read
// from the connection once the handler asks for it. So whoever is refused for
// what the head says costs no more than that.
type body struct {
	c     *conn
	held  []byte // what came with the head
	at    int    // of held, has been read
	left  int    // bytes that are still to come
	begun bool   // to read them
	timed bool   // there is a deadline for it
	err   error  // why they do not come
}

func (b *body) set(held []byte, left int) {
	b.held, b.at, b.left, b.begun, b.timed, b.err = held, 0, left, false, false, nil
}

// Held returns the whole body without copying it, or nil when some of it is
// still to come. It is valid until the handler returns.
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

// setDeadline says until when the rest is to come.
func (b *body) setDeadline(t time.Time) {
	b.timed = true
	b.c.ownDeadline()
	b.c.nc.SetReadDeadline(t)
}

// skip reads what the handler did not want, and reports whether it came.
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

// isTLS reports whether a client begins with a TLS handshake. net/http would wait
// for the end of its first line.
func isTLS(b []byte) bool { return len(b) > 1 && b[0] == 0x16 && b[1] == 3 }

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

// takeBody finds the request's body, or as much of it as has come.
func (c *conn) takeBody() {
	length, have := max(0, c.head.length), c.buf[c.at:c.end]
	n := min(length, len(have))
	c.body.set(have[:n:n], length-n)
	c.at += n
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
	if !c.response.finish() || gone || !c.body.skip() {
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
	c.server.handler.ServeHTTP(&c.response, c.request)
	return true
}

package front

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"
)

// Refuse returns the whole answer, with its head, to a request that is refused before
// any handler sees it. why is net/http's reason, or "" if it gives none.
type Refuse func(status int, why string) []byte

// spoken is a connection of net/http on which net/http's own refusals are replaced by
// ours. net/http answers a request that it cannot read with plain text.
//
// Refusals are recognised by their bytes, and only where an answer begins. What a
// handler sends is never taken for one, because handlers' answers have other headers,
// and bodies come after these.
type spoken struct {
	net.Conn
	refuse    Refuse
	answering atomic.Bool // something has been sent since the last request ended
	full      atomic.Bool // the budget had no room for the request's head
}

// Write implements net.Conn.
func (s *spoken) Write(b []byte) (int, error) {
	if s.refuse == nil || s.answering.Swap(true) {
		return s.Conn.Write(b)
	}
	status, why, is := cannedRefusal(b)
	if !is {
		return s.Conn.Write(b)
	}
	if s.full.Load() {
		// net/http takes this for a bad request, and closes the connection without
		// reading on.
		lastWord(s.Conn, s.refuse(http.StatusServiceUnavailable, ""))
		return len(b), nil
	}
	if _, err := s.Conn.Write(s.refuse(status, why)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// How long a refused client may take to read the answer, and how many bytes of what it
// still sends are thrown away: as many as a head may have.
const (
	refusalPatience = time.Second
	maxUnread       = 136 << 10
)

// lastWord sends a whole answer and then reads what still comes. Closing a connection
// that has unread bytes would take the answer back.
func lastWord(nc net.Conn, answer []byte) {
	nc.SetDeadline(time.Now().Add(refusalPatience))
	nc.Write(answer)
	if half, ok := nc.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
		io.CopyN(io.Discard, nc, maxUnread)
	}
}

// CloseWrite closes the sending side, as counted's does.
func (s *spoken) CloseWrite() error { return (&counted{Conn: s.Conn}).CloseWrite() }

// idle is called when net/http has finished an answer.
func (s *spoken) idle() { s.answering.Store(false) }

// watchSpoken has idle called on a server's connections.
func watchSpoken(server *http.Server) {
	server.ConnState = func(nc net.Conn, state http.ConnState) {
		if s, ok := nc.(interface{ idle() }); ok && state == http.StateIdle {
			s.idle()
		}
	}
}

// The answers that net/http makes itself, as in conn.serve and
// response.sendExpectationFailed. TestRefusals fails if they change.
var (
	refusedHead   = regexp.MustCompile(`^HTTP/1\.1 (\d{3}) ([^:\r\n]*)(?:: ([^\r\n]*))?\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n[^\r\n]*$`)
	refusedExpect = regexp.MustCompile(`^HTTP/1\.[01] (417) Expectation Failed\r\nConnection: close\r\nDate: [^\r\n]*\r\nContent-Length: 0\r\n\r\n$`)
)

// maxRefusal is longer than any of them, in bytes.
const maxRefusal = 1 << 10

func cannedRefusal(b []byte) (status int, why string, is bool) {
	if len(b) > maxRefusal || !bytes.HasPrefix(b, []byte("HTTP/1.")) {
		return 0, "", false
	}
	if m := refusedHead.FindSubmatch(b); m != nil {
		status, _ = strconv.Atoi(string(m[1]))
		return status, string(m[3]), true
	}
	if refusedExpect.Match(b) {
		return http.StatusExpectationFailed, "", true
	}
	return 0, "", false
}

// Listen returns a listener for another net/http server, on whose connections refusals
// are replaced, too.
func Listen(listener net.Listener, server *http.Server, refuse Refuse) net.Listener {
	watchSpoken(server)
	return &speaking{listener, refuse}
}

// speaking is the listener that Listen returns.
type speaking struct {
	net.Listener
	refuse Refuse
}

func (l *speaking) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &spoken{Conn: nc, refuse: l.refuse}, nil
}

package front

import (
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// response is the answer to a plain request. Up to maxAhead bytes of it are sent
// together with the head, in one write, when the handler has returned. A body whose
// length is not stated is sent in chunks.
type response struct {
	c       *conn
	header  http.Header
	names   []string // of the header, for sorting
	out     []byte   // not sent yet
	status  int      // 0 until the head has been written
	left    int64    // bytes to come of a body of stated length
	chunked bool
	broken  bool // the client did not get everything
	last    bool // the connection ends with this answer
	timed   bool // the handler has set a deadline
}

// maxAhead is how many bytes of an answer are held before it is sent. A longer write is
// not copied.
const maxAhead = 8 << 10

func (r *response) reset() {
	clear(r.header)
	if cap(r.out) > 2*maxAhead {
		r.out = nil
	}
	r.out = r.out[:0]
	r.status, r.left, r.chunked, r.broken, r.last, r.timed = 0, 0, false, false, false, false
}

// Header implements http.ResponseWriter.
func (r *response) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter.
func (r *response) WriteHeader(status int) {
	if r.status != 0 {
		return
	}
	r.status = status
	out := append(r.out, "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(status), 10)
	out = append(out, ' ')
	if text := http.StatusText(status); text != "" {
		out = append(out, text...)
	} else {
		out = append(out, "status code "...)
		out = strconv.AppendInt(out, int64(status), 10)
	}
	out = append(out, "\r\n"...)
	if _, own := r.header["Date"]; !own {
		out = append(out, "Date: "...)
		out = append(out, r.c.server.clock.date()...)
		out = append(out, "\r\n"...)
	}
	names := r.names[:0]
	for name := range r.header {
		names = append(names, name)
	}
	slices.Sort(names)
	r.names = names
	length := int64(-1)
	for _, name := range names {
		for _, value := range r.header[name] {
			switch name {
			case "Content-Length":
				length, _ = strconv.ParseInt(value, 10, 64)
			case "Connection", "Transfer-Encoding":
				continue // we set it ourselves
			}
			out = append(out, name...)
			out = append(out, ": "...)
			if strings.ContainsAny(value, "\r\n") {
				value = lineBreaks.Replace(value)
			}
			out = append(out, value...)
			out = append(out, "\r\n"...)
		}
	}
	switch {
	case status == http.StatusNoContent || status == http.StatusNotModified:
	case length >= 0:
		r.left = length
	default:
		r.chunked = true
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	if r.last = r.last || r.c.server.draining.Load(); r.last {
		out = append(out, "Connection: close\r\n"...)
	}
	r.out = append(out, "\r\n"...)
}

// lineBreaks keeps a header's value on one line, as net/http does.
var lineBreaks = strings.NewReplacer("\r", " ", "\n", " ")

// Write implements http.ResponseWriter.
func (r *response) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	switch {
	case len(b) == 0:
		return 0, nil
	case r.chunked:
		r.out = strconv.AppendInt(r.out, int64(len(b)), 16)
		r.out = append(r.out, "\r\n"...)
	case int64(len(b)) > r.left:
		return 0, http.ErrContentLength
	default:
		r.left -= int64(len(b))
	}
	var err error
	if len(r.out)+len(b) <= maxAhead {
		r.out = append(r.out, b...)
	} else {
		err = r.sendAhead(b)
	}
	if r.chunked {
		r.out = append(r.out, "\r\n"...)
	}
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// sendAhead sends what is held, and then behind, while the handler is still running. It
// sets a new deadline, because the old one may have passed during the call.
func (r *response) sendAhead(behind []byte) error {
	if !r.timed {
		r.c.ownDeadline()
		r.c.nc.SetWriteDeadline(time.Now().Add(r.c.server.HTTP.IdleTimeout))
	}
	return r.send(behind)
}

// send sends what is held, and then behind.
func (r *response) send(behind []byte) error {
	var err error
	switch {
	case len(behind) > 0:
		parts := net.Buffers{r.out, behind}
		_, err = parts.WriteTo(r.c.nc.Conn)
	case len(r.out) > 0:
		_, err = r.c.nc.Write(r.out)
	}
	r.out = r.out[:0]
	if err != nil {
		r.broken = true
	}
	return err
}

// FlushError is for http.ResponseController.
func (r *response) FlushError() error {
	r.WriteHeader(http.StatusOK)
	return r.sendAhead(nil)
}

// SetReadDeadline is for http.ResponseController. It sets the deadline for the rest of
// the body.
func (r *response) SetReadDeadline(t time.Time) error {
	if b := &r.c.body; b.left > 0 {
		b.setDeadline(t)
	}
	return nil
}

// SetWriteDeadline is for http.ResponseController.
func (r *response) SetWriteDeadline(t time.Time) error {
	r.timed = true
	r.c.ownDeadline()
	return r.c.nc.SetWriteDeadline(t)
}

// EnableFullDuplex is for http.ResponseController. It has nothing to do, because nobody
// reads ahead of the handler here.
func (r *response) EnableFullDuplex() error { return nil }

// finish sends what is left when the handler has returned, and reports whether the
// connection may go on.
func (r *response) finish() bool {
	if r.status == 0 {
		if r.header["Content-Length"] == nil {
			r.header["Content-Length"] = []string{"0"}
		}
		r.WriteHeader(http.StatusOK)
	}
	if r.broken || r.left > 0 { // only the connection's end can show that something is missing
		return false
	}
	if r.chunked {
		r.out = append(r.out, "0\r\n\r\n"...)
	}
	r.c.stayAlive()
	return r.send(nil) == nil && !r.last
}

// clock caches the time as HTTP writes it, which changes once a second.
type clock struct{ now atomic.Pointer[stamp] }

// stamp is a second, and its text.
type stamp struct {
	second int64
	text   string
}

// date returns the value of the header Date.
func (k *clock) date() string {
	now := time.Now()
	if s := k.now.Load(); s != nil && s.second == now.Unix() {
		return s.text
	}
	s := &stamp{now.Unix(), now.UTC().Format(http.TimeFormat)}
	k.now.Store(s)
	return s.text
}

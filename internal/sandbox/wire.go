package sandbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/flockofbirds/fob/internal/buffer"
)

// wire is one connection to a driver. The driver's process runs strangers' code, so
// everything that comes from it is bounded and checked.
type wire struct {
	nc      net.Conn
	buffers *buffer.Budget // nil for no bound
	in      *bufio.Reader
	out     []byte // reused for request heads
	spent   bool   // must not be used for another request
	token   token  // of the request that was sent last
	glance  glance
}

// maxHeader bounds the head of an answer in bytes, and maxFields the number of its
// lines.
const (
	maxHeader = 64 << 10
	maxFields = 100
	headStep  = 32 << 10 // how much of the budget a long head takes at a time
)

// smallBody is the size up to which copying a body behind its head is cheaper than a
// second write.
const smallBody = 8 << 10

// maxSpare bounds the buffer that an idle connection keeps, in bytes.
const maxSpare = 16 << 10

// receive reads an answer, or the head of an answer that streams.
func (w *wire) receive(maxAnswer int64) (*Response, error) {
	if _, err := w.in.Peek(1); err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	answer := &head{length: -1}
	answer.room.budget = w.buffers
	response, err := w.receiveRest(answer, maxAnswer)
	if err != nil {
		answer.room.close()
	}
	return response, err
}

// receiveRest reads the rest of an answer that has begun.
func (w *wire) receiveRest(answer *head, maxAnswer int64) (*Response, error) {
	if err := w.readHead(answer); err != nil {
		return nil, err
	}
	response := &answer.Response
	if answer.driverError {
		maxAnswer = min(maxAnswer, maxDocument)
	}
	if err := w.readBody(answer, maxAnswer); err != nil {
		return nil, err
	}
	if answer.driverError {
		if err := w.whole(response, maxAnswer); err != nil {
			return nil, err
		}
		e, err := newDriverError(response.Status, response.Body)
		if err != nil {
			return nil, err
		}
		e.Usage = response.Usage
		return nil, e
	}
	return response, nil
}

// send sends a request. If its error does not wrap ErrNotSent, the driver may have seen
// part of it.
func (w *wire) send(head, body []byte) error {
	if len(body) > 0 && len(body) <= smallBody {
		head = append(head, body...)
		body = nil
	}
	if cap(head) <= maxSpare {
		w.out = head[:0]
	}
	n, err := w.nc.Write(head)
	if err != nil && n == 0 {
		return fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	if err == nil && len(body) > 0 {
		_, err = w.nc.Write(body)
	}
	if err != nil {
		return fmt.Errorf("sending the call: %w", err)
	}
	return nil
}

// head is an answer whose body has not been read yet.
type head struct {
	Response
	length      int64 // -1 if not given
	chunked     bool
	driverError bool
}

func (w *wire) readHead(h *head) error {
	line, err := w.readLine()
	if err != nil {
		return err
	}
	// "HTTP/1.1 200 OK"
	if len(line) < 12 || string(line[:9]) != "HTTP/1.1 " || (len(line) > 12 && line[12] != ' ') {
		return fmt.Errorf("%w; it begins with %q", errStray, clip(line))
	}
	h.Status, err = strconv.Atoi(string(line[9:12]))
	if err != nil || h.Status < 200 || h.Status > 599 {
		return fmt.Errorf("%w: status %q", ErrBadAnswer, line[9:12])
	}
	// An answer without the token is not the answer to this call.
	if line, err = w.readLine(); err != nil {
		return err
	}
	if !w.token.isIn(line) {
		return errStray
	}
	for total, fields := 0, 0; ; fields++ {
		line, err := w.readLine()
		if err != nil {
			return err
		}
		if len(line) == 0 {
			return nil
		}
		if total += len(line); total > maxHeader {
			return fmt.Errorf("%w: more than %d bytes of header", ErrBadAnswer, maxHeader)
		}
		// A field takes up more memory than its text, but less than twice as much.
		if n := int64(2*total) - h.room.taken; n > buffer.Free {
			if err := h.room.take(max(n, headStep)); err != nil {
				return err
			}
		}
		if fields == maxFields {
			return fmt.Errorf("%w: more than %d header fields", ErrBadAnswer, maxFields)
		}
		if err := h.field(w, line); err != nil {
			return err
		}
	}
}

// field evaluates one header line.
func (h *head) field(w *wire, line []byte) error {
	colon := bytes.IndexByte(line, ':')
	if colon < 1 || !validName(line[:colon]) || !validValue(line[colon+1:]) {
		return fmt.Errorf("%w: header line %q", ErrBadAnswer, clip(line))
	}
	name, value := line[:colon], bytes.TrimSpace(line[colon+1:])
	switch {
	case equalFold(name, "content-length"):
		n, err := strconv.ParseUint(string(value), 10, 63) // unlike ParseInt, it refuses a sign
		if err != nil || (h.length >= 0 && h.length != int64(n)) {
			return fmt.Errorf("%w: Content-Length %q", ErrBadAnswer, clip(value))
		}
		h.length = int64(n)
	case equalFold(name, "content-type"):
		if string(value) == "application/json" {
			h.ContentType = "application/json" // avoids an allocation
		} else {
			h.ContentType = string(value)
		}
	case equalFold(name, "transfer-encoding"):
		if !equalFold(value, "chunked") {
			return fmt.Errorf("%w: Transfer-Encoding %q", ErrBadAnswer, clip(value))
		}
		h.chunked = true
	case equalFold(name, "connection"):
		w.spent = w.spent || equalFold(value, "close")
	case equalFold(name, "fob-error"):
		h.driverError = true
	case equalFold(name, "fob-usage"):
		h.Usage = parseUsage(value)
	default:
		key := textproto.CanonicalMIMEHeaderKey(string(name))
		if !EndToEnd(key) {
			return nil
		}
		if h.Header == nil {
			h.Header = make(http.Header)
		}
		h.Header[key] = append(h.Header[key], string(value))
	}
	return nil
}

// readBody reads a body of known length, and makes a stream of one that comes in
// chunks.
func (w *wire) readBody(h *head, maxAnswer int64) error {
	switch {
	case h.Status == http.StatusNoContent || h.Status == http.StatusNotModified:
		if h.chunked || h.length > 0 {
			return fmt.Errorf("%w: status %d has no body", ErrBadAnswer, h.Status)
		}
		return nil
	case h.chunked && h.length >= 0:
		return fmt.Errorf("%w: both Content-Length and Transfer-Encoding", ErrBadAnswer)
	case h.chunked:
		// A process that the function forked while it streamed may send more chunks.
		// Chunks have no token, so no other call may use this connection.
		w.spent = true
		h.Stream = &Stream{w: w, chunks: httputil.NewChunkedReader(w.in)}
		return nil
	case h.length < 0:
		return fmt.Errorf("%w: neither Content-Length nor Transfer-Encoding", ErrBadAnswer)
	case h.length > maxAnswer:
		return answerTooLarge(maxAnswer)
	}
	if h.length <= buffer.Free { // as nearly all are
		h.Body = make([]byte, h.length)
		if _, err := io.ReadFull(w.in, h.Body); err != nil {
			return fmt.Errorf("reading the answer: %w", err)
		}
		return nil
	}
	use := buffer.Answer
	if h.driverError {
		use = buffer.Small // it cannot be sent on as it comes
	}
	body, err := w.buffers.Read(w.in, h.length, h.length, use)
	switch {
	case errors.Is(err, buffer.ErrFull):
		// Send it on as it comes. No call waits for room while it holds some, so no two
		// can wait for each other.
		h.Stream = &Stream{w: w, plain: true, chunks: &rest{begin: body, from: w.in, left: h.length - int64(len(body.Bytes()))}}
	case err != nil:
		body.Close()
		return fmt.Errorf("reading the answer: %w", err)
	default:
		h.Body, h.room.body = body.Bytes(), body
	}
	return nil
}

func answerTooLarge(maxAnswer int64) error {
	return fmt.Errorf("%w: it is larger than %d bytes", ErrBadAnswer, maxAnswer)
}

// readLine returns the next line without its end. The result is valid until the next
// read.
func (w *wire) readLine() ([]byte, error) {
	line, err := w.in.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		long := bytes.Clone(line)
		for err == bufio.ErrBufferFull && len(long) <= maxHeader {
			line, err = w.in.ReadSlice('\n')
			long = append(long, line...)
		}
		if line = long; len(line) > maxHeader {
			return nil, fmt.Errorf("%w: a header line of more than %d bytes", ErrBadAnswer, maxHeader)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, nil
}

// EndToEnd reports whether a header field, in its canonical form, may pass between
// caller and function. Hop-by-hop fields (RFC 9110, 7.6.1), fields about the body's
// length, and our own may not.
func EndToEnd(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length", "Expect":
		return false
	}
	return !strings.HasPrefix(name, "Fob-")
}

// equalFold compares b with a lower-case ASCII word, ignoring case.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range b {
		c := b[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func validName(name []byte) bool {
	for _, c := range name {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return true
}

func validValue(value []byte) bool {
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// clip shortens a stranger's bytes for a message.
func clip(b []byte) []byte {
	if len(b) > 80 {
		return b[:80]
	}
	return b
}

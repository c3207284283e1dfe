package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/flockofbirds/fob/internal/buffer"
)

// Stream is the body of an answer that comes chunk by chunk, as the function makes it.
// Read returns io.EOF when the driver says that the body is whole, and a *DriverError
// when it says that it is not. After the call's deadline it fails with
// os.ErrDeadlineExceeded. A Stream must be read to its end or closed.
type Stream struct {
	conn   *Conn
	w      *wire
	chunks io.Reader
	plain  bool    // not in chunks: there was no room to hold it
	up     *upload // the call's body; nil if it was sent whole
	room   room    // for its head

	// Usage is what the call cost. Whoever reads the stream may look at it when Read has
	// returned an error.
	Usage Usage

	mu  sync.Mutex
	err error // how it ended
}

// Read implements io.Reader.
func (s *Stream) Read(p []byte) (int, error) {
	if err := s.ended(); err != nil {
		return 0, err
	}
	n, err := s.chunks.Read(p)
	if err != nil {
		err = s.end(err)
	}
	return n, err
}

func (s *Stream) ended() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// end releases the connection, and returns how the stream ended.
func (s *Stream) end(err error) error {
	switch {
	case err != io.EOF:
		err = chunkError(err)
	case !s.plain:
		err = s.w.readTrailer(&s.Usage)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(err)
	return s.err
}

// settle releases the connection and what is held, once. The caller holds mu.
func (s *Stream) settle(err error) {
	if s.err != nil {
		return
	}
	s.err = s.conn.done(s.w, s.up, err)
	s.room.close()
	if rest, is := s.chunks.(*rest); is {
		rest.Close()
	}
}

// Made reports whether the function has made the whole answer, which streams only
// because there was no room for it.
func (s *Stream) Made() bool { return s.plain }

// SetDeadline replaces the call's deadline for what is read.
func (s *Stream) SetDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil { // otherwise the connection belongs to another call
		s.w.nc.SetReadDeadline(t)
	}
}

// Cancel tells the driver that nobody wants more. The caller must still read what the
// driver sends, to its end.
func (s *Stream) Cancel() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.w.spent = true
	if s.up != nil {
		s.up.stop()
	}
	shutDown(s.w.nc)
}

// Close breaks the connection to the driver unless the stream has ended. It may be
// called while a Read waits, which then fails.
func (s *Stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(net.ErrClosed)
	return nil
}

// shutDown closes the sending side of a connection. If it cannot, it closes the whole
// connection, which means the same to a driver.
func shutDown(nc net.Conn) {
	if half, ok := nc.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
		return
	}
	nc.Close()
}

// chunkError returns the error of a broken connection as it is, and that of malformed
// chunks as ErrBadAnswer.
func chunkError(err error) error {
	if _, broken := errors.AsType[net.Error](err); broken || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return fmt.Errorf("%w: %w", ErrBadAnswer, err)
}

// maxTrailer bounds the trailer that follows the last chunk, in bytes.
const maxTrailer = 1 << 10

// readTrailer reads what follows the last chunk: Fob-Error, Fob-Usage, both, or nothing.
// It returns io.EOF, or the *DriverError that the trailer Fob-Error contains.
func (w *wire) readTrailer(usage *Usage) error {
	end, told := io.EOF, false
	for {
		line, err := w.readLine()
		if err != nil {
			return err
		}
		if len(line) == 0 {
			return end
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		if !told && len(line) <= maxTrailer && equalFold(name, "fob-usage") {
			*usage, told = parseUsage(value), true
			continue
		}
		if told || end != io.EOF || len(line) > maxTrailer || !equalFold(name, "fob-error") || len(value) == 0 || !validValue(value) {
			return fmt.Errorf("%w: %q behind the last chunk", ErrBadAnswer, clip(line))
		}
		end = (&DriverError{Code: string(value), Message: "the answer broke off"}).clip()
	}
}

// whole reads an answer that is not a stream but may come in chunks.
func (w *wire) whole(r *Response, maxAnswer int64) error {
	if r.Stream == nil {
		return nil
	}
	from := r.Stream
	r.Stream = nil
	if rest, is := from.chunks.(*rest); is {
		defer rest.Close()
	}
	body, err := w.buffers.Read(from.chunks, -1, maxAnswer+1, buffer.Small)
	r.room.body = body // even if it is not whole
	switch {
	case errors.Is(err, buffer.ErrFull):
		return ErrNoRoom
	case err != nil:
		return chunkError(err)
	case int64(len(body.Bytes())) > maxAnswer:
		return answerTooLarge(maxAnswer)
	}
	r.Body = body.Bytes()
	if from.plain {
		return nil
	}
	if err := w.readTrailer(&r.Usage); err != io.EOF {
		return err
	}
	return nil
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

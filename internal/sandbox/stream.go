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

// Stream is the body of an answer that comes chunk by chunk, as the function
// makes it. Read ends with io.EOF when the driver says that it is whole, and
// with a *DriverError when it says that it is not. Past the call's deadline it
// fails with os.ErrDeadlineExceeded. Read it to its end, or Close it.
type Stream struct {
	conn   *Conn
	w      *wire
	chunks io.Reader
	plain  bool    // it comes in no chunks, but there was no room for it
	up     *upload // of the call's body; nil when that was sent whole
	room   room    // of its head

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

// end lets go of the connection, and says how the stream ended.
func (s *Stream) end(err error) error {
	switch {
	case err != io.EOF:
		err = chunkError(err)
	case !s.plain:
		err = s.w.readTrailer()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(err)
	return s.err
}

// settle lets go of the connection and of what is held, unless that is done. The
// caller holds mu.
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

// Made reports whether the function has made the whole answer, for which there was no
// room only.
func (s *Stream) Made() bool { return s.plain }

// SetDeadline sets another deadline for what is read than the call's.
func (s *Stream) SetDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil { // else the connection is another call's
		s.w.nc.SetReadDeadline(t)
	}
}

// Cancel tells the driver that no more is wanted. What it still sends is to be
// read; its end is the end of the call.
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

// Close breaks the connection to the driver unless the stream is at its end. It
// may be called while Read waits, which then fails.
func (s *Stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(net.ErrClosed)
	return nil
}

// shutDown ends what we send on a connection. Where that cannot be done for one
// direction alone it closes the connection, which a driver takes the same way.
func shutDown(nc net.Conn) {
	if half, ok := nc.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
		return
	}
	nc.Close()
}

// chunkError tells a broken connection from chunks that are none.
func chunkError(err error) error {
	if _, broken := errors.AsType[net.Error](err); broken || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return fmt.Errorf("%w: %w", ErrBadAnswer, err)
}

// maxTrailer bounds what is behind the last chunk, in bytes.
const maxTrailer = 1 << 10

// readTrailer reads what is behind the last chunk. It returns io.EOF, or the
// *DriverError that the trailer Fob-Error stands for.
func (w *wire) readTrailer() error {
	end := io.EOF
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
		if end != io.EOF || len(line) > maxTrailer || !equalFold(name, "fob-error") || len(value) == 0 || !validValue(value) {
			return fmt.Errorf("%w: %q behind the last chunk", ErrBadAnswer, clip(line))
		}
		end = (&DriverError{Code: string(value), Message: "the answer broke off"}).clip()
	}
}

// whole reads an answer that may come in chunks, although it is no stream.
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
	r.room.body = body // also when it is not whole
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
	if err := w.readTrailer(); err != io.EOF {
		return err
	}
	return nil
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

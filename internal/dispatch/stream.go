package dispatch

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// errClosing ends a stream whose reader is gone when the dispatcher closes. The sandbox
// goes on, and the next start adopts it.
var errClosing = errors.New("the dispatcher closes")

// answerPatience is how long a client may take to read an answer that the function has
// finished, but for which there was no room. It is the same as for an answer that is
// held.
const answerPatience = time.Minute

// stream is the body of an answer that comes as the function makes it. The call is in
// flight and keeps its slot until the driver has ended the answer, even if its caller
// has gone away.
type stream struct {
	slot
	ctx    context.Context // of the caller
	from   *sandbox.Stream
	sent   time.Time
	budget time.Duration
	made   bool        // the function has finished; only the reader is late
	timer  *time.Timer // ends the stream in time even if nobody reads
	stop   func() bool // stops watching ctx
	usage  faas.Usage  // of the call, when Read has returned an error

	mu   sync.Mutex
	err  error // how the stream ended
	left bool  // the reader has closed it
}

// stream returns the body of a response that streams.
func (in slot) stream(ctx context.Context, r *sandbox.Response, sent time.Time, budget time.Duration) *stream {
	s := &stream{slot: in, ctx: ctx, from: r.Stream, sent: sent, budget: budget}
	deadline := sent.Add(budget)
	if s.made = s.from.Made(); s.made {
		deadline = time.Now().Add(answerPatience)
		s.from.SetDeadline(deadline)
	}
	s.mu.Lock()
	s.timer = time.AfterFunc(time.Until(deadline), func() { s.end(os.ErrDeadlineExceeded) })
	s.stop = context.AfterFunc(ctx, s.from.Cancel)
	s.mu.Unlock()
	return s
}

// streamed returns what the caller gets for a response that streams.
func streamed(r *sandbox.Response, body io.ReadCloser) faas.Result {
	return faas.Result{Status: r.Status, ContentType: r.ContentType, Header: r.Header, Body: body, Length: -1}
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.from.Read(p)
	if errors.Is(err, net.ErrClosed) && s.flock.d.ctx.Err() != nil {
		err = errClosing
	}
	if err != nil {
		s.usage = faas.Usage(s.from.Usage)
		err = s.end(err)
	}
	return n, err
}

// end settles the call, once, and returns what its caller is told.
func (s *stream) end(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.timer.Stop()
	s.stop()
	switch run := time.Since(s.sent); {
	case err == io.EOF:
		s.settle(nil, run, s.budget)
		s.err = io.EOF
	case s.made && errors.Is(err, os.ErrDeadlineExceeded):
		s.from.Close()
		s.release()
		s.err = faas.Errorf(faas.CodeTimeout, "the answer was not read within %v", answerPatience)
	case err == errClosing:
		s.release()
		s.err = errClosing
	default:
		failure := s.settle(err, run, s.budget)
		s.log(failure, err)
		s.err = failure
		if s.ctx.Err() != nil { // the caller's leaving caused it
			s.err = s.ctx.Err()
		}
	}
	return s.err
}

// log has the function's log say why the stream failed, unless the driver has done so.
func (s *stream) log(failure, err error) {
	if _, told := errors.AsType[*sandbox.DriverError](err); told {
		return
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.flock.d.background(func() { s.stopped(failure, s.budget) })
		return
	}
	s.bird.log.fail(s.id, failure)
}

// Close implements io.Closer. Before the end of the stream it tells the function that
// nobody reads on. It returns without waiting for the function, but not before the
// call's body is no longer read.
func (s *stream) Close() error {
	s.mu.Lock()
	ended, left := s.err != nil, s.left
	s.left = true
	s.mu.Unlock()
	switch {
	case ended:
		return s.from.Close() // the timer may have ended it
	case left:
		return nil
	}
	s.from.Cancel()
	if !s.flock.d.background(s.abandon) {
		s.from.Close()
		s.end(errClosing)
	}
	return nil
}

// abandon reads and discards the rest of a stream whose reader has gone away.
func (s *stream) abandon() {
	d := s.flock.d
	stop := context.AfterFunc(d.ctx, func() { s.from.Close() })
	defer stop()
	s.from.Cancel()
	_, err := io.Copy(io.Discard, s.from)
	switch {
	case d.ctx.Err() != nil:
		err = errClosing
	case err == nil:
		err = io.EOF
	}
	s.end(err)
}

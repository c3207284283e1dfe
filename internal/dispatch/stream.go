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

// errClosing is how a stream ended for us whose caller went away, and whose end
// a dispatcher that closes did not wait for: the sandbox goes on, for the next
// start to adopt.
var errClosing = errors.New("the dispatcher closes")

// answerPatience is how long a client may take to read an answer that the function
// has made, but for which there was no room; as for one that is held.
const answerPatience = time.Minute

// stream is the body of an answer that comes as the function makes it. The call
// is in flight, and has its slot, until the driver has ended the answer: also
// when its caller has gone away meanwhile.
type stream struct {
	slot
	ctx    context.Context // of its caller
	from   *sandbox.Stream
	sent   time.Time
	budget time.Duration
	made   bool        // the function has ended, and what is late is its reader
	timer  *time.Timer // ends it in time, should nobody be reading then
	stop   func() bool // no longer minds the end of ctx

	mu   sync.Mutex
	err  error // how it ended
	left bool  // by its reader
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

// streamed is what a caller gets of a response that streams.
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
		err = s.end(err)
	}
	return n, err
}

// end settles the call unless that is done, and says what its caller is told.
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
		s.err = s.settle(err, run, s.budget)
		if s.ctx.Err() != nil { // which is what it came of
			s.err = s.ctx.Err()
		}
	}
	return s.err
}

// Close implements io.Closer. Before the end of the stream it tells the function
// that nobody reads on, and returns before the function has ended, but not before
// nothing is read of the call's body any more.
func (s *stream) Close() error {
	s.mu.Lock()
	ended, left := s.err != nil, s.left
	s.left = true
	s.mu.Unlock()
	switch {
	case ended:
		return s.from.Close() // the end may have been the timer's
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

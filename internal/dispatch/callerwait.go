package dispatch

import (
	"context"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// attend makes a call whose caller wants to wait for less time (Fob-Timeout) than the
// function may run. When the wait is over, the caller gets an error. The call itself
// runs on, up to the function's timeout, and keeps its slot. So an impatient caller
// does not cost the function a sandbox.
func (s slot) attend(ctx context.Context, request *sandbox.Request, wait time.Duration, run *time.Duration) (faas.Result, error) {
	budget, sent := time.Duration(s.flock.version.Settings.Timeout), time.Now()
	late := sent.Add(wait)
	pending, err := s.bird.conn.Begin(late, request)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.release()
		return faas.Result{}, faas.Errorf(faas.CodeTimeout, "the caller's Fob-Timeout of %v was over before the call was sent", wait)
	case err != nil:
		return s.outcome(nil, err, time.Since(sent), budget)
	}
	type answer struct {
		result faas.Result
		err    error
		run    time.Duration
	}
	answered := make(chan answer, 1)
	var claimed atomic.Bool // by whichever is first: the answer, or the end of the wait
	pending.SetDeadline(sent.Add(budget))
	answering := func() {
		stop := context.AfterFunc(s.flock.d.ctx, pending.Break)
		response, err := pending.Answer()
		a := answer{run: time.Since(sent)}
		switch {
		case !stop(): // the dispatcher is closing; the next one adopts the sandbox
			if err == nil {
				response.Close()
			}
			s.release()
			a.err = faas.Errorf(faas.CodeInternal, "the dispatcher shut down while the function ran; the function may have run on")
		case err == nil && response.Stream != nil:
			// ctx belongs to the caller's request and ends with it. The caller has been
			// told already, so it must not be used any more.
			if !claimed.CompareAndSwap(false, true) {
				s.stream(context.Background(), response, sent, budget).abandon()
				return
			}
			a.result = streamed(response, s.stream(ctx, response, sent, budget).until(late, timeIsUp(wait, budget)))
			answered <- a
			return
		default:
			a.result, a.err = s.outcome(response, err, a.run, budget)
		}
		if claimed.CompareAndSwap(false, true) {
			answered <- a
		} else if a.err == nil {
			a.result.Body.Close()
		}
	}
	if !s.flock.d.background(answering) {
		pending.Break()
		if response, err := pending.Answer(); err == nil {
			response.Close()
		}
		s.release()
		return faas.Result{}, draining()
	}
	timer := time.NewTimer(time.Until(late))
	defer timer.Stop()
	select {
	case <-timer.C:
		if claimed.CompareAndSwap(false, true) {
			pending.EndBody() // the body belongs to the caller
			*run = time.Since(sent)
			return faas.Result{}, timeIsUp(wait, budget)
		}
	case a := <-answered:
		*run = a.run
		return a.result, a.err
	}
	a := <-answered
	*run = a.run
	return a.result, a.err
}

// timeIsUp returns the error for a caller whose wait is over.
func timeIsUp(wait, timeout time.Duration) error {
	return faas.Errorf(faas.CodeTimeout, "the caller's Fob-Timeout of %v is over; the function runs on, until its own timeout of %v at the most", wait, timeout)
}

// until returns the stream for a reader that stops at end. At that time the reader gets
// err, and the function learns that nobody reads on.
func (s *stream) until(end time.Time, err error) io.ReadCloser {
	r, w := io.Pipe()
	give := func(err error) {
		w.CloseWithError(err)
		s.from.Cancel()
	}
	timer := time.AfterFunc(time.Until(end), func() { give(err) })
	pump := func() {
		stop := context.AfterFunc(s.flock.d.ctx, func() { s.from.Close() })
		_, err := io.Copy(w, s)
		stop()
		timer.Stop()
		if err == io.ErrClosedPipe { // nobody reads on
			s.abandon()
			return
		}
		w.CloseWithError(err)
	}
	if !s.flock.d.background(pump) {
		give(draining())
		s.Close()
	}
	return &pumped{r, s.from.Cancel}
}

// pumped is a stream that is read through a pipe.
type pumped struct {
	*io.PipeReader
	cancel func()
}

// Close implements io.Closer. Before the end of the stream it tells the function that
// nobody reads on.
func (p *pumped) Close() error {
	p.cancel()
	return p.PipeReader.Close()
}

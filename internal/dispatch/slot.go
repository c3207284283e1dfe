package dispatch

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// slot is a call's place in a bird.
type slot struct {
	flock *flock
	bird  *bird
	id    string // the call's, as the log has it
}

// finish gives a slot back after a call that took run.
func (s slot) finish(run time.Duration) {
	f := s.flock
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.run == 0 {
		f.run = run
	} else {
		f.run += (run - f.run) / 16
	}
	s.bird.handOn()
}

// release gives a slot back without learning anything from the call.
func (s slot) release() {
	s.flock.mu.Lock()
	defer s.flock.mu.Unlock()
	s.bird.handOn()
}

// call makes a call and gives the slot back. If the answer streams, the stream gives it
// back.
func (s slot) call(ctx context.Context, c *call) (faas.Result, error) {
	c.sandbox = s.bird.inst.ID()
	request := c.send
	s.id = request.ID
	if s.bird.takesRequest {
		request.Method, request.Target, request.Root, request.Host = c.Method, c.Target, c.Root, c.Host
		request.Header, request.TraceParent, request.TraceState = c.Header, c.TraceParent, c.TraceState
	} else if err := c.refusePlain(s.flock.d.cfg.MaxBody); err != nil {
		s.release()
		return faas.Result{}, err
	} else {
		request.Form = c.form()
	}
	// Until this returns, the sender drops the body, and nobody else may.
	c.send.Drop = nil
	result, err := s.send(ctx, c, &request)
	if err != nil { // otherwise it was sent, or is still sent while the answer streams
		c.send.Drop = request.Drop
	}
	return result, err
}

// send sends a request and returns the answer.
func (s slot) send(ctx context.Context, c *call, request *sandbox.Request) (faas.Result, error) {
	budget := time.Duration(s.flock.version.Settings.Timeout)
	if c.Timeout > 0 && c.Timeout < budget {
		return s.attend(ctx, request, c.Timeout, &c.timing.Run)
	}
	sent := time.Now()
	response, err := s.bird.conn.Call(sent.Add(budget), request)
	c.timing.Run = time.Since(sent)
	if err == nil && response.Stream != nil {
		body := s.stream(ctx, response, sent, budget)
		result := streamed(response, body)
		result.Usage = &body.usage
		return result, nil
	}
	return s.outcome(response, err, c.timing.Run, budget)
}

// outcome settles a call that was answered whole or failed, and returns what its caller
// gets.
func (s slot) outcome(response *sandbox.Response, err error, run, budget time.Duration) (faas.Result, error) {
	failure := s.settle(err, run, budget)
	switch {
	case err == nil:
		return result(response), nil
	case errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, sandbox.ErrNotSent):
		return faas.Result{}, s.stopped(failure, budget)
	}
	s.bird.log.fail(s.id, failure)
	if e, ok := errors.AsType[*sandbox.DriverError](err); ok {
		usage := faas.Usage(e.Usage)
		return faas.Result{Usage: &usage}, failure
	}
	return faas.Result{}, failure
}

// stopped waits until the code of the bird, which is dismissed, has really stopped after
// its timeout, and returns what the caller is told. Other calls in the same sandbox finish
// first.
func (s slot) stopped(failure error, budget time.Duration) error {
	if !s.flock.d.await(s.bird.removed, time.Duration(s.flock.version.Settings.Timeout)+stopPatience) {
		failure = faas.Errorf(faas.CodeInternal, "the function was still running after its timeout of %v, and could not be stopped yet", budget)
	}
	s.bird.log.fail(s.id, failure)
	return failure
}

// settle gives back the slot of a call that ended with err after run, and returns what
// its caller is told; a nil err means success. It dismisses a sandbox that can no
// longer be trusted.
func (s slot) settle(err error, run, budget time.Duration) error {
	if err == nil {
		s.finish(run)
		return nil
	}
	if driverError, ok := errors.AsType[*sandbox.DriverError](err); ok {
		s.finish(run)
		return callError(driverError)
	}
	switch {
	case errors.Is(err, sandbox.ErrBody):
		s.release()
		if e, ok := errors.AsType[*faas.Error](err); ok {
			return e
		}
		return faas.Errorf(faas.CodeBadRequest, "the body broke off").Because(err)
	case errors.Is(err, sandbox.ErrNotSent) && errors.Is(err, os.ErrDeadlineExceeded):
		s.release()
		return faas.Errorf(faas.CodeTimeout, "the timeout of %v was over before the call was sent", budget)
	case errors.Is(err, sandbox.ErrNoRoom):
		s.release()
		return noRoom("the function's answer, which is lost")
	case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE):
		s.release()
		return faas.Errorf(faas.CodeNoCapacity, "the dispatcher has too many files and connections open (its limit of open files)").After(time.Second).Because(err)
	}
	// After any other error the sandbox is not used again.
	s.bird.dismiss()
	switch {
	case errors.Is(err, sandbox.ErrNotSent):
		s.release()
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.release()
		return faas.Errorf(faas.CodeTimeout, "the function was still running after its timeout of %v, and was stopped", budget)
	case errors.Is(err, sandbox.ErrBadAnswer):
		s.release()
		return faas.Errorf(faas.CodeBadAnswer, "%v", err)
	}
	defer s.release() // not before its end is known
	return s.bird.died(s.flock.d.ctx, "while the function ran", err)
}

package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// maxAttempts bounds how often a call is given to another sandbox because the
// one that it had was dead before a byte was sent.
const maxAttempts = 3

// reasonPatience is how long a broken call waits to learn why its sandbox died.
const reasonPatience = 3 * time.Second

// stopPatience is how long a call that ran out of time waits for the engine
// to stop the code.
const stopPatience = time.Minute

// Invoke implements faas.Invoker. ctx's end takes a call out of the line; once
// it is sent, only its timeout or its sandbox's death ends it, unless its answer
// streams: then the function is told that nobody reads on. A call is never
// sent twice: what may have reached a driver is not tried again.
func (d *Dispatcher) Invoke(ctx context.Context, call *faas.Call) (*faas.Result, error) {
	_, v, err := d.cfg.Catalogue.Resolve(ctx, call.Ref)
	if err != nil {
		return nil, err
	}
	for {
		call.Trace.Version = v
		result, err := d.invoke(ctx, call, v)
		next := d.successor(ctx, call.Ref, v, err)
		if next == nil {
			return result, err
		}
		v = next
	}
}

// successor returns what a ref means now, if it means another version of the function
// since v was dropped, for which a call failed. It returns nil where whoever might call
// v may not call that.
func (d *Dispatcher) successor(ctx context.Context, ref faas.Ref, v *faas.Version, err error) *faas.Version {
	if err == nil || ref.Version > 0 || faas.CodeOf(err) != faas.CodeUnknownFunction {
		return nil
	}
	_, next, err := d.cfg.Catalogue.Resolve(ctx, faas.Ref{ID: v.FunctionID, Alias: ref.Alias})
	if err != nil || next.Number == v.Number || v.Settings.Public && !next.Settings.Public {
		return nil
	}
	return next
}

// invoke makes a call to a version.
func (d *Dispatcher) invoke(ctx context.Context, call *faas.Call, v *faas.Version) (*faas.Result, error) {
	for attempt := 1; ; attempt++ {
		f, err := d.flock(v)
		if err != nil {
			return nil, err
		}
		if call.Receive != nil {
			if err := f.refusal(); err != nil {
				return nil, err
			}
			if err := f.mismatch(call); err != nil {
				return nil, err
			}
			receive := call.Receive
			call.Receive = nil
			if err := receive(); err != nil {
				return nil, err
			}
			if f, err = d.flock(v); err != nil { // for that took a while
				return nil, err
			}
		}
		if err := f.mismatch(call); err != nil {
			return nil, err
		}
		var wait faas.Timing
		b, err := f.acquire(ctx, &wait)
		call.Trace.Timing.Queue += wait.Queue
		call.Trace.Timing.Start += wait.Start
		if err != nil {
			return nil, err
		}
		result, err := f.call(ctx, b, call)
		if err == nil || !errors.Is(err, sandbox.ErrNotSent) {
			return result, err
		}
		if attempt == maxAttempts {
			return nil, faas.Errorf(faas.CodeNoCapacity, "the function's sandboxes die before they take a call").After(time.Second).Because(err)
		}
	}
}

// call makes a call in a bird, and gives the slot back, or leaves that to the
// stream that is the answer.
func (f *flock) call(ctx context.Context, b *bird, call *faas.Call) (*faas.Result, error) {
	request := sandbox.Request{Args: call.Args, Body: call.Body, Drop: call.Drop, Stream: call.Stream}
	if b.takesRequest {
		request.Method, request.Target, request.Root, request.Host, request.Header = call.Method, call.Target, call.Root, call.Host, call.Header
	} else if err := f.refusePlain(call); err != nil {
		f.release(b)
		return nil, err
	} else {
		request.Form = form(call)
	}
	// Until this returns the body is in the sender's hands, and nobody else drops it.
	call.Drop = nil
	result, err := f.send(ctx, b, call, &request)
	call.Drop = request.Drop
	return result, err
}

// send is call once it is known what is sent.
func (f *flock) send(ctx context.Context, b *bird, call *faas.Call, request *sandbox.Request) (*faas.Result, error) {
	budget := time.Duration(f.version.Settings.Timeout)
	if call.Timeout > 0 && call.Timeout < budget {
		return f.attend(ctx, b, request, call.Timeout, &call.Trace.Timing.Run)
	}
	sent := time.Now()
	response, err := b.conn.Call(sent.Add(budget), request)
	call.Trace.Timing.Run = time.Since(sent)
	if err == nil && response.Stream != nil {
		return f.stream(ctx, b, response, sent, budget), nil
	}
	return f.outcome(b, response, err, call.Trace.Timing.Run, budget)
}

// outcome settles a call that was answered whole, or failed, and says what its
// caller gets.
func (f *flock) outcome(b *bird, response *sandbox.Response, err error, run, budget time.Duration) (*faas.Result, error) {
	failure := f.settle(b, err, run, budget)
	switch {
	case err == nil:
		return result(response), nil
	case errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, sandbox.ErrNotSent) && !f.stopped(b):
		return nil, faas.Errorf(faas.CodeInternal, "the function was still running after its timeout of %v, and could not be stopped yet", budget)
	}
	return nil, failure
}

// form returns the Content-Type of a body that is a form, or "". What begins like
// a JSON object is one, for curl calls every body a form.
func form(call *faas.Call) string {
	kinds := call.Header["Content-Type"]
	if len(kinds) != 1 || len(call.Body) == 0 || call.Body[0] == '{' {
		return ""
	}
	kind, _, _ := strings.Cut(kinds[0], ";")
	kind = strings.TrimRight(kind, " \t")
	if !strings.EqualFold(kind, "application/x-www-form-urlencoded") && !strings.EqualFold(kind, "multipart/form-data") {
		return ""
	}
	if text := bytes.TrimPrefix(call.Body, []byte("\ufeff")); bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("{")) {
		return ""
	}
	return kinds[0]
}

// stopped waits until the code of a dismissed bird is really stopped, other
// calls in the same sandbox having finished first.
func (f *flock) stopped(b *bird) bool {
	return f.d.await(b.removed, time.Duration(f.version.Settings.Timeout)+stopPatience)
}

// settle gives back the slot of a call that ended with err after that time, nil
// meaning well, and says what its caller is told. A sandbox of which
// nothing good is to be expected any more is dismissed.
func (f *flock) settle(b *bird, err error, run, budget time.Duration) error {
	if err == nil {
		f.finish(b, run)
		return nil
	}
	if driverError, ok := errors.AsType[*sandbox.DriverError](err); ok {
		f.finish(b, run)
		return callError(driverError)
	}
	switch {
	case errors.Is(err, sandbox.ErrBody):
		f.release(b)
		if e, ok := errors.AsType[*faas.Error](err); ok {
			return e
		}
		return faas.Errorf(faas.CodeBadRequest, "the body broke off").Because(err)
	case errors.Is(err, sandbox.ErrNotSent) && errors.Is(err, os.ErrDeadlineExceeded):
		f.release(b)
		return faas.Errorf(faas.CodeTimeout, "the timeout of %v was over before the call was sent", budget)
	case errors.Is(err, sandbox.ErrNoRoom):
		f.release(b)
		return noRoom("the function's answer, which is lost")
	case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE):
		f.release(b)
		return faas.Errorf(faas.CodeNoCapacity, "the dispatcher has too many files and connections open (its limit of open files)").After(time.Second).Because(err)
	}
	// Whatever else went wrong, this sandbox is not used again.
	f.dismiss(b)
	switch {
	case errors.Is(err, sandbox.ErrNotSent):
		f.release(b)
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		f.release(b)
		return faas.Errorf(faas.CodeTimeout, "the function was still running after its timeout of %v, and was stopped", budget)
	case errors.Is(err, sandbox.ErrBadAnswer):
		f.release(b)
		return faas.Errorf(faas.CodeBadAnswer, "%v", err)
	}
	defer f.release(b) // keeps the sandbox until its end is known
	return f.d.died(b, "while the function ran", err)
}

// noRoom is told when what a driver says finds no room in the budget.
func noRoom(what string) error {
	return faas.Errorf(faas.CodeNoCapacity, "there is no room for %s: the dispatcher holds as much of requests and answers as it may (its setting FOB_MAX_BUFFER)", what).After(time.Second)
}

// died says how a sandbox came to its end.
func (d *Dispatcher) died(b *bird, when string, cause error) error {
	ctx, cancel := context.WithTimeout(d.ctx, reasonPatience)
	defer cancel()
	exit, err := b.inst.Exit(ctx)
	var why string
	switch {
	case err != nil:
		why = "the connection to the sandbox broke"
	case exit.OutOfMem:
		why = fmt.Sprintf("the sandbox ran out of memory (the function's setting memory is %v)", faas.Bytes(b.inst.Spec().Limits.Memory))
	case exit.Removed:
		why = "the sandbox was removed"
	default:
		why = fmt.Sprintf("the sandbox exited with code %d", exit.Code)
	}
	return faas.Errorf(faas.CodeSandboxDied, "%s %s", why, when).Because(cause)
}

// answer is a result with its whole body, in one allocation.
type answer struct {
	faas.Result
	body whole
}

// whole is a body that is all there.
type whole struct {
	bytes.Reader
	from *sandbox.Response
}

// Close implements io.Closer.
func (w *whole) Close() error {
	w.Reset(nil) // for what it read may be there no longer
	w.from.Close()
	return nil
}

// result is what a caller gets of a driver's response.
func result(r *sandbox.Response) *faas.Result {
	a := &answer{Result: faas.Result{Status: r.Status, ContentType: r.ContentType, Header: r.Header, Length: int64(len(r.Body))}}
	a.body.Reset(r.Body)
	a.body.from = r
	a.Body = &a.body
	return &a.Result
}

// mismatch says why a call is none for a version that is known not to take the
// request, or nil.
func (f *flock) mismatch(call *faas.Call) error {
	err := f.refusePlain(call)
	if err == nil || !f.isPlain() {
		return nil
	}
	return err
}

// refusePlain says why a call is none for a function that does not take the
// request, or nil.
func (f *flock) refusePlain(call *faas.Call) error {
	const instead = "the function does not take the request: give callme a parameter named request for that"
	switch {
	case call.Stream != nil:
		return f.tooLarge()
	case call.Below != "" && call.Below != "/":
		return faas.Errorf(faas.CodeUnknownRoute, "there is nothing at %.200q below the function, for %s", call.Below, instead)
	}
	switch call.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodPost:
		return nil
	}
	return faas.Errorf(faas.CodeMethodNotAllowed, "%.20q is not for this function; it has GET, HEAD and POST, for %s", call.Method, instead)
}

// tooLarge is told to who sends more than is held whole to a function that does
// not stream it.
func (f *flock) tooLarge() error {
	return faas.Errorf(faas.CodeTooLarge, "the body is larger than the %v allowed (the dispatcher's setting FOB_MAX_BODY); only a function with a parameter request can be sent more",
		faas.Bytes(f.d.cfg.MaxBody))
}

// callError turns what a driver says of a call into an error of ours.
func callError(e *sandbox.DriverError) error {
	code := faas.CodeBadAnswer
	message := e.Message
	switch e.Code {
	case "bad_request":
		code = faas.CodeBadRequest
	case "bad_arguments":
		code = faas.CodeBadArguments
	case "raised":
		code = faas.CodeRaised
		message = "the function raised " + e.Type + ": " + e.Message
		if e.Hint != "" {
			message += "; " + e.Hint
		}
	case "bad_result":
		code = faas.CodeBadResult
	case "too_large":
		code = faas.CodeTooLarge
	default:
		message = fmt.Sprintf("the driver answered %d %s: %s", e.Status, e.Code, e.Message)
	}
	if e.Status == 0 { // it comes behind an answer that had begun, and says no more
		return faas.Errorf(code, "the answer broke off (%.40s): the function's log says why", e.Code)
	}
	return &faas.Error{Code: code, Message: message, Raised: raised(e)}
}

package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// maxAttempts bounds how often a call is given to another sandbox because the
// one that it had was dead before a byte was sent.
const maxAttempts = 3

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
		s, err := f.acquire(ctx, &wait)
		call.Trace.Timing.Queue += wait.Queue
		call.Trace.Timing.Start += wait.Start
		if err != nil {
			return nil, err
		}
		result, err := s.call(ctx, call)
		if err == nil || !errors.Is(err, sandbox.ErrNotSent) {
			return result, err
		}
		if attempt == maxAttempts {
			return nil, faas.Errorf(faas.CodeNoCapacity, "the function's sandboxes die before they take a call").After(time.Second).Because(err)
		}
	}
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

// noRoom is told when what a driver says finds no room in the budget.
func noRoom(what string) error {
	return faas.Errorf(faas.CodeNoCapacity, "there is no room for %s: the dispatcher holds as much of requests and answers as it may (its setting FOB_MAX_BUFFER)", what).After(time.Second)
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
	err := refusePlain(call, f.d.cfg.MaxBody)
	if err == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.plain {
		return nil
	}
	return err
}

// refusePlain says why a call is none for a function that does not take the
// request, or nil. maxBody is how many bytes of a body are held whole.
func refusePlain(call *faas.Call, maxBody int64) error {
	const instead = "the function does not take the request: give callme a parameter named request for that"
	switch {
	case call.Stream != nil:
		return faas.Errorf(faas.CodeTooLarge, "the body is larger than the %v allowed (the dispatcher's setting FOB_MAX_BODY); only a function with a parameter request can be sent more",
			faas.Bytes(maxBody))
	case call.Below != "" && call.Below != "/":
		return faas.Errorf(faas.CodeUnknownRoute, "there is nothing at %.200q below the function, for %s", call.Below, instead)
	}
	switch call.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodPost:
		return nil
	}
	return faas.Errorf(faas.CodeMethodNotAllowed, "%.20q is not for this function; it has GET, HEAD and POST, for %s", call.Method, instead)
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

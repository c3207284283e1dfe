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

// maxAttempts bounds how often a call is given to another sandbox because its sandbox
// was dead before a byte was sent.
const maxAttempts = 3

// stopPatience is how long a call that ran out of time waits for the engine to stop the
// code.
const stopPatience = time.Minute

// call is an invocation on its way to a sandbox.
type call struct {
	*faas.Invocation
	live   faas.LiveBody   // nil once it is received
	send   sandbox.Request // the body, and what is the same for every sandbox
	timing faas.Timing

	sandbox string // that has the call, or had it last
}

// Invoke implements faas.Invoker. The end of ctx takes a call out of the line. After
// the call is sent, only its timeout or its sandbox's death ends it. If its answer
// streams, the end of ctx tells the function that nobody reads on. A call is never sent
// twice: once a driver may have received something, it is not tried again.
func (d *Dispatcher) Invoke(ctx context.Context, inv *faas.Invocation, body faas.LiveBody) (faas.Result, error) {
	c := call{Invocation: inv, live: body, send: sandbox.Request{ID: faas.LogID(inv.ID), Args: inv.Args, Body: inv.Body}}
	defer c.drop()
	_, v, err := d.cfg.Catalogue.Resolve(ctx, inv.Ref)
	if err != nil {
		return faas.Result{}, err
	}
	for {
		result, err := d.invoke(ctx, &c, v)
		next := d.successor(ctx, inv.Ref, v, err)
		if next == nil {
			result.Version, result.Timing, result.Sandbox = v, c.timing, c.sandbox
			return result, err
		}
		v = next
	}
}

// receive reads the body that its caller still has.
func (c *call) receive() (err error) {
	live := c.live
	c.live, c.send.Drop = nil, live.Drop
	c.send.Body, c.send.Stream, err = live.Receive()
	return err
}

// drop gives back the memory of a body that was not sent. While it is being sent, and
// after that, the connection takes care of it.
func (c *call) drop() {
	if c.send.Drop != nil {
		c.send.Drop()
	}
}

// successor returns the version to which a ref now leads, after a call to v failed
// because v was dropped. It returns nil if ref leads to no other version, or if callers
// of v might not be allowed to call that.
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
func (d *Dispatcher) invoke(ctx context.Context, c *call, v *faas.Version) (faas.Result, error) {
	for attempt := 1; ; attempt++ {
		f, err := d.flock(v)
		if err != nil {
			return faas.Result{}, err
		}
		if c.live != nil {
			if err := f.refusal(); err != nil {
				return faas.Result{}, err
			}
			if err := f.mismatch(c); err != nil {
				return faas.Result{}, err
			}
			if err := c.receive(); err != nil {
				return faas.Result{}, err
			}
			if f, err = d.flock(v); err != nil { // receiving took a while
				return faas.Result{}, err
			}
		}
		if err := f.mismatch(c); err != nil {
			return faas.Result{}, err
		}
		var wait faas.Timing
		s, err := f.acquire(ctx, &wait)
		c.timing.Queue += wait.Queue
		c.timing.Start += wait.Start
		c.timing.Load += wait.Load
		if err != nil {
			return faas.Result{}, err
		}
		result, err := s.call(ctx, c)
		if err == nil || !errors.Is(err, sandbox.ErrNotSent) {
			return result, err
		}
		if attempt == maxAttempts {
			return faas.Result{}, faas.Errorf(faas.CodeNoCapacity, "the function's sandboxes die before they take a call").After(time.Second).Because(err)
		}
	}
}

// form returns the Content-Type of a body that is a form, or "". A body that begins
// like a JSON object is not one: curl labels every body as a form.
func (c *call) form() string {
	kinds, body := c.Header["Content-Type"], c.send.Body
	if len(kinds) != 1 || len(body) == 0 || body[0] == '{' {
		return ""
	}
	kind, _, _ := strings.Cut(kinds[0], ";")
	kind = strings.TrimRight(kind, " \t")
	if !strings.EqualFold(kind, "application/x-www-form-urlencoded") && !strings.EqualFold(kind, "multipart/form-data") {
		return ""
	}
	if text := bytes.TrimPrefix(body, []byte("\ufeff")); bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("{")) {
		return ""
	}
	return kinds[0]
}

// noRoom returns the error for something from a driver for which the budget has no
// room.
func noRoom(what string) error {
	return faas.Errorf(faas.CodeNoCapacity, "there is no room for %s: the dispatcher holds as much of requests and answers as it may (its setting FOB_MAX_BUFFER)", what).After(time.Second)
}

// whole is a body that is held whole.
type whole struct {
	bytes.Reader
	from  *sandbox.Response
	usage faas.Usage
}

// Close implements io.Closer.
func (w *whole) Close() error {
	w.Reset(nil) // the memory may soon be reused
	w.from.Close()
	return nil
}

// result returns what the caller gets for a driver's answer that is held whole.
func result(r *sandbox.Response) faas.Result {
	body := &whole{from: r, usage: faas.Usage(r.Usage)}
	body.Reset(r.Body)
	return faas.Result{Usage: &body.usage, Status: r.Status, ContentType: r.ContentType, Header: r.Header, Body: body, Length: int64(len(r.Body))}
}

// mismatch returns why a call does not suit a version that is known not to take the
// request, or nil.
func (f *flock) mismatch(c *call) error {
	err := c.refusePlain(f.d.cfg.MaxBody)
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

// refusePlain returns why a call does not suit a function that does not take the
// request, or nil. maxBody is how many bytes of a body are held whole.
func (c *call) refusePlain(maxBody int64) error {
	const instead = "the function does not take the request: give callme a parameter named request for that"
	switch {
	case c.send.Stream != nil:
		return faas.Errorf(faas.CodeTooLarge, "the body is larger than the %v allowed (the dispatcher's setting FOB_MAX_BODY); only a function with a parameter request can be sent more",
			faas.Bytes(maxBody))
	case c.Below != "" && c.Below != "/":
		return faas.Errorf(faas.CodeUnknownRoute, "there is nothing at %.200q below the function, for %s", c.Below, instead)
	}
	switch c.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodPost:
		return nil
	}
	return faas.Errorf(faas.CodeMethodNotAllowed, "%.20q is not for this function; it has GET, HEAD and POST, for %s", c.Method, instead)
}

// callError turns a driver's error about a call into ours.
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
	if e.Status == 0 { // the answer had begun; the driver can tell no more than a code
		return faas.Errorf(code, "the answer broke off (%.40s): the function's log says why", e.Code)
	}
	return &faas.Error{Code: code, Message: message, Raised: raised(e)}
}

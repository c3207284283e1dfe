package faas

import (
	"io"
	"net/http"
	"time"
)

// Call is one invocation.
type Call struct {
	ID  string // accepted from the caller or minted
	Ref Ref

	// Args are the text arguments of a query string, as the JSON object of
	// strings that the driver contract calls Fob-Args; empty for none.
	Args []byte

	// Body holds the typed arguments as a JSON object, or, for a function
	// that takes the request, whatever the caller sent. Empty for none.
	Body []byte

	// Drop, when it is set, gives back the memory that Body has. Invoke calls it
	// when Body has been sent, which may be long before the answer; when Invoke
	// fails or panics, its caller does, unless it is nil: that it is while Body may
	// be being sent. Calling it twice is no error.
	Drop func()

	// Receive, when it is set, reads Body, and sets Stream if that is needed.
	// Invoke calls it before the call has a slot or a place in line, and only
	// when the call would be given one of them; then it sets it to nil. So what
	// is refused at once costs no memory, and a slow sender no slot.
	Receive func() error

	// Stream, when it is set, is the rest of a body that is longer than what
	// is held whole: Body is its beginning. Only a function that takes the
	// request can be given one; for others Invoke fails with CodeTooLarge, and
	// has read nothing of it. It is read until the answer ends at most; when
	// that comes first it is closed, perhaps twice. Close must end a Read that
	// waits.
	Stream io.ReadCloser

	// Timeout is how long the caller waits for the last byte of the answer, from
	// when the call is sent, if that is less than it may run. Then the call fails
	// with CodeTimeout for its caller, and runs on. 0 is no such limit.
	Timeout time.Duration

	// What a function that takes the request gets to see. Any other can be
	// called by GET, HEAD and POST alone, and with nothing below its ref.
	Method string
	Target string // path and query as the caller sent them
	Root   string // what of the path names the function, as the caller sent it
	Below  string // what of the path follows that: empty, or with a slash in front
	Host   string
	Header http.Header

	// Trace is filled in by Invoke, whether it succeeds or not.
	Trace Trace
}

// Result is what a call came to: the function's own response, or its plain
// value as {"result": …}.
type Result struct {
	Status      int
	ContentType string
	Header      http.Header // all but the Content-Type; nil for none

	// Body ends with io.EOF when it was whole. An answer that streams may end
	// with an *Error instead, and the function goes on while it is read: to
	// close it before its end tells the function that nobody reads on.
	Body   io.ReadCloser
	Length int64 // of Body in bytes, or -1 of an answer that streams
}

// Timing says where a call's time went.
type Timing struct {
	Queue time.Duration // waiting for a slot, while none was being started for it
	Start time.Duration // waiting for a sandbox to be started or loaded
	Run   time.Duration // from sending the call to the first byte of the answer
}

// Trace is what became of a call on its way. Invoke fills it in; read it after
// Invoke has returned.
type Trace struct {
	Version *Version // that the ref resolved to; nil when it did not
	Timing  Timing
}

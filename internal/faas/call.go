package faas

import (
	"io"
	"net/http"
	"time"
)

// Invocation is what is asked of a function, as far as it can be written down: it
// holds values alone. Whoever it passes on its way to the function reads it, and
// nobody changes it.
type Invocation struct {
	ID  string `json:"id"` // accepted from the caller or minted
	Ref Ref    `json:"ref"`
	Who Caller `json:"who"`

	// Args are the text arguments of a query string, as the JSON object of
	// strings that the driver contract calls Fob-Args; empty for none.
	Args []byte `json:"args,omitempty"`

	// Body holds the typed arguments as a JSON object, or, for a function
	// that takes the request, whatever the caller sent. It is empty for none, and
	// while a LiveBody has it.
	Body []byte `json:"body,omitempty"`

	// Timeout is how long the caller waits for the last byte of the answer, from
	// when the call is sent, if that is less than the function may run. After it
	// the call fails with CodeTimeout for its caller, and runs on. 0 sets no limit.
	Timeout time.Duration `json:"timeout,omitempty"`

	// TraceParent is the call's place in its trace, as the header traceparent has it
	// (W3C Trace Context). A function that takes the request gets it in place of the
	// caller's.
	TraceParent string `json:"trace_parent,omitempty"`

	// What a function that takes the request gets to see. Any other function can be
	// called by GET, HEAD and POST alone, and with nothing below its ref.
	Method string      `json:"method,omitempty"`
	Target string      `json:"target,omitempty"` // path and query as the caller sent them
	Root   string      `json:"root,omitempty"`   // the part of the path that names the function, as the caller sent it
	Below  string      `json:"below,omitempty"`  // the part of the path after that: empty, or with a slash in front
	Host   string      `json:"host,omitempty"`
	Header http.Header `json:"header,omitempty"`
}

// LiveBody is the body of a call while its caller still has it.
type LiveBody interface {
	// Receive reads the body: whole, or, when it is longer than what is held
	// whole, its beginning, with a rest. It is called once at most.
	//
	// The rest is read until the answer ends at most; when that comes first it is
	// closed, perhaps twice. Its Close must end a Read that waits.
	Receive() (body []byte, rest io.ReadCloser, err error)

	// Drop gives back the memory of the body that Receive returned, which is not
	// used any more. To call it twice, or without Receive, is no error.
	Drop()
}

// Result is what a call came to: the function's own response, or its plain
// value as {"result": …}.
type Result struct {
	// What became of the call on its way. It is known with an error, too.
	Version *Version // that the ref resolved to; nil when it did not
	Timing  Timing

	Status      int
	ContentType string
	Header      http.Header // all but the Content-Type; nil for none

	// Body ends with io.EOF when it was whole. An answer that streams may end
	// with an *Error instead, and the function goes on while it is read: to
	// close it before its end tells the function that nobody reads on. It is nil
	// with an error.
	Body   io.ReadCloser
	Length int64 // of Body in bytes, or -1 of an answer that streams
}

// Timing says where a call's time went.
type Timing struct {
	Queue time.Duration // waiting for a slot, while none was being started for it
	Start time.Duration // waiting for a sandbox to be started or loaded
	Run   time.Duration // from sending the call to the first byte of the answer
}

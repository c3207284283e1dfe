package faas

import (
	"io"
	"net/http"
	"strings"
	"time"
)

// Invocation is a call as far as it can be written down: it has only values. On its way
// to the function everybody may read it, but nobody changes it.
type Invocation struct {
	ID  string `json:"id"` // the caller's, or a new one
	Ref Ref    `json:"ref"`
	Who Caller `json:"who"`

	From string `json:"from,omitempty"` // the address that it came from, perhaps with a port

	// Args are the text arguments from the query string. They are the JSON object of
	// strings that the driver contract calls Fob-Args, or empty.
	Args []byte `json:"args,omitempty"`

	// Body has the typed arguments as a JSON object. For a function that takes the
	// request it is whatever the caller sent. It is empty if there is none, and while a
	// LiveBody has it.
	Body []byte `json:"body,omitempty"`

	// Timeout is how long the caller waits for the last byte of the answer, counted
	// from when the call is sent, if that is shorter than the function's timeout. After
	// it the caller gets CodeTimeout, and the call runs on. 0 sets no limit.
	Timeout time.Duration `json:"timeout,omitempty"`

	// TraceParent is the call's place in its trace, in the form of the header
	// traceparent (W3C Trace Context). A function that takes the request gets it in
	// place of the caller's header.
	TraceParent string `json:"trace_parent,omitempty"`

	// TraceState goes with it: the header tracestate of a caller whose trace the call
	// continues.
	TraceState string `json:"trace_state,omitempty"`

	// ParentSpan is the ID of the span that made the call, 16 hexadecimal digits. It is
	// empty if a trace begins here.
	ParentSpan string `json:"parent_span,omitempty"`

	// These are for a function that takes the request. Any other function can only be
	// called by GET, HEAD and POST, and not below its ref.
	Method string      `json:"method,omitempty"`
	Target string      `json:"target,omitempty"` // path and query as the caller sent them
	Root   string      `json:"root,omitempty"`   // the part of the path that names the function, as the caller sent it
	Below  string      `json:"below,omitempty"`  // the rest of the path: empty, or beginning with a slash
	Host   string      `json:"host,omitempty"`
	Header http.Header `json:"header,omitempty"`
}

// LiveBody is the body of a call that its caller still has.
type LiveBody interface {
	// Receive reads the body. If the body is longer than what may be held, it returns
	// the beginning and a rest. It may be called only once.
	//
	// The rest is read at most until the answer ends, and is then closed, perhaps
	// twice. Its Close must end a Read that waits.
	Receive() (body []byte, rest io.ReadCloser, err error)

	// Drop gives back the memory of the body that Receive returned, which is no longer
	// used. It may be called twice, or without Receive.
	Drop()
}

// Result is the outcome of a call: the function's own response, or its plain value as
// {"result": …}.
type Result struct {
	// These are set even with an error.
	Version *Version // to which the ref led; nil if it led to none
	Timing  Timing
	Sandbox string // the ID of the one that had the call; empty if none had

	// Usage is what the call cost; nil if that is unknown. If the answer streams, it is
	// set when Body has ended.
	Usage *Usage

	Status      int
	ContentType string
	Header      http.Header // all headers except Content-Type; nil for none

	// Body ends with io.EOF if it is whole. An answer that streams may end with an
	// *Error instead. The function runs on while it is read; closing Body before its
	// end tells the function that nobody reads on. With an error Body is nil.
	Body   io.ReadCloser
	Length int64 // of Body in bytes, or -1 if the answer streams
}

// Usage is what a call cost, as its driver says. The zero Usage says nothing.
type Usage struct {
	CPU    time.Duration // of the process that ran the function
	Memory int64         // bytes that this process had in memory at most; 0 if unknown
	Shared bool          // other calls ran at the same time, and the figures are of all
}

// Timing says how a call spent its time.
type Timing struct {
	Queue time.Duration // waiting for a slot, while no sandbox was being started for it
	Start time.Duration // waiting for a sandbox to be started or loaded
	Load  time.Duration // the last part of Start: loading the function's code
	Run   time.Duration // from sending the call to the first byte of the answer
}

// Trace returns the IDs of a call's trace and of its own span, in hexadecimal digits.
// Both are empty if the call has no TraceParent.
func (i *Invocation) Trace() (trace, span string) {
	if len(i.TraceParent) < len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00") {
		return "", ""
	}
	return i.TraceParent[3:35], i.TraceParent[36:52]
}

// Sampled reports whether the call's trace is collected.
func (i *Invocation) Sampled() bool {
	const digits = "0123456789abcdef"
	return i.TraceParent != "" && strings.IndexByte(digits, i.TraceParent[len(i.TraceParent)-1])&1 == 1
}

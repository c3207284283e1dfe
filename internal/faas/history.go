package faas

import (
	"iter"
	"time"
)

// CallRecord is what is kept of a call that is over. It is stored and answered as JSON.
// Its fields stand in the order in which the history looks for them.
type CallRecord struct {
	ID       string `json:"id"`
	Function string `json:"function,omitempty"` // its ID; empty if the ref named none
	Outcome  string `json:"outcome"`            // "ok", an error's code, or "cancelled"
	Name     string `json:"name,omitempty"`     // the function's, when it was called
	Version  int    `json:"version,omitempty"`
	Alias    string `json:"alias,omitempty"` // by which it was called
	State    string `json:"state"`           // CallDone

	Started time.Time  `json:"started"`
	Timing  CallTiming `json:"timing"`
	Cold    bool       `json:"cold"` // it waited for a sandbox to be started or loaded

	Status   int    `json:"status,omitempty"` // of the function's answer
	Method   string `json:"method,omitempty"`
	Path     string `json:"path,omitempty"` // without the query, which has arguments
	BytesIn  int64  `json:"bytes_in"`       // of the body, as far as it was read
	BytesOut int64  `json:"bytes_out"`      // of the answer, as far as it was read
	Caller   string `json:"caller"`         // as Caller.String has it
	Address  string `json:"address,omitempty"`
	Trace    string `json:"trace,omitempty"`  // the ID of the trace, 32 hexadecimal digits
	Span     string `json:"span,omitempty"`   // the call's own ID in it, 16 hexadecimal digits
	Parent   string `json:"parent,omitempty"` // the span that made the call; empty if the trace begins with it
	Sandbox  string `json:"sandbox,omitempty"`

	Usage CallUsage `json:"usage,omitzero"`

	Error *CallError `json:"error,omitempty"`
}

// CallDone is the state of a call that is over.
const CallDone = "done"

// CallTiming is a Timing in milliseconds, with how long the whole call took.
type CallTiming struct {
	Queue float64 `json:"queue"`
	Start float64 `json:"start"`
	Load  float64 `json:"load,omitempty"` // the last part of Start
	Run   float64 `json:"run"`
	Total float64 `json:"total"` // to the last byte of the answer
}

// CallUsage is a Usage whose processor time is in milliseconds.
type CallUsage struct {
	CPU    float64 `json:"cpu"`
	Memory int64   `json:"memory,omitempty"`
	Shared bool    `json:"shared,omitempty"`
}

// CallError says why a call failed.
type CallError struct {
	Type      string `json:"type,omitempty"` // of what the function raised
	Message   string `json:"message"`
	Line      int    `json:"line,omitempty"` // 1-based, in the function's code
	Traceback string `json:"traceback,omitempty"`
}

// CallQuery says which calls are looked up. Zero values set no bound.
type CallQuery struct {
	Functions []string // IDs; nil for all
	Version   int
	Outcome   string // or OutcomeFailed
	Caller    string // a part of it
	Trace     string
	Text      string // anywhere in the record
	Since     time.Time
	Until     time.Time
	MinRun    time.Duration
	Before    uint64 // only records with a lower number

	// After has Follow begin with the calls that have a higher number and are over.
	After uint64
}

// OutcomeFailed stands in a query for every outcome but "ok".
const OutcomeFailed = "failed"

// StoredCall is a record as the history has it.
type StoredCall struct {
	Number uint64 // higher for later records
	Call   CallRecord

	// Omitted counts calls that were left out: in Calls, there is no Call then; in
	// Follow, they came before Call.
	Omitted int
}

// UnknownCall returns the error for a call that the history does not have. One for a
// call that the caller may know nothing of is the same, to the letter.
func UnknownCall(id string) *Error {
	return Errorf(CodeUnknownCall, "there is no call %.130q in the history; it is a moment behind, and has no calls that are too old, or were left out", id)
}

// Traces collects what became of calls as spans.
type Traces interface {
	// Sample decides whether a call's trace is collected, given one whose TraceParent
	// has its caller's decision.
	Sample(call *Invocation) bool

	// Record takes a call whose trace is collected. state is its TraceState, and
	// answered is when its answer began. It does not wait for anything.
	Record(call CallRecord, state string, answered time.Time)
}

// History keeps what became of calls.
type History interface {
	// Record keeps a call. It does not wait for the disk.
	Record(call CallRecord)

	// Calls returns the calls that match, the newest first. Errors are (or wrap) *Error.
	// The end of done ends the search.
	Calls(query CallQuery, done <-chan struct{}) iter.Seq2[StoredCall, error]

	// Call finds the newest call with an ID that is of one of the functions; nil stands
	// for all. Callers choose IDs, so several calls may have the same. Without one it
	// fails with CodeUnknownCall.
	Call(id string, functions []string, done <-chan struct{}) (StoredCall, error)

	// Follow returns the calls that match and are over from now on, as they come, until
	// done is closed. It must be ranged over. With too many followers it fails with
	// CodeNoCapacity. What query.After adds is bounded: older calls are only counted in
	// Omitted, as one if nobody knows how many there were.
	Follow(query CallQuery, done <-chan struct{}) (iter.Seq[StoredCall], error)
}

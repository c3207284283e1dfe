package api

import (
	"encoding/json"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// Registered is the ID of a function that was registered.
type Registered struct {
	ID string `json:"id"`
}

// IDs are the IDs of functions, in order of creation.
type IDs struct {
	Functions []string `json:"functions"`
}

// Whereabouts says where a version runs.
type Whereabouts struct {
	Host      *string            `json:"host"` // of the first sandbox; null if there is none
	Port      *int               `json:"port"`
	Sandboxes []faas.SandboxInfo `json:"sandboxes"`
}

// Function is a function as the API shows it. Version is the one that the ref named.
type Function struct {
	ID      string         `json:"id"`
	Name    string         `json:"name,omitempty"`
	Created time.Time      `json:"created"`
	Aliases map[string]int `json:"aliases"`
	Version *faas.Version  `json:"version"`
}

// Functions is a page of functions, in order of creation.
type Functions struct {
	Functions []Function `json:"functions"`
	Next      *string    `json:"next"` // the value of after for the next page, or null
}

// ShownFunction is a function with its newest versions.
type ShownFunction struct {
	Function
	Versions []*faas.Version `json:"versions"` // newest first
	Next     *string         `json:"next"`     // the value of after for the next page of versions, or null
}

// ChangedFunction is the answer to a change.
type ChangedFunction struct {
	Function
	Changed bool `json:"changed"` // false if nothing had to change
}

// Versions is a page of a function's versions, newest first.
type Versions struct {
	Versions []*faas.Version `json:"versions"`
	Next     *string         `json:"next"` // the value of after for the next page, or null
}

// Secrets are all secrets, sorted by name.
type Secrets struct {
	Secrets []faas.UsedSecret `json:"secrets"`
}

// NewToken describes a token to be made. Expires is a duration from now or a time in
// RFC 3339 format; empty means never.
type NewToken struct {
	Name    string       `json:"name"`
	Grants  []faas.Grant `json:"grants"`
	Expires string       `json:"expires,omitempty"`
}

// MadeToken is a token with its secret.
type MadeToken struct {
	*faas.Token
	Secret string `json:"token"`
}

// Tokens are all tokens, in order of creation.
type Tokens struct {
	Tokens []*faas.Token `json:"tokens"`
}

// Status is "ok" or "ready".
type Status struct {
	Status string `json:"status"`
}

// Build identifies a dispatcher.
type Build struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
	Engine  string `json:"engine"`
}

// Problem is the answer to a request that failed (RFC 9457). Error is the error in the
// user's code, if that is at fault.
type Problem struct {
	Type      string       `json:"type"`
	Title     string       `json:"title"`
	Status    int          `json:"status"`
	Detail    string       `json:"detail"`
	Code      faas.Code    `json:"code"`
	CallID    string       `json:"call_id,omitempty"`
	Retryable bool         `json:"retryable"`
	Error     *faas.Raised `json:"error,omitempty"`
}

// Calls is a page of calls, the newest first.
type Calls struct {
	Calls   []faas.CallRecord `json:"calls"`
	Next    *string           `json:"next"`              // the value of after for the next page, or null
	Omitted int               `json:"omitted,omitempty"` // calls that would be on the page, and were only counted
}

// Call is all that is known of a call.
type Call struct {
	faas.CallRecord
	Log     []LogLine `json:"log,omitzero"`       // its newest lines, in order of time; nil if there are no logs to read
	LogNext *string   `json:"log_next,omitempty"` // the value of after for the page of the lines before, or nil
}

// LogPage is a page of lines, in order of time.
type LogPage struct {
	Logs []LogLine `json:"logs"`
	Next *string   `json:"next"` // the value of after for the page of the lines before, or null
}

// LogLine is a line that a function printed. It has either Text or JSON.
type LogLine struct {
	Number   uint64          `json:"number"`
	Function string          `json:"function"`
	Name     string          `json:"name,omitempty"` // the function's, now
	Version  int             `json:"version"`
	Sandbox  string          `json:"sandbox,omitempty"`
	Call     string          `json:"call,omitempty"`
	Time     time.Time       `json:"time"`
	Level    string          `json:"level"`
	Text     *string         `json:"text,omitempty"`
	JSON     json.RawMessage `json:"json,omitempty"`    // a line that is a JSON object
	More     bool            `json:"more,omitempty"`    // the line goes on in a later one
	Dropped  int             `json:"dropped,omitempty"` // how many lines are missing here
}

// OmittedCalls stands in a stream for calls that the client was too slow for.
type OmittedCalls struct {
	Omitted int `json:"omitted"`
}

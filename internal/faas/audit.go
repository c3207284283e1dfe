package faas

import "time"

// AuditEntry says who did what to what, and with which outcome. It holds names and IDs,
// never values: no code, no setting, no secret, no token's text.
type AuditEntry struct {
	Seq  uint64    `json:"seq"`  // counts from 1; the log sets it
	Time time.Time `json:"time"` // the log sets it

	Who  string `json:"who"`            // "local", "anonymous", "token 5f0c…" and the like
	From string `json:"from,omitempty"` // the remote address

	Action  string `json:"action"`            // "function.put", for example
	ID      string `json:"id,omitempty"`      // of the function, or of whatever else was changed
	Name    string `json:"name,omitempty"`    // likewise
	Version int    `json:"version,omitempty"` // of the function, or of whatever else has versions
	Request string `json:"request,omitempty"` // method and path of a request that failed
	CallID  string `json:"call_id,omitempty"` // of the request, if it has one
	Outcome string `json:"outcome"`           // "ok" or an error's code
	Omitted int    `json:"omitted,omitempty"` // how many entries like this one were only counted
}

// Values of an entry's fields that are neither error codes nor actions of routes.
const (
	AuditOK      = "ok"
	AuditRefused = "refused" // action of a request that was not let in
	AuditOmitted = "omitted" // action of the entry that counts omitted ones
)

// AuditQuery says which entries to read.
type AuditQuery struct {
	After uint64    // only entries with a higher Seq
	Since time.Time // only entries of this time or later; zero means all
	Limit int       // how many at most, the oldest of them
	Last  bool      // the newest instead of the oldest
}

// AuditLog is the append-only record of what was done.
type AuditLog interface {
	// Record appends an entry. An entry whose outcome is AuditOK is on disk when Record
	// returns; if it could not be written, the failure was logged and counted, since
	// the action itself cannot be undone. Other entries reach the disk some time later,
	// and under load they are only counted.
	Record(entry AuditEntry)

	// Read hands entries to emit in the order in which they were recorded, each as a
	// JSON object on a line of its own. If emit fails, Read stops and returns its
	// error.
	Read(query AuditQuery, emit func(line []byte) error) error
}

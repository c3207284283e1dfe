package faas

import "time"

// AuditEntry is who did what to which, and what came of it. It holds names and
// IDs, and never a value: no code, no setting, no secret, no token's text.
type AuditEntry struct {
	Seq  uint64    `json:"seq"`  // from 1, one more for each; the log sets it
	Time time.Time `json:"time"` // the log sets it

	Who  string `json:"who"`            // such as "local", "anonymous" or "token 5f0c…"
	From string `json:"from,omitempty"` // the remote address

	Action  string `json:"action"`            // such as function.put
	ID      string `json:"id,omitempty"`      // of the function, or of what else it was done to
	Name    string `json:"name,omitempty"`    // likewise
	Version int    `json:"version,omitempty"` // of the function, or of what else has versions
	Request string `json:"request,omitempty"` // method and path of one that did not succeed
	CallID  string `json:"call_id,omitempty"` // of the request, when it has one
	Outcome string `json:"outcome"`           // "ok", or an error's code
	Omitted int    `json:"omitted,omitempty"` // entries like this one that were only counted
}

// What an entry says that is not an error's code or a route's own.
const (
	AuditOK      = "ok"
	AuditRefused = "refused" // the action of a request that was not let in
	AuditOmitted = "omitted" // the action of the entry that counts others
)

// AuditQuery says which entries are read.
type AuditQuery struct {
	After uint64    // only those with a higher Seq
	Since time.Time // only those of this time or later; zero for all
	Limit int       // at most so many, the oldest of them
	Last  bool      // or the newest of them
}

// AuditLog keeps what happened, append-only.
type AuditLog interface {
	// Record appends an entry. One with AuditOK as its outcome is on disk when
	// it returns, or else the failure was logged and counted: what is told is
	// done already. Others are on disk some time later, and when there are
	// many they are only counted.
	Record(entry AuditEntry)

	// Read hands entries to emit, each a JSON object on a line of its own, in
	// the order in which they came. An error of emit's ends it, and is returned.
	Read(query AuditQuery, emit func(line []byte) error) error
}

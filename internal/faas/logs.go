package faas

import (
	"crypto/sha256"
	"encoding/hex"
	"iter"
	"time"
)

// LogLine is a line of a function's log, or a piece of one.
type LogLine struct {
	Number   uint64 // higher for lines that came later; of all functions together
	Function string // its ID
	Version  int
	Sandbox  string    // the ID of the one that sent it; empty for lines of the dispatcher
	Call     string    // the call's LogID; empty for a line that belongs to no call
	Time     time.Time // when it was written
	Level    string    // one of LogLevels
	More     bool      // the line goes on in a later one of the same call and level
	Text     []byte    // any bytes; mostly without line breaks

	// Dropped is how many lines are missing before this one, which says so. It is a line
	// of level warn without a call.
	Dropped int
}

// LogLevels are the levels that lines have.
var LogLevels = []string{"stdout", "stderr", "debug", "info", "warn", "error"}

// LogQuery says which lines are looked up. Zero values set no bound.
type LogQuery struct {
	Functions []string // IDs; nil for all
	Call      string   // its LogID
	Version   int
	Levels    []string
	Since     time.Time
	Until     time.Time
	Text      string // each of its terms must be in the line
	Before    uint64 // only lines with a lower number
	After     uint64 // only lines with a higher number
}

// LogWriter takes the lines of functions.
type LogWriter interface {
	// Write keeps a line. It sets its Number, and may wait for the disk. It does not keep
	// Text. What it cannot keep it counts as lost.
	Write(line LogLine)
}

// Logs keeps the lines of functions.
type Logs interface {
	LogWriter

	// Lines returns the lines that match, those with the highest numbers first. Errors
	// are (or wrap) *Error. The end of done ends the search.
	Lines(query LogQuery, done <-chan struct{}) iter.Seq2[LogLine, error]

	// Follow returns the lines that match and come from now on, until done is closed. It
	// must be ranged over. A line whose Dropped is not 0 and which has no function
	// stands for lines that the follower was too slow for. With too many followers it
	// fails with CodeNoCapacity. With query.After it begins with the lines that came since;
	// they are bounded: older ones are only counted in Dropped, as one if nobody knows how
	// many there were.
	Follow(query LogQuery, done <-chan struct{}) (iter.Seq[LogLine], error)
}

// maxLogID is how long a call's ID may be in a log.
const maxLogID = 64

// LogID returns how a call is called in logs: by its ID, or by a hash of one that is
// too long, or is what stands for no call.
func LogID(call string) string {
	if len(call) <= maxLogID && call != "-" {
		return call
	}
	sum := sha256.Sum256([]byte(call))
	return hex.EncodeToString(sum[:])
}

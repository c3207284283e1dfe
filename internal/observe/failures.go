package observe

import (
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/faas"
)

const (
	// failureRate is how many failed calls of a function have a line in the log in a
	// second, and failureBurst how many may have one at once after a pause.
	failureRate  = 5
	failureBurst = 20

	// maxFailing is how many functions have an account of their own. All others share one.
	maxFailing = 1000

	// tellEvery is how often the log tells how many failures had no line.
	tellEvery = 10 * time.Second

	// maxFailureText is how many bytes of an error's first line are logged.
	maxFailureText = 500
)

// Failures logs a line of level warn for each call that failed: so many a second for each
// function, and how many were left out. It is at rest, without goroutine or timer, while
// nothing fails. A nil *Failures logs nothing.
type Failures struct {
	log  zerolog.Logger
	name func(id string) string

	mu     sync.Mutex
	each   map[string]*account // by the function's ID
	rest   account             // of the functions for which each has no room
	timer  *time.Timer         // runs while there is an account
	closed bool
}

// NewFailures returns Failures that write to log. name returns the name of a function, or
// "". The caller must call Close.
func NewFailures(log zerolog.Logger, name func(id string) string) *Failures {
	return &Failures{log: log, name: name, each: map[string]*account{}}
}

// account says how many lines a function may have. The zero account is unused.
type account struct {
	used float64 // of failureBurst lines
	at   time.Time
	left int // failures without a line, until the log tells how many
}

// take reports whether one more failure may have a line. If not, it is counted.
func (a *account) take(now time.Time) bool {
	a.pass(now)
	if a.used > failureBurst-1 {
		a.left++
		return false
	}
	a.used++
	return true
}

// pass gives back what came free in the time that has passed.
func (a *account) pass(now time.Time) {
	a.used = max(0, a.used-max(0, now.Sub(a.at).Seconds())*failureRate)
	a.at = now
}

// failed logs a call that failed. A call whose caller went away did not: nobody knows how
// it would have ended, and a client that hangs up says nothing of the function. Calls of
// functions that do not exist have no line, or strangers could fill the log with them.
func (f *Failures) failed(call *faas.Invocation, v *faas.Version, err error) {
	code := faas.CodeOf(err)
	if f == nil || v == nil && code == faas.CodeUnknownFunction {
		return
	}
	id, name, number := "", call.Ref.Name, 0
	if v != nil {
		id, number = v.FunctionID, v.Number
	}
	if !f.admit(id, time.Now()) {
		return
	}
	if name == "" && id != "" {
		name = f.name(id)
	}
	f.log.Warn().Str("call", call.ID).Str("function", id).Str("name", name).Int("version", number).
		Str("outcome", string(code)).Str("error", firstLine(err.Error())).Msg("a call failed")
}

// admit reports whether a failure of a function may have a line.
func (f *Failures) admit(id string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.each[id]
	if a == nil {
		a = &f.rest
		if len(f.each) < maxFailing {
			a = &account{}
			f.each[id] = a
		}
	}
	if f.timer == nil && !f.closed {
		f.timer = time.AfterFunc(tellEvery, f.tick)
	}
	return a.take(now)
}

// tick tells what was left out, and comes again while there is an account.
func (f *Failures) tick() {
	f.tell(time.Now())
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.each) == 0 || f.closed {
		f.timer = nil
	} else {
		f.timer.Reset(tellEvery)
	}
}

// tell logs how many failures of each function had no line since it was told last, and
// forgets the accounts that are as good as new.
func (f *Failures) tell(now time.Time) {
	left := map[string]int{}
	f.mu.Lock()
	for id, a := range f.each {
		if a.pass(now); a.left > 0 {
			left[id], a.left = a.left, 0
		} else if a.used == 0 {
			delete(f.each, id)
		}
	}
	others := f.rest.left
	f.rest.left = 0
	f.mu.Unlock()
	const message = "more calls failed than the log has lines for"
	for id, n := range left {
		f.log.Warn().Str("function", id).Str("name", f.name(id)).Int("left_out", n).Msg(message)
	}
	if others > 0 {
		f.log.Warn().Int("left_out", others).Msg(message + ", of many functions")
	}
}

// Close tells what is left to tell. Failures that come later have lines, but are told of
// no more.
func (f *Failures) Close() {
	f.mu.Lock()
	f.closed = true
	if f.timer != nil {
		f.timer.Stop()
	}
	f.mu.Unlock()
	f.tell(time.Now())
}

// firstLine returns the first line of an error's text that is not empty, or its beginning
// if it is long. The log escapes what else is in it.
func firstLine(text string) string {
	text = strings.TrimSpace(text)
	if end := strings.IndexAny(text, "\n\v\f\r\u0085\u2028\u2029"); end >= 0 {
		text = text[:end]
	}
	return faas.Clip(text, maxFailureText)
}

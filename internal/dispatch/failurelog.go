package dispatch

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

const (
	// failureQuiet is how long a log must be silent after a failure before the failure is
	// written: the function printed before it failed, so that comes first. A function that
	// goes on printing holds it up for failurePatience at most.
	failureQuiet    = 100 * time.Millisecond
	failurePatience = 2 * time.Second
	failureStep     = 10 * time.Millisecond

	// maxFailures is how many bytes of failures wait to be written for a sandbox, with
	// lineCost for each line. A failure that has no room is dropped and counted.
	maxFailures = 1 << 20
)

// A failure is what a log will say of a call that failed, or of a load.
type failure struct {
	call  string // empty for a load
	at    time.Time
	lines []string
}

// failureText returns what a function's log says of an error: the traceback, if there is
// one. It returns "" for an error that is not the function's own.
func failureText(err error) string {
	e, ok := errors.AsType[*faas.Error](err)
	if !ok || errors.Is(err, sandbox.ErrNotSent) {
		return ""
	}
	switch info := e.Code.Info(); {
	case e.Raised != nil && e.Raised.Traceback != "" && (info.Status >= http.StatusInternalServerError || e.Code == faas.CodeBadCode):
		return e.Raised.Traceback
	case e.Code == faas.CodeBadCode, e.Code == faas.CodeInternal, e.Code.FunctionsFault() && info.Status >= http.StatusInternalServerError:
		return e.Message
	}
	return ""
}

// fail has the log say that a call failed, or a load if there is no ID. It waits for
// nothing. A nil listener keeps nothing.
func (l *logListener) fail(call string, err error) {
	text := ""
	if l != nil {
		text = strings.TrimRight(failureText(err), "\r\n")
	}
	if text == "" {
		return
	}
	f := failure{call: call, at: time.Now(), lines: strings.Split(text, "\n")}
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := len(l.failures) > 0
	if waiting && l.failureBytes+f.cost() > maxFailures {
		l.missed += len(f.lines)
		return
	}
	l.failures = append(l.failures, f)
	l.failureBytes += f.cost()
	if !waiting {
		l.background(l.tellFailures) // if the dispatcher is closing, its calls have ended
	}
}

// cost returns how many bytes of the log a failure counts as.
func (f *failure) cost() (bytes int) {
	for _, line := range f.lines {
		bytes += len(line) + lineCost
	}
	return bytes
}

// tellFailures writes the failures that wait, in order, until there are no more.
func (l *logListener) tellFailures() {
	for more := true; more; {
		l.mu.Lock()
		f := l.failures[0]
		l.mu.Unlock()
		for l.behind(f.at) && l.sleep(failureStep) {
		}
		line := l.from
		line.Call, line.Level, line.Time = f.call, "error", f.at
		for _, text := range f.lines {
			line.Text = []byte(text)
			l.to.Write(line)
			if l.ctx.Err() == nil {
				l.spend(len(text) + lineCost)
			}
		}
		l.mu.Lock()
		l.failureBytes -= f.cost()
		l.failures[0] = failure{}
		l.failures = l.failures[1:]
		missed := l.missed
		more, l.missed = len(l.failures) > 0, 0
		l.mu.Unlock()
		if missed > 0 {
			line.Call, line.Level, line.Dropped = "", "warn", missed
			line.Text = fmt.Appendf(nil, "%d lines are missing here: calls failed faster than was taken", missed)
			l.to.Write(line)
		}
	}
}

// behind reports whether lines from before a time may still come.
func (l *logListener) behind(at time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, silent := time.Now(), at
	if l.came.After(silent) {
		silent = l.came
	}
	return !l.written.After(at) && now.Sub(silent) < failureQuiet && now.Sub(at) < failurePatience
}

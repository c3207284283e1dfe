package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// exitFunction is the status of a command that failed because of the function: its code,
// its arguments or its limits. Every other failure is a 1.
const exitFunction = 3

// Problem is a dispatcher's answer that something failed.
type Problem struct {
	api.Problem
	Fault faas.Fault
	file  string        // where the code came from, if the error is in it
	code  string        // that code, or empty
	wait  time.Duration // until it may be tried again; 0 if that is not said
}

// problem returns the error that an answer describes.
func problem(response *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return err
	}
	p := &Problem{Fault: faas.Fault(response.Header.Get("Fob-Error"))}
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && seconds > 0 {
		p.wait = time.Duration(seconds) * time.Second
	}
	if json.Unmarshal(text, &p.Problem) == nil && p.Detail != "" {
		p.Status = response.StatusCode
		return p
	}
	return fmt.Errorf("the answer was %s: %.500q", response.Status, text)
}

// foreign returns the error for an answer that no dispatcher gave, but a proxy before it
// or a stranger at its address.
func foreign(response *http.Response) error {
	if to := response.Header.Get("Location"); response.StatusCode/100 == 3 && to != "" {
		return fmt.Errorf("%s sends elsewhere, to %.500q: if the dispatcher is there, give that address", response.Request.URL.Redacted(), to)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, 500))
	if err != nil {
		return err
	}
	return fmt.Errorf("what is at %s is no dispatcher: the answer was %s: %q", response.Request.URL.Redacted(), response.Status, text)
}

// Error implements error. It is one line.
func (p *Problem) Error() string { return fmt.Sprintf("%s (%d)", p.Detail, p.Status) }

// ExitCode returns the status of a command that failed with p.
func (p *Problem) ExitCode() int {
	if p.Fault == faas.FaultFunction {
		return exitFunction
	}
	return 1
}

// exit is an error that has been told, and only decides the status.
type exit int

func (e exit) Error() string { return fmt.Sprintf("status %d", int(e)) }

// hinted is an error with the arguments of the command to try next.
type hinted struct {
	error
	next string
}

func (h *hinted) Unwrap() error { return h.error }

// Report tells why a command of a program failed, and returns the process's status. out
// is to make harmless what is not printable.
func Report(out io.Writer, program string, err error) (status int) {
	if told, ok := errors.AsType[exit](err); ok {
		return int(told)
	}
	if all, ok := errors.AsType[manyErrors](err); ok && len(all) > 1 {
		for i, one := range all {
			if s := Report(out, program, one); i == 0 {
				status = s
			}
		}
		return status
	}
	fmt.Fprintf(out, "%s: error: %v\n", program, err)
	if all, ok := errors.AsType[manyErrors](err); ok {
		err = all[0]
	}
	if hint, ok := errors.AsType[*hinted](err); ok {
		fmt.Fprintf(out, "try: %s %s\n", program, hint.next)
	}
	p, ok := errors.AsType[*Problem](err)
	if !ok {
		return 1
	}
	p.explain(out)
	if next := p.next(); next != "" {
		fmt.Fprintf(out, "try: %s %s\n", program, next)
	}
	return p.ExitCode()
}

// explain shows the error in its code, or else the traceback.
func (p *Problem) explain(out io.Writer) {
	if p.Problem.Error == nil {
		return
	}
	explain(out, p.Problem.Error, p.file, p.code)
}

// explain shows where an error is in the code, if that is known, and its traceback.
func explain(out io.Writer, raised *faas.Raised, file, code string) {
	if at := pointAt(code, raised); at != "" {
		fmt.Fprintf(out, "\n%s, line %d:\n%s", file, raised.Line, at)
	}
	if trace := strings.TrimRight(raised.Traceback, "\n"); trace != "" {
		fmt.Fprintf(out, "\n%s\n", strings.ReplaceAll(trace, "\t", "    "))
	}
}

// nextSteps are the commands to try after an error. %s stands for the call's ID.
var nextSteps = map[faas.Code]string{
	faas.CodeUnauthorized:    "context set --help",
	faas.CodeUnknownFunction: "list",
	faas.CodeUnknownCall:     "calls",
	faas.CodeUnknownSecret:   "secret list",
	faas.CodeMissingSecret:   "secret list",
	faas.CodeUnknownToken:    "token list",
	faas.CodeRaised:          "calls --call %s",
	faas.CodeBadResult:       "calls --call %s",
	faas.CodeSandboxDied:     "calls --call %s",
	faas.CodeTimeout:         "calls --call %s",
	faas.CodeNoCapacity:      "health",
	faas.CodeNotPermitted:    "deploy --help",
}

// next returns the arguments of the command to try next, or "".
func (p *Problem) next() string {
	step, ok := nextSteps[p.Code]
	if !ok || !strings.Contains(step, "%s") {
		return step
	}
	if p.CallID == "" {
		return ""
	}
	return fmt.Sprintf(step, p.CallID)
}

// unexpected finds in a compiler's message what it did not expect.
var unexpected = regexp.MustCompile(`(?:Unexpected [a-z]+|unmatched) '(.+?)'|'(.)' was never closed`)

// pointAt returns a line of the code with a caret below what is wrong in it, or "". It is
// below what the compiler's message names, if that is in the line once, or where the
// traceback has a caret of its own. Otherwise all of the line is underlined.
func pointAt(code string, raised *faas.Raised) string {
	lines := strings.Split(code, "\n")
	if code == "" || raised.Line < 1 || raised.Line > len(lines) {
		return ""
	}
	text := strings.ReplaceAll(strings.TrimRight(lines[raised.Line-1], "\r"), "\t", "    ")
	bare := strings.TrimSpace(text)
	if bare == "" {
		return ""
	}
	indent := len(text) - len(strings.TrimLeft(text, " "))
	mark := strings.Repeat(" ", indent) + strings.Repeat("^", columns(bare))
	if m := unexpected.FindStringSubmatch(raised.Message); m != nil {
		if token := m[1] + m[2]; strings.Count(text, token) == 1 {
			before, _, _ := strings.Cut(text, token)
			mark = strings.Repeat(" ", columns(before)) + strings.Repeat("^", columns(token))
		}
	}
	quoted := strings.Split(strings.ReplaceAll(raised.Traceback, "\t", "    "), "\n")
	for i := 1; i < len(quoted); i++ {
		below := quoted[i]
		if strings.TrimSpace(quoted[i-1]) == bare && strings.TrimSpace(below) != "" && strings.Trim(below, " ^~") == "" {
			shift := indent - (len(quoted[i-1]) - len(strings.TrimLeft(quoted[i-1], " ")))
			mark = strings.Repeat(" ", max(0, len(below)-len(strings.TrimLeft(below, " "))+shift)) + strings.TrimSpace(below)
		}
	}
	return "  " + text + "\n  " + mark + "\n"
}

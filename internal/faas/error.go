package faas

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Code says what kind of error it is. Codes are part of the HTTP contract: the
// table in internal/httpapi maps each to a status.
type Code string

// The codes. The comment gives the status that the HTTP contract has for it.
const (
	CodeBadRequest       Code = "bad_request"        // 400: malformed
	CodeUnauthorized     Code = "unauthorized"       // 401: no token, or a bad one
	CodeForbidden        Code = "forbidden"          // 403: the token does not allow it
	CodeNotPermitted     Code = "not_permitted"      // 403: the operator does not allow such settings any more
	CodeUnknownFunction  Code = "unknown_function"   // 404
	CodeUnknownToken     Code = "unknown_token"      // 404
	CodeBadArguments     Code = "bad_arguments"      // 404: wrong number or type of parameters
	CodeUnknownSecret    Code = "unknown_secret"     // 404
	CodeUnknownRoute     Code = "unknown_route"      // 404: nothing is at that path
	CodeMethodNotAllowed Code = "method_not_allowed" // 405
	CodeNameTaken        Code = "name_taken"         // 409
	CodeConflict         Code = "conflict"           // 409: somebody else changed it meanwhile
	CodeLastToken        Code = "last_token"         // 409: without it everybody would be let in
	CodeInUse            Code = "in_use"             // 409: a function needs it
	CodeTooLarge         Code = "too_large"          // 413
	CodeUnknownLanguage  Code = "unknown_language"   // 415
	CodeBadCode          Code = "does_not_compile"   // 422: syntax error, raises at import, no callme
	CodeOverLimit        Code = "over_limit"         // 429: over the function's own limit
	CodeRateLimited      Code = "rate_limited"       // 429: too many requests of one token or address
	CodeRaised           Code = "function_raised"    // 500
	CodeBadResult        Code = "bad_result"         // 500: JSON cannot hold what it returned
	CodeMissingSecret    Code = "missing_secret"     // 500: the version names one that is not there for it
	CodeInternal         Code = "internal"           // 500: our own failure
	CodeSandboxDied      Code = "sandbox_died"       // 502: crash, out of memory
	CodeBadAnswer        Code = "bad_answer"         // 502: the driver's answer is no answer, or too large
	CodeNoCapacity       Code = "no_capacity"        // 503: no sandbox to be had in time
	CodeDraining         Code = "draining"           // 503: shutting down
	CodeStandby          Code = "standby"            // 503: another dispatcher is active
	CodeStarting         Code = "starting"           // 503: not ready yet
	CodeStorage          Code = "storage_failed"     // 503: the database is damaged, or its disk failed
	CodeTimeout          Code = "timeout"            // 504: ran out of time
	CodeNoSpace          Code = "no_space"           // 507: the dispatcher's disk is full
)

// Error is an error of the domain. Its message is safe to show to a client.
type Error struct {
	Code    Code
	Message string

	// RetryAfter is when it is worth trying again; 0 says nothing.
	RetryAfter time.Duration

	// Raised is what the user's code did, when it was its fault.
	Raised *Raised

	// Cause is what lies beneath. It goes to the log, not to the client.
	Cause error
}

// Raised is an error in the user's code, as its driver reports it.
type Raised struct {
	Type      string `json:"type,omitempty"` // such as KeyError
	Message   string `json:"message"`
	Line      int    `json:"line,omitempty"` // 1-based, in the user's code
	Traceback string `json:"traceback,omitempty"`
}

// Errorf returns an *Error with a formatted message, all of which a client
// will see.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// UnknownFunction returns the error for a ref to no function. One for a function
// that the caller may know nothing of is the same, to the letter.
func UnknownFunction(ref Ref) *Error {
	return Errorf(CodeUnknownFunction, "there is no function %s; GET /api/functions lists those that there are", ref.ID+ref.Name)
}

// UnknownVersion returns the error for a ref to a version that fn does not have, or
// not any more.
func UnknownVersion(fn *Function, number int) *Error {
	name, why := fn.Name, ""
	if name == "" {
		name = fn.ID
	}
	if number <= fn.Latest() {
		why = fmt.Sprintf(" any more: it was dropped, for keep_versions is %d", fn.Live().Settings.KeepVersions)
	}
	return Errorf(CodeUnknownFunction, "function %s has no version %d%s; there are %s", name, number, why, ranges(fn.Versions))
}

// ranges writes ascending numbers as in 1, 40 to 91: the last of these ranges, when
// there are many.
func ranges(numbers []int) string {
	var all []string
	for i := 0; i < len(numbers); {
		end := i
		for end+1 < len(numbers) && numbers[end+1] == numbers[end]+1 {
			end++
		}
		switch text := strconv.Itoa(numbers[i]); {
		case end == i:
			all = append(all, text)
		case end == i+1:
			all = append(all, text, strconv.Itoa(numbers[end]))
		default:
			all = append(all, text+" to "+strconv.Itoa(numbers[end]))
		}
		i = end + 1
	}
	if more := len(all) - 10; more > 0 {
		all = append([]string{"…"}, all[more:]...)
	}
	return strings.Join(all, ", ")
}

// Because sets what lies beneath e and returns e.
func (e *Error) Because(cause error) *Error {
	e.Cause = cause
	return e
}

// After sets when it is worth trying again and returns e.
func (e *Error) After(d time.Duration) *Error {
	e.RetryAfter = d
	return e
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Message + ": " + e.Cause.Error()
	}
	return e.Message
}

func (e *Error) Unwrap() error { return e.Cause }

// DiskFull reports whether err says that a disk, or a quota on it, has no room.
func DiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// NoSpace returns the error for what could not be done because DiskFull is true
// of the cause. where is the setting that names the full disk's folder or file.
func NoSpace(doing, where string, cause error) *Error {
	return Errorf(CodeNoSpace, "could not %s, for the disk that has %s is full: free space there and try again", doing, where).
		After(10 * time.Second).Because(cause)
}

// CodeOf returns the code of the first *Error in err's chain, CodeInternal for
// any other error and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}

// FunctionsFault reports whether an error is the function's (its code, its
// arguments, its limits) rather than the platform's: the header Fob-Error.
func (c Code) FunctionsFault() bool {
	switch c {
	case CodeBadArguments, CodeBadCode, CodeRaised, CodeBadResult, CodeSandboxDied, CodeBadAnswer, CodeTimeout, CodeOverLimit, CodeMissingSecret:
		return true
	}
	return false
}

// Retryable reports whether the same request may well succeed later without
// anybody changing anything, and is known not to have run.
func (c Code) Retryable() bool {
	switch c {
	case CodeConflict, CodeOverLimit, CodeRateLimited, CodeNoCapacity, CodeDraining, CodeStandby, CodeStarting, CodeNoSpace:
		return true
	}
	return false
}

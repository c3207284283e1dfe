package faas

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Error is an error whose message is safe to show to a client.
type Error struct {
	Code    Code
	Message string

	// RetryAfter is how long to wait before trying again; 0 says nothing.
	RetryAfter time.Duration

	// Raised is what the user's code raised, if the error is its fault.
	Raised *Raised

	// Cause is the underlying error. It goes to the log, not to the client.
	Cause error
}

// Raised is an error in the user's code, as the driver reports it.
type Raised struct {
	Type      string `json:"type,omitempty"` // KeyError, for example
	Message   string `json:"message"`
	Line      int    `json:"line,omitempty"` // 1-based, in the user's code
	Traceback string `json:"traceback,omitempty"`
}

// Errorf returns an *Error with a formatted message. A client will see all of it.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// UnknownFunction returns the error for a ref that names no function. A function that
// the caller may not know about gets exactly the same error.
func UnknownFunction(ref Ref) *Error {
	return Errorf(CodeUnknownFunction, "there is no function %s; GET /api/functions lists those that there are", ref.ID+ref.Name)
}

// UnknownVersion returns the error for a version that fn does not have, or no longer
// has.
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

// ranges writes ascending numbers as "1, 40 to 91". Of many ranges it writes the last
// ones.
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

// Because sets the underlying error and returns e.
func (e *Error) Because(cause error) *Error {
	e.Cause = cause
	return e
}

// After sets RetryAfter and returns e.
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

// DiskFull reports whether err means that a disk, or a quota on it, is full.
func DiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// NoSpace returns the error for something that failed with a cause for which DiskFull
// is true. where is the setting that names the file or folder on the full disk.
func NoSpace(doing, where string, cause error) *Error {
	return Errorf(CodeNoSpace, "could not %s, because the disk that has %s is full: free space there and try again", doing, where).
		After(10 * time.Second).Because(cause)
}

// CodeOf returns the code of the first *Error in err's chain. It is CodeInternal for
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

package httpapi

import (
	"context"
	"errors"

	"github.com/flockofbirds/fob/internal/faas"
)

// discreet returns what a caller of a public function is told about an error. A caller
// who may not read the function learns nothing of its code, which messages and
// tracebacks reveal; the log has the first line. Nor does such a caller learn its versions and
// settings, or the dispatcher's limits.
func (s *calls) discreet(ctx context.Context, call *faas.Invocation, version *faas.Version, err error) error {
	who := call.Who
	e, ok := errors.AsType[*faas.Error](err)
	if !ok || who.May(faas.ScopeRead, nil) {
		return err
	}
	message, logged := "", true
	switch e.Code {
	case faas.CodeUnknownFunction:
		message, logged = "the function has no such version or alias", false
	case faas.CodeOverLimit:
		message, logged = "the function takes no more calls at the moment", false
	case faas.CodeNoCapacity:
		message, logged = "there is no room for the call at the moment", false
	case faas.CodeNotPermitted:
		message = "the function may not run here"
	case faas.CodeRaised, faas.CodeBadCode:
		message = "the function raised an error"
	case faas.CodeBadResult:
		message = "the function's result cannot be sent"
	case faas.CodeBadAnswer:
		message = "the function's answer cannot be sent"
	case faas.CodeSandboxDied:
		message = "the function's sandbox died"
	case faas.CodeMissingSecret:
		message = "the function lacks a secret"
	default:
		// What the driver itself says about a request helps its sender.
		if e.Raised == nil || e.Raised.Type == "" && e.Raised.Traceback == "" && e.Raised.Line == 0 {
			return err
		}
		message = "the function does not take this"
	}
	ref := faas.Ref{ID: call.Ref.ID, Name: call.Ref.Name}
	if version != nil {
		ref = faas.Ref{ID: version.FunctionID}
	}
	if ref == (faas.Ref{}) {
		return err
	}
	fn, _, missing := s.registry.Resolve(ctx, ref)
	switch {
	case missing == nil && (!isPublic(fn) || who.May(faas.ScopeRead, fn)):
		return err
	case missing != nil && e.Code == faas.CodeUnknownFunction:
		return faas.UnknownFunction(call.Ref)
	case logged && version != nil:
		return &faas.Error{
			Code: e.Code, RetryAfter: e.RetryAfter,
			Message: message + "; the dispatcher's log says more under this call_id, and so does the answer to a call with a token that may read the function",
		}
	}
	return &faas.Error{
		Code: e.Code, RetryAfter: e.RetryAfter, Cause: e.Cause, // that of a call which never began goes to the log
		Message: message + "; the answer to a call with a token that may read the function says more",
	}
}

// loggedErrors limits how many redirects of a function that are refused are logged.
// Strangers cause them, in any number.
var loggedErrors = Rate{PerSecond: 1, Burst: 20}

// logRefused logs that a function's answer is refused. For whoever watches calls this one
// went well.
func (s *calls) logRefused(call *faas.Invocation, version *faas.Version, err error) {
	if version == nil || s.hidden.allow(version.FunctionID, "") != nil {
		return
	}
	s.log.Warn().Str("call", call.ID).Str("function", version.FunctionID).Str("name", call.Ref.Name).Int("version", version.Number).
		Str("outcome", string(faas.CodeOf(err))).Err(err).Msg("a call failed")
}

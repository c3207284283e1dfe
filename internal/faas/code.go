package faas

// Code is the kind of an error. Codes are part of the HTTP contract; CodeTable says all
// about each.
type Code string

// The codes.
const (
	CodeBadRequest       Code = "bad_request"
	CodeUnauthorized     Code = "unauthorized"
	CodeForbidden        Code = "forbidden"
	CodeNotPermitted     Code = "not_permitted"
	CodeUnknownFunction  Code = "unknown_function"
	CodeUnknownToken     Code = "unknown_token"
	CodeUnknownCall      Code = "unknown_call"
	CodeBadArguments     Code = "bad_arguments"
	CodeUnknownSecret    Code = "unknown_secret"
	CodeUnknownRoute     Code = "unknown_route"
	CodeMethodNotAllowed Code = "method_not_allowed"
	CodeNameTaken        Code = "name_taken"
	CodeConflict         Code = "conflict"
	CodeLastToken        Code = "last_token"
	CodeInUse            Code = "in_use"
	CodeTooLarge         Code = "too_large"
	CodeUnknownLanguage  Code = "unknown_language"
	CodeBadCode          Code = "does_not_compile"
	CodeOverLimit        Code = "over_limit"
	CodeRateLimited      Code = "rate_limited"
	CodeRaised           Code = "function_raised"
	CodeBadResult        Code = "bad_result"
	CodeMissingSecret    Code = "missing_secret"
	CodeInternal         Code = "internal"
	CodeSandboxDied      Code = "sandbox_died"
	CodeBadAnswer        Code = "bad_answer"
	CodeNoCapacity       Code = "no_capacity"
	CodeDraining         Code = "draining"
	CodeStandby          Code = "standby"
	CodeStarting         Code = "starting"
	CodeStorage          Code = "storage_failed"
	CodeUnreadable       Code = "records_unreadable"
	CodeTimeout          Code = "timeout"
	CodeNoSpace          Code = "no_space"
)

// The codes that only HTTP needs.
const (
	CodeBadHost         Code = "bad_host"
	CodeCrossSite       Code = "cross_site"
	CodeUnknownCoding   Code = "unknown_encoding"
	CodeBadExpectation  Code = "bad_expectation"
	CodeHeadersTooLarge Code = "headers_too_large"
	CodeUnknownTransfer Code = "unknown_transfer_encoding"
	CodeUnsupportedHTTP Code = "unsupported_http_version"
)

// CodeInfo is what the HTTP contract says about a code. Its texts are Markdown.
type CodeInfo struct {
	Code      Code
	Status    int
	Fault     Fault
	Retryable bool
	Title     string // the same for all errors of the code
	When      string // in which situation it is the answer
	Remedy    string // what to do about it
}

// Fault says whose fault an error is. The header Fob-Error has it.
type Fault string

// The faults.
const (
	FaultFunction Fault = "function" // the function's code, arguments or limits
	FaultPlatform Fault = "platform" // anything else
)

const retryable, final = true, false

// CodeTable declares every code, ordered by status. The tables in the documents and the
// statuses of answers come from it.
var CodeTable = []CodeInfo{
	{CodeBadRequest, 400, FaultPlatform, final, "Malformed request",
		"a ref, query, setting, body or JSON document is malformed, or the code is empty or not text", "`detail` says what is wrong"},
	{CodeUnauthorized, 401, FaultPlatform, final, "A token is needed",
		"no token, or one that is unknown, revoked or expired", "send one as `Authorization: Bearer fob_…`"},
	{CodeForbidden, 403, FaultPlatform, final, "Not allowed",
		"the token does not allow this", "use one that does"},
	{CodeNotPermitted, 403, FaultPlatform, final, "Not permitted",
		"the operator no longer allows the version's `network` or `runtime`", "`PATCH` it, or ask the operator (`FOB_MAX_NETWORK`, `FOB_RUNTIMES`)"},
	{CodeBadHost, 403, FaultPlatform, final, "Unknown host name",
		"the header `Host` is not one of the dispatcher's names. Any path may answer so", "use its address, or add the name to `FOB_HOSTS`"},
	{CodeCrossSite, 403, FaultPlatform, final, "From another site",
		"a web page of another site made the request, or a browser made it ahead of need (`Sec-Purpose`). Any path may answer so", "set the function's `cors`; only calls can be allowed"},
	{CodeUnknownFunction, 404, FaultPlatform, final, "Unknown function",
		"there is no such function, version or alias, or the token allows nothing for it", "`GET /api/functions` lists them"},
	{CodeUnknownToken, 404, FaultPlatform, final, "Unknown token",
		"no token has that ID", "`GET /api/tokens` lists them"},
	{CodeUnknownCall, 404, FaultPlatform, final, "Unknown call",
		"the history has no call with that ID, or the token allows nothing for its function", "`GET /api/calls` lists them; `FOB_HISTORY` and `FOB_HISTORY_AGE` say for how long"},
	{CodeBadArguments, 404, FaultFunction, final, "Wrong number or type of parameters",
		"arguments are missing, surplus or of the wrong type", "`detail` shows what `callme` takes"},
	{CodeUnknownSecret, 404, FaultPlatform, final, "Unknown secret",
		"no such secret", "`GET /api/secrets` lists them"},
	{CodeUnknownRoute, 404, FaultPlatform, final, "Nothing here",
		"no such path", "the HTTP API lists them"},
	{CodeMethodNotAllowed, 405, FaultPlatform, final, "Method not allowed",
		"the path, or a function that does not take the request, does not have that method", "`Allow` lists those that it has"},
	{CodeNameTaken, 409, FaultPlatform, final, "Name taken",
		"another function has the name", "`PUT` adds a version; or choose another name"},
	{CodeConflict, 409, FaultPlatform, retryable, "Changed meanwhile",
		"somebody else changed the function at the same time", "try again"},
	{CodeLastToken, 409, FaultPlatform, final, "The last token",
		"it is the last token, and other machines can reach the dispatcher", "make another one first"},
	{CodeInUse, 409, FaultPlatform, final, "In use",
		"a function's live version names the secret", "`detail` says which; change its `secrets` first"},
	{CodeTooLarge, 413, FaultPlatform, final, "Too large",
		"the body is larger than `FOB_MAX_BODY`, and the function does not stream it; or the query is larger than 32 KB", "send less, or raise `FOB_MAX_BODY`"},
	{CodeUnknownLanguage, 415, FaultPlatform, final, "Unknown language",
		"there is no driver for `lang`", "use `python` or `node`"},
	{CodeUnknownCoding, 415, FaultPlatform, final, "Unknown content coding",
		"the body's `Content-Encoding` is not gzip or deflate. Any path that takes a body may answer so", "use one that `Accept-Encoding` of the answer lists, or none"},
	{CodeBadExpectation, 417, FaultPlatform, final, "Expectation failed",
		"the header `Expect` is not `100-continue`. Any path may answer so", "leave it out"},
	{CodeBadCode, 422, FaultFunction, final, "Code cannot be loaded",
		"a syntax error, an exception while loading, or no `callme`; nothing was stored", "see `error.line`, `error.traceback`"},
	{CodeOverLimit, 429, FaultFunction, retryable, "Function over its limit",
		"all sandboxes are busy and `queue` is full, or `max_concurrency` is 0", "wait; raise `max_scale`, `concurrency`, `queue` or `max_concurrency`"},
	{CodeRateLimited, 429, FaultPlatform, retryable, "Too many requests",
		"more requests than `FOB_RATE_TOKEN` or `FOB_RATE_ADDRESS` allow, or too many without a good token", "wait for `Retry-After`"},
	{CodeHeadersTooLarge, 431, FaultPlatform, final, "Headers too large",
		"the request's first line and headers are larger than 128 KB. Any path may answer so", "send arguments in the body of a `POST`"},
	{CodeRaised, 500, FaultFunction, final, "Function raised",
		"the function raised, or loading its code again did", "see `error.traceback`"},
	{CodeBadResult, 500, FaultFunction, final, "Result cannot be sent",
		"JSON cannot hold the result (bytes, NaN, a set …), or the `Response` is not a valid one", "return something else"},
	{CodeMissingSecret, 500, FaultFunction, final, "Secret missing",
		"a sandbox was to start, and a secret that the version names is gone or is for other functions", "set it again, or change `secrets`"},
	{CodeInternal, 500, FaultPlatform, final, "Internal error",
		"the dispatcher failed. Any path may answer so", "its log says why"},
	{CodeUnknownTransfer, 501, FaultPlatform, final, "Unknown transfer encoding",
		"the header `Transfer-Encoding` is not `chunked`. Any path may answer so", "send `chunked`, or a `Content-Length`"},
	{CodeSandboxDied, 502, FaultFunction, final, "Sandbox died",
		"the sandbox crashed or ran out of memory; the function may have run in part", "look at its code, raise `memory`"},
	{CodeBadAnswer, 502, FaultFunction, final, "Bad answer from the function",
		"what the sandbox sent is not a valid answer or is larger than `FOB_MAX_BODY`; or it redirects to a path of the dispatcher outside the function", "`detail` says which; return less, or a generator"},
	{CodeNoCapacity, 503, FaultPlatform, retryable, "No capacity",
		"no slot came free within `queue_timeout`; no sandbox started within `start_timeout`; there was no room for another one, or none could be started; " +
			"or there are too many connections or large requests at a time",
		"wait; raise `max_scale`, or `FOB_MAX_SANDBOXES`, `FOB_MAX_MEMORY`, `FOB_MAX_CONNECTIONS` or `FOB_MAX_BUFFER`; see the dispatcher's log"},
	{CodeDraining, 503, FaultPlatform, retryable, "Shutting down",
		"the dispatcher is shutting down", "try again"},
	{CodeStandby, 503, FaultPlatform, retryable, "Standby",
		"this dispatcher is a standby", "ask the active one"},
	{CodeStarting, 503, FaultPlatform, retryable, "Starting",
		"the dispatcher has just started, or its driver images are missing", "try again; see its log"},
	{CodeStorage, 503, FaultPlatform, final, "Database failed",
		"the database is damaged or its disk failed: nothing can be registered or changed. Calls go on. If it takes a restart, `/readyz` says so",
		"its log says what to do: restore a backup"},
	{CodeUnreadable, 503, FaultPlatform, final, "Records cannot be read",
		"the history of calls, or what functions printed, cannot be read. Calls go on", "the dispatcher's log says why, and what to do"},
	{CodeTimeout, 504, FaultFunction, final, "Ran out of time",
		"the code ran longer than `timeout`, or loaded longer than `FOB_LOAD_TIMEOUT`, and has been stopped; or the caller's `Fob-Timeout` is over, and the code runs on",
		"do less in a call, or raise `timeout`; or wait longer"},
	{CodeUnsupportedHTTP, 505, FaultPlatform, final, "Unsupported version of HTTP",
		"the request is not HTTP/1.1 or 1.0. Any path may answer so", "use HTTP/1.1"},
	{CodeNoSpace, 507, FaultPlatform, retryable, "Disk full",
		"a change cannot be stored, because the disk that has `FOB_DATA` or `FOB_KEY_FILE` is full; nothing was changed", "free space there; no restart is needed"},
}

// Info returns the table's entry for a code. An unknown code has CodeInternal's.
func (c Code) Info() CodeInfo {
	for i := range CodeTable {
		if CodeTable[i].Code == c {
			return CodeTable[i]
		}
	}
	return CodeInternal.Info()
}

// FunctionsFault reports whether an error is the function's rather than the
// platform's.
func (c Code) FunctionsFault() bool { return c.Info().Fault == FaultFunction }

// Retryable reports whether the same request may succeed later although nobody changes
// anything, and is known not to have run.
func (c Code) Retryable() bool { return c.Info().Retryable }

package httpapi

import (
	"net/http"
	"slices"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// Route declares everything about one route. The router, the guard and the audit log
// use it, and tests check the documents against it.
type Route struct {
	Method string // or Any
	Path   string // {ref} is one segment, * any number of them
	Doc    string // what it does or answers, in Markdown

	Scope  faas.Scope // that a caller must have; empty if everybody may
	Span   Span       // the functions for which the caller must have it
	Needs  Needs      // of the backend
	Action string     // in the audit log; empty if the route changes nothing

	Query    []string // names of parameters that may be given once; nil if the query is not checked
	Settings bool     // the query may also have a function's settings
	Takes    any      // a value of the body's type, or its media type; nil for no body
	Gives    Answers
	Fails    []faas.Code // besides those that Codes adds

	Sandboxes bool // a sandbox may use it with its own token; the handler checks for what
	Standby   bool // open on standby, where it reveals nothing about functions
	Unlimited bool // exempt from the rate limit

	handle handler
}

// Answers are a route's successful answers, by status: a value of the document's type,
// a media type for anything else, or nil for no body.
type Answers map[int]any

// media is the media type of a body that is not one of our documents.
type media string

// Span says for which functions a caller must have a route's scope.
type Span string

// The spans. SECURITY.md explains them by these words.
const (
	ForAll Span = "all"
	ForOne Span = "one"    // for the one in the path; without the scope it seems not to exist
	Listed Span = "listed" // for any; the answer has only those
	Named  Span = "named"  // for the one in the query; the handler checks it
)

// Needs says how much of the backend a route needs.
type Needs int

// What a route may need. Each includes those before it.
const (
	Nothing    Needs = iota
	DataFolder       // tokens, audit log, storage; they are there even if no dispatcher runs
	Dispatcher
)

// Any stands for every method by which a function can be called: all but TRACE and
// CONNECT.
const Any = "any"

// resources answer the routes.
type resources struct {
	calls     *calls
	functions *functions
	secrets   *secrets
	tokens    *tokens
	history   *history
	ops       *ops
	page      *webpage
}

// Routes returns all routes.
func Routes() []Route { return routes(&resources{}) }

// routes is the one table of routes, in the order of the documents.
func routes(s *resources) []Route {
	page := []string{"limit", "after"}
	draft := []string{"lang", "name"}

	// Codes that several routes share.
	type codes = []faas.Code
	one := codes{faas.CodeBadRequest, faas.CodeUnknownFunction}
	change := codes{faas.CodeInternal, faas.CodeStorage, faas.CodeNoSpace}
	load := codes{faas.CodeConflict, faas.CodeTooLarge, faas.CodeBadCode, faas.CodeSandboxDied, faas.CodeNoCapacity, faas.CodeDraining, faas.CodeTimeout}
	call := codes{faas.CodeBadRequest, faas.CodeNotPermitted, faas.CodeUnknownFunction, faas.CodeBadArguments, faas.CodeTooLarge, faas.CodeOverLimit,
		faas.CodeRaised, faas.CodeBadResult, faas.CodeMissingSecret, faas.CodeInternal, faas.CodeSandboxDied, faas.CodeBadAnswer,
		faas.CodeNoCapacity, faas.CodeDraining, faas.CodeTimeout}

	return []Route{
		{
			Method: "POST", Path: "/api/gen", Doc: "registers a function: the body is the code, or a JSON object with it. Answers `{\"id\": …}`, and `Location`",
			Scope: faas.ScopeDeploy, Span: Named, Needs: Dispatcher, Action: "function.create",
			Query: draft, Settings: true, Takes: media("*/*"), Gives: Answers{200: api.Registered{}},
			Fails:  slices.Concat(load, change, codes{faas.CodeBadRequest, faas.CodeNameTaken, faas.CodeUnknownLanguage}),
			handle: s.functions.generate,
		},
		{
			Method: "GET", Path: CallPrefix + "{ref}", Doc: "calls a function, with arguments from the query",
			Scope: faas.ScopeInvoke, Span: ForOne, Needs: Dispatcher,
			Gives: Answers{200: media("*/*")}, Fails: call,
			handle: s.calls.call,
		},
		{
			Method: "POST", Path: CallPrefix + "{ref}", Doc: "calls a function, with arguments from the query and the JSON object, or the form, in the body",
			Scope: faas.ScopeInvoke, Span: ForOne, Needs: Dispatcher,
			Takes: media("*/*"), Gives: Answers{200: media("*/*")}, Fails: call,
			handle: s.calls.call,
		},
		{
			Method: Any, Path: CallPrefix + "{ref}", Doc: "calls a function that takes the request. HEAD works wherever GET does",
			Scope: faas.ScopeInvoke, Span: ForOne, Needs: Dispatcher,
			Takes: media("*/*"), Gives: Answers{200: media("*/*")}, Fails: slices.Concat(call, codes{faas.CodeMethodNotAllowed}),
			handle: s.calls.call,
		},
		{
			Method: Any, Path: CallPrefix + "{ref}/*", Doc: "the same, with a path for the function",
			Scope: faas.ScopeInvoke, Span: ForOne, Needs: Dispatcher,
			Takes: media("*/*"), Gives: Answers{200: media("*/*")}, Fails: slices.Concat(call, codes{faas.CodeMethodNotAllowed, faas.CodeUnknownRoute}),
			handle: s.calls.call,
		},
		{
			Method: "GET", Path: "/api/stats", Doc: "the IDs of all functions",
			Scope: faas.ScopeRead, Span: Listed, Needs: Dispatcher,
			Gives:  Answers{200: api.IDs{}},
			handle: s.functions.stats,
		},
		{
			Method: "GET", Path: "/api/meta/{ref}", Doc: "where a version runs: host and port of a sandbox (null when none runs), and all sandboxes. Drivers ask for a token there",
			Scope: faas.ScopeRead, Span: ForOne, Needs: Dispatcher,
			Gives: Answers{200: api.Whereabouts{}}, Fails: one,
			handle: s.functions.meta,
		},
		{
			Method: "GET", Path: "/api/cs/{ref}", Doc: "the code, as text",
			Scope: faas.ScopeRead, Span: ForOne, Needs: Dispatcher, Sandboxes: true,
			Gives: Answers{200: media("text/plain")}, Fails: slices.Concat(one, codes{faas.CodeInternal}),
			handle: s.functions.code,
		},
		{
			Method: "GET", Path: "/api/functions", Doc: "the functions, 100 a page; `?limit=` up to 1000, `?after=` what `next` said, `?name=` how their names begin",
			Scope: faas.ScopeRead, Span: Listed, Needs: Dispatcher,
			Query: []string{"name", "limit", "after"}, Gives: Answers{200: api.Functions{}}, Fails: codes{faas.CodeBadRequest},
			handle: s.functions.list,
		},
		{
			Method: "GET", Path: "/api/functions/{ref}", Doc: "a function, its settings and its newest ten versions",
			Scope: faas.ScopeRead, Span: ForOne, Needs: Dispatcher,
			Gives: Answers{200: api.ShownFunction{}}, Fails: one,
			handle: s.functions.get,
		},
		{
			Method: "GET", Path: "/api/functions/{ref}/versions", Doc: "its versions, the newest first; `?limit=` and `?after=` as above",
			Scope: faas.ScopeRead, Span: ForOne, Needs: Dispatcher,
			Query: page, Gives: Answers{200: api.Versions{}}, Fails: one,
			handle: s.functions.versions,
		},
		{
			Method: "PUT", Path: "/api/functions/{ref}", Doc: "creates a function by name (201), or adds a version (200); `changed` is false when nothing had to change",
			Scope: faas.ScopeDeploy, Span: ForOne, Needs: Dispatcher, Action: "function.put",
			Query: draft, Settings: true, Takes: media("*/*"), Gives: Answers{200: api.ChangedFunction{}, 201: api.ChangedFunction{}},
			Fails:  slices.Concat(one, load, change, codes{faas.CodeUnknownLanguage}),
			handle: s.functions.put,
		},
		{
			Method: "PATCH", Path: "/api/functions/{ref}", Doc: "changes settings: adds a version with the same code; `changed` as above. `?name=` alone renames the function",
			Scope: faas.ScopeDeploy, Span: ForOne, Needs: Dispatcher, Action: "function.patch",
			Query: []string{"name"}, Settings: true, Takes: media("application/json"), Gives: Answers{200: api.ChangedFunction{}},
			Fails:  slices.Concat(one, load, change, codes{faas.CodeNameTaken}),
			handle: s.functions.patch,
		},
		{
			Method: "DELETE", Path: "/api/functions/{ref}", Doc: "deletes a function with all its versions (204); calls in flight finish",
			Scope: faas.ScopeDeploy, Span: ForOne, Needs: Dispatcher, Action: "function.delete",
			Gives: Answers{204: nil}, Fails: slices.Concat(one, change),
			handle: s.functions.delete,
		},
		{
			Method: "GET", Path: "/api/calls",
			Doc: "what became of calls, the newest first: those of `?function=`, `?version=`, `?outcome=` (`failed` is all but `ok`), `?caller=`, `?trace=`, " +
				"from `?since=` to `?until=`, that ran for `?min_run=` or longer, with `?text=` anywhere; `?limit=` and `?after=` as above; `?follow=true` streams those to come",
			Scope: faas.ScopeRead, Span: Listed, Needs: Dispatcher,
			Query: historyParameters, Gives: Answers{200: api.Calls{}},
			Fails:  codes{faas.CodeBadRequest, faas.CodeUnknownFunction, faas.CodeUnknownCall, faas.CodeNoCapacity, faas.CodeUnreadable},
			handle: s.history.list,
		},
		{
			Method: "GET", Path: "/api/calls/{id}", Doc: "a call, with what it printed, and its error and traceback if it failed",
			Scope: faas.ScopeRead, Span: Listed, Needs: Dispatcher,
			Gives: Answers{200: api.Call{}}, Fails: codes{faas.CodeUnknownCall, faas.CodeNoCapacity, faas.CodeUnreadable},
			handle: s.history.get,
		},
		{
			Method: "GET", Path: "/api/logs",
			Doc: "what functions printed, the newest 100 lines, in order of time: those of `?function=`, `?call=`, `?version=`, `?level=`, " +
				"from `?since=` to `?until=`, with `?text=`; `?limit=` and `?after=` as above; `?follow=true` streams those to come",
			Scope: faas.ScopeRead, Span: Listed, Needs: Dispatcher,
			Query: logParameters, Gives: Answers{200: api.LogPage{}},
			Fails:  codes{faas.CodeBadRequest, faas.CodeUnknownFunction, faas.CodeUnknownCall, faas.CodeNoCapacity, faas.CodeUnreadable},
			handle: s.history.lines,
		},
		{
			Method: "POST", Path: "/api/tokens", Doc: "makes a token (201), and shows its secret this once",
			Scope: faas.ScopeAdmin, Span: ForAll, Needs: DataFolder, Action: "token.create",
			Takes: api.NewToken{}, Gives: Answers{201: api.MadeToken{}}, Fails: slices.Concat(change, codes{faas.CodeBadRequest, faas.CodeTooLarge}),
			handle: s.tokens.create,
		},
		{
			Method: "GET", Path: "/api/tokens", Doc: "the tokens, without their secrets",
			Scope: faas.ScopeAdmin, Span: ForAll, Needs: DataFolder,
			Gives:  Answers{200: api.Tokens{}},
			handle: s.tokens.list,
		},
		{
			Method: "DELETE", Path: "/api/tokens/{id}", Doc: "revokes a token (204)",
			Scope: faas.ScopeAdmin, Span: ForAll, Needs: DataFolder, Action: "token.revoke",
			Gives: Answers{204: nil}, Fails: slices.Concat(change, codes{faas.CodeUnknownToken, faas.CodeLastToken}),
			handle: s.tokens.revoke,
		},
		{
			Method: "GET", Path: "/api/audit",
			Doc: "the audit log, a JSON object a line: the last 1000 entries; " +
				"`?limit=` up to 10000, those behind `?after=` a `seq`, or since `?since=` a time",
			Scope: faas.ScopeAdmin, Span: ForAll, Needs: DataFolder,
			Query: []string{"limit", "after", "since"}, Gives: Answers{200: media("application/x-ndjson")}, Fails: codes{faas.CodeBadRequest},
			handle: s.ops.audit,
		},
		{
			Method: "GET", Path: "/api/backup", Doc: "a copy of the database, as `dispatcher backup` writes it",
			Scope: faas.ScopeAdmin, Span: ForAll, Needs: DataFolder, Action: "backup",
			Gives: Answers{200: media("application/octet-stream")}, Fails: slices.Concat(change, codes{faas.CodeNoCapacity}),
			handle: s.ops.backup,
		},
		{
			Method: "GET", Path: "/api/secrets", Doc: "the secrets, without their values",
			Scope: faas.ScopeDeploy, Span: ForAll, Needs: Dispatcher,
			Gives: Answers{200: api.Secrets{}}, Fails: codes{faas.CodeInternal},
			handle: s.secrets.list,
		},
		{
			Method: "PUT", Path: "/api/secrets/{name}", Doc: "sets a secret to the body, as it is (201, or 200 when it was there); `?functions=` says for which functions",
			Scope: faas.ScopeDeploy, Span: ForAll, Needs: Dispatcher, Action: "secret.put",
			Query: []string{"functions"}, Takes: media("*/*"), Gives: Answers{200: faas.Secret{}, 201: faas.Secret{}},
			Fails:  slices.Concat(change, codes{faas.CodeBadRequest, faas.CodeTooLarge}),
			handle: s.secrets.put,
		},
		{
			Method: "DELETE", Path: "/api/secrets/{name}", Doc: "deletes a secret that no live version names (204)",
			Scope: faas.ScopeDeploy, Span: ForAll, Needs: Dispatcher, Action: "secret.delete",
			Gives: Answers{204: nil}, Fails: slices.Concat(change, codes{faas.CodeBadRequest, faas.CodeUnknownSecret, faas.CodeInUse}),
			handle: s.secrets.delete,
		},
		{
			Method: "POST", Path: "/api/secrets/rotate-key", Doc: "makes a new key and seals all secrets with it",
			Scope: faas.ScopeAdmin, Span: ForAll, Needs: Dispatcher, Action: "secret.rotate_key",
			Gives: Answers{200: faas.KeyRotation{}}, Fails: change,
			handle: s.secrets.rotateKey,
		},
		{
			Method: "GET", Path: "/healthz", Doc: "200 while the process lives",
			Unlimited: true, Gives: Answers{200: api.Status{}},
			handle: s.ops.healthz,
		},
		{
			Method: "GET", Path: "/readyz",
			Doc: "200 when functions can be registered and called; else 503, and why: " +
				"also as long as the engine is away or every start of a sandbox fails",
			Unlimited: true, Gives: Answers{200: api.Status{}},
			Fails:  codes{faas.CodeNoCapacity, faas.CodeDraining, faas.CodeStandby, faas.CodeStarting, faas.CodeStorage},
			handle: s.ops.readyz,
		},
		{
			Method: "GET", Path: "/metrics", Doc: "metrics in the Prometheus format",
			Scope: faas.ScopeRead, Span: ForAll, Standby: true,
			Gives:  Answers{200: media("text/plain")},
			handle: s.ops.metrics,
		},
		{
			Method: "GET", Path: "/api/version", Doc: "the dispatcher's version and engine",
			Gives:  Answers{200: api.Build{}},
			handle: s.ops.version,
		},
		{
			Method: "GET", Path: "/api/openapi.yaml", Doc: "all of this as an OpenAPI document",
			Gives:  Answers{200: media("application/yaml")},
			handle: s.ops.openAPI,
		},
		{
			Method: "GET", Path: "/", Doc: "the page, to a browser (`Accept: text/html`); nothing to others",
			Gives: Answers{200: media("text/html")}, Fails: codes{faas.CodeUnknownRoute},
			handle: s.page.index,
		},
		{
			Method: "GET", Path: "/page/{file}", Doc: "the page's script, style, icon and texts",
			Gives: Answers{200: media("*/*")}, Fails: codes{faas.CodeUnknownRoute},
			handle: s.page.file,
		},
	}
}

// Methods returns the methods of the route.
func (rt *Route) Methods() []string {
	if rt.Method == Any {
		return slices.Concat(callMethods, moreMethods)
	}
	return []string{rt.Method}
}

// callMethods are the methods of calls to a function that does not take the request.
// One that takes it also gets moreMethods, and any other method.
var (
	callMethods = []string{http.MethodGet, http.MethodHead, http.MethodPost}
	moreMethods = []string{http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions}
)

// Parameters returns the parameters of the route's query.
func (rt *Route) Parameters() []string {
	if rt.Settings {
		return append(slices.Clone(rt.Query), faas.SettingNames()...)
	}
	return rt.Query
}

// Codes returns the codes with which the route may answer. It leaves out codes that any
// path may answer, unless they are likely on this one.
func (rt *Route) Codes() []faas.Code {
	codes := slices.Clone(rt.Fails)
	if !rt.Unlimited {
		codes = append(codes, faas.CodeRateLimited)
	}
	if rt.Scope != "" {
		codes = append(codes, faas.CodeUnauthorized, faas.CodeForbidden, faas.CodeStarting, faas.CodeStandby)
	}
	slices.Sort(codes)
	return slices.Compact(codes)
}

// Asks returns what the route requires of a caller whose token grants only that scope,
// or who shows no token (""), in the words that SECURITY.md explains.
func (rt *Route) Asks(scope faas.Scope) string {
	switch {
	case rt.Scope == "":
		return "yes"
	case scope == rt.Scope, scope == faas.ScopeAdmin:
		return string(rt.Span)
	case scope != "":
		return "–"
	case rt.Scope == faas.ScopeInvoke:
		return "public"
	case rt.Sandboxes:
		return "sandbox"
	}
	return "no"
}

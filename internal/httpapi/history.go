package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// history answers what became of calls.
type history struct {
	history  faas.History // nil if none is kept
	logs     faas.Logs    // nil if none are kept
	registry faas.Registry
	tokens   faas.Tokens
	bodies   *bodies
	leaving  context.Context // ends when the dispatcher does, and with it every stream
}

// pageBytes is how large the texts of a page are before it ends with fewer calls than
// were asked for.
const pageBytes = 2 << 20

// historyParameters are the parameters of GET /api/calls.
var historyParameters = []string{"function", "version", "outcome", "caller", "trace", "text", "since", "until", "min_run", "limit", "after", "follow"}

func (s *history) kept() error {
	if s.history == nil {
		return faas.Errorf(faas.CodeUnknownCall, "no history of calls is kept: the dispatcher's setting FOB_HISTORY is 0")
	}
	return nil
}

// list answers GET /api/calls: a page of the calls that match and whose functions the
// caller may read, the newest first, or with ?follow=true those to come.
func (s *history) list(w http.ResponseWriter, r *http.Request, q asked) error {
	if err := s.kept(); err != nil {
		return err
	}
	if err := wantValues(q.query, historyParameters); err != nil {
		return err
	}
	query, limit, follow, err := readCallQuery(q.query, time.Now())
	if err != nil {
		return err
	}
	if query.Functions, err = s.functions(r, &q.who, q.query); err != nil {
		return err
	}
	if follow {
		if query.After, err = resumeAfter(r.Header); err != nil {
			return err
		}
		return s.followCalls(w, r, &q.who, query)
	}
	page := api.Calls{Calls: []faas.CallRecord{}}
	last, size := uint64(0), 0
	for c, err := range s.history.Calls(query, r.Context().Done()) {
		if err != nil {
			return err
		}
		if len(page.Calls) == limit || size >= pageBytes { // what was left out after the last call is of the next page
			next := strconv.FormatUint(last, 10)
			page.Next = &next
			break
		}
		last = c.Number
		if c.Omitted > 0 {
			page.Omitted += c.Omitted
			continue
		}
		page.Calls = append(page.Calls, c.Call)
		if size += len(c.Call.Path); c.Call.Error != nil {
			size += len(c.Call.Error.Message) + len(c.Call.Error.Traceback)
		}
	}
	return s.give(w, string(formJSON), encode(page))
}

// functions returns the IDs of the functions whose calls are shown, or nil for all. A
// function that the caller may not read seems not to exist. One that was deleted can be
// named by its ID, by whoever may read all.
func (s *history) functions(r *http.Request, who *faas.Caller, given map[string]string) ([]string, error) {
	all := who.May(faas.ScopeRead, nil)
	text, named := given["function"]
	if !named {
		if all {
			return nil, nil
		}
		functions, err := visible(r.Context(), s.registry, *who)
		ids := []string{}
		for _, fn := range functions {
			ids = append(ids, fn.ID)
		}
		return ids, err
	}
	ref, err := faas.ParseRef(text)
	if err == nil && !ref.Bare() {
		err = faas.Errorf(faas.CodeBadRequest, "function is a function's name or ID; version says which version")
	}
	if err != nil {
		return nil, err
	}
	fn, _, err := s.registry.Resolve(r.Context(), ref)
	switch {
	case err == nil && !all && !who.May(faas.ScopeRead, fn):
		return nil, faas.UnknownFunction(ref)
	case err == nil:
		return []string{fn.ID}, nil
	case faas.CodeOf(err) == faas.CodeUnknownFunction && all && uuid.Validate(ref.ID) == nil:
		return []string{ref.ID}, nil
	}
	return nil, err
}

// get answers GET /api/calls/ID, with what the call printed. A call of a function that the caller may not read seems
// not to exist.
func (s *history) get(w http.ResponseWriter, r *http.Request, q asked) error {
	if err := s.kept(); err != nil {
		return err
	}
	id := chi.URLParam(r, "id")
	functions, err := s.functions(r, &q.who, nil)
	if err != nil {
		return err
	}
	c, err := s.history.Call(id, functions, r.Context().Done())
	if err != nil {
		return err
	}
	call := api.Call{CallRecord: c.Call}
	call.Log, call.LogNext = s.linesOf(r.Context(), &c.Call)
	return s.give(w, string(formJSON), encode(call))
}

// wantValues refuses a parameter without a value. It is mostly a variable that was not
// set, and must not stand for all.
func wantValues(given map[string]string, parameters []string) error {
	for _, name := range parameters {
		if value, ok := given[name]; ok && value == "" {
			return faas.Errorf(faas.CodeBadRequest, "%s is empty: give it a value, or leave it out to set no bound", name)
		}
	}
	return nil
}

// readCallQuery reads which calls are asked for, and how many.
func readCallQuery(given map[string]string, now time.Time) (query faas.CallQuery, limit int, follow bool, err error) {
	bad := func(format string, args ...any) (faas.CallQuery, int, bool, error) {
		return query, 0, false, faas.Errorf(faas.CodeBadRequest, format, args...)
	}
	after, limit, err := readPage(given)
	if err != nil {
		return query, 0, false, err
	}
	query.Outcome, query.Caller, query.Trace, query.Text = given["outcome"], given["caller"], given["trace"], given["text"]
	if outcome := query.Outcome; outcome != "" && !slices.Contains(outcomes(), outcome) {
		return bad("outcome %.40q is not one; there are %v", outcome, outcomes())
	}
	if after != "" {
		if query.Before, err = strconv.ParseUint(after, 10, 64); err != nil || query.Before == 0 {
			return bad("after is what next of the page before says, a number")
		}
	}
	if text, ok := given["version"]; ok {
		if query.Version, err = strconv.Atoi(text); err != nil || query.Version < 1 {
			return bad("version is a number from 1")
		}
	}
	for name, to := range map[string]*time.Time{"since": &query.Since, "until": &query.Until} {
		if text, ok := given[name]; ok {
			if *to, ok = readMoment(text, now); !ok {
				return bad("%s is a time such as 2026-01-31T12:00:00Z, or how long ago, such as 90s or 24h", name)
			}
		}
	}
	if text, ok := given["min_run"]; ok {
		if query.MinRun, err = time.ParseDuration(text); err != nil || query.MinRun < 0 {
			return bad("min_run is a duration such as 500ms or 2s")
		}
	}
	if text, ok := given["follow"]; ok {
		if follow, err = strconv.ParseBool(text); err != nil {
			return bad("follow is true or false")
		}
	}
	if follow && (after != "" || given["limit"] != "" || given["since"] != "" || given["until"] != "") {
		return bad("follow shows the calls to come: leave out limit, after, since and until")
	}
	return query, limit, follow, nil
}

// readMoment reads a time, or how long before now it is.
func readMoment(text string, now time.Time) (time.Time, bool) {
	if ago, err := time.ParseDuration(text); err == nil {
		return now.Add(-ago), ago >= 0
	}
	t, err := time.Parse(time.RFC3339, text)
	return t, err == nil
}

// outcomes returns what a call can come to, and what stands for several of them.
func outcomes() []string {
	all := []string{"ok", faas.OutcomeFailed, "cancelled"}
	for _, c := range faas.CodeTable {
		all = append(all, string(c.Code))
	}
	return all
}

package httpapi

import (
	"bufio"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// How many entries of the audit log an answer has by default, and at most.
const (
	defaultEntries = 1000
	maxEntries     = 10_000
)

// audited has h answer a request that changes something, and records the entry before
// the answer goes out. h completes the entry.
func (a *API) audited(action string, w http.ResponseWriter, r *http.Request, h func(*change) error) error {
	c := &change{ResponseWriter: w, api: a, request: r}
	c.entry.Action = action
	c.entry.Outcome = string(faas.CodeInternal) // in case of a panic
	defer c.record()
	err := h(c)
	switch {
	case err != nil && r.Context().Err() != nil && errors.Is(err, r.Context().Err()):
		c.entry.Outcome = "cancelled"
	case err != nil:
		c.entry.Outcome = string(faas.CodeOf(err))
	default:
		c.entry.Outcome = faas.AuditOK
	}
	return err
}

// change is the ResponseWriter of a request that changes something.
type change struct {
	http.ResponseWriter
	api      *API
	request  *http.Request
	entry    faas.AuditEntry
	recorded bool
}

// WriteHeader implements http.ResponseWriter. Handlers write only successful answers.
func (c *change) WriteHeader(status int) {
	c.entry.Outcome = faas.AuditOK
	c.record()
	c.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (c *change) Write(p []byte) (int, error) {
	c.entry.Outcome = faas.AuditOK
	c.record()
	return c.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (c *change) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c *change) record() {
	if c.recorded || refusal(faas.Code(c.entry.Outcome)) { // problem records refusals
		return
	}
	c.recorded = true
	c.api.record(c, c.request, c.entry)
}

// refusal reports whether a code means that a request was not let in.
func refusal(code faas.Code) bool {
	switch code {
	case faas.CodeUnauthorized, faas.CodeForbidden, faas.CodeBadHost, faas.CodeCrossSite, faas.CodeRateLimited:
		return true
	}
	return false
}

// refused records a request that was not let in.
func (a *API) refused(w http.ResponseWriter, r *http.Request, code faas.Code) {
	a.record(w, r, faas.AuditEntry{Action: faas.AuditRefused, Outcome: string(code)})
}

// record completes an entry and records it. Without a backend nothing can be changed,
// and the log belongs to another dispatcher.
func (a *API) record(w http.ResponseWriter, r *http.Request, entry faas.AuditEntry) {
	o := a.opened.Load()
	if o.has == Nothing {
		return
	}
	who := callerOf(r)
	entry.Who, entry.From = who.String(), cameFrom(r)
	if entry.Outcome != faas.AuditOK {
		entry.Request = r.Method + " " + r.URL.EscapedPath() // without the query, which has values
	}
	entry.CallID = w.Header().Get("X-Call-Id")
	if given := r.Header.Get("X-Call-Id"); entry.CallID == "" && callIDPattern.MatchString(given) {
		entry.CallID = given
	}
	o.Audit.Record(entry)
}

// cameFrom returns the address that a request comes from, or "" if it came over a Unix
// socket.
func cameFrom(r *http.Request) string {
	if r.RemoteAddr == "@" {
		return ""
	}
	return r.RemoteAddr
}

// about adds a function and its live version to an entry.
func about(entry *faas.AuditEntry, fn *faas.Function) {
	entry.ID, entry.Name, entry.Version = fn.ID, fn.Name, fn.Live().Number
}

// audit answers GET /api/audit: the entries, each a line of JSON, the newest last.
func (s *ops) audit(w http.ResponseWriter, r *http.Request, q asked) error {
	query, err := readAuditQuery(q.query)
	if err != nil {
		return err
	}
	begun := false
	begin := func() {
		begun = true
		w.Header().Set("Content-Type", "application/x-ndjson")
		inert(w.Header())
		w.WriteHeader(http.StatusOK)
	}
	client := http.NewResponseController(w)
	defer client.SetWriteDeadline(time.Time{})
	out := bufio.NewWriterSize(writerFunc(func(p []byte) (int, error) {
		if !begun {
			begin()
		}
		client.SetWriteDeadline(time.Now().Add(answerPatience)) // for each piece
		return w.Write(p)
	}), answerPiece)
	err = s.journal.Read(query, func(line []byte) error {
		_, err := out.Write(line)
		return err
	})
	if err == nil {
		err = out.Flush()
	}
	switch {
	case err != nil && begun:
		s.log.Warn().Err(err).Msg("could not send the audit log")
		abort(w, r)
	case err == nil && !begun: // there are no entries
		begin()
	}
	return err
}

// writerFunc makes an io.Writer of a function.
type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func readAuditQuery(values map[string]string) (query faas.AuditQuery, err error) {
	query.Limit = defaultEntries
	after, hasAfter := values["after"]
	since, hasSince := values["since"]
	query.Last = !hasAfter && !hasSince
	if limit, ok := values["limit"]; ok {
		query.Limit, err = strconv.Atoi(limit)
		if err != nil || query.Limit < 1 || query.Limit > maxEntries {
			return query, faas.Errorf(faas.CodeBadRequest, "limit is a number from 1 to %d", maxEntries)
		}
	}
	if hasAfter {
		if query.After, err = strconv.ParseUint(after, 10, 64); err != nil {
			return query, faas.Errorf(faas.CodeBadRequest, "after is an entry's seq, a number")
		}
	}
	if hasSince {
		if query.Since, err = time.Parse(time.RFC3339, since); err != nil {
			return query, faas.Errorf(faas.CodeBadRequest, "since is a time such as 2026-01-31T12:00:00Z")
		}
	}
	return query, nil
}

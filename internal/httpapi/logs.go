package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/buffer"
	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/telemetry"
)

// logParameters are the parameters of GET /api/logs.
var logParameters = []string{"function", "call", "version", "level", "text", "since", "until", "limit", "after", "follow"}

// lines answers GET /api/logs: the newest lines that match and whose functions the caller
// may read, in order of time, or with ?follow=true those to come.
func (s *history) lines(w http.ResponseWriter, r *http.Request, q asked) error {
	if s.logs == nil {
		return faas.Errorf(faas.CodeUnknownCall, "no logs are kept: the dispatcher's setting FOB_LOGS is 0")
	}
	if err := wantValues(q.query, logParameters); err != nil {
		return err
	}
	query, limit, follow, err := readLogQuery(q.query, time.Now())
	if err != nil {
		return err
	}
	if query.Functions, err = s.functions(r, &q.who, q.query); err != nil {
		return err
	}
	if _, named := q.query["function"]; query.Call != "" && !named {
		if err := s.kept(); err != nil {
			return err
		}
		c, err := s.history.Call(query.Call, query.Functions, r.Context().Done())
		if err != nil {
			return err
		}
		query.Functions = []string{c.Call.Function} // others may claim to have it
	}
	query.Call = faas.LogID(query.Call)
	form := formOf(r.Header, follow)
	if follow {
		if query.After, err = resumeAfter(r.Header); err != nil {
			return err
		}
		return s.followLines(w, r, &q.who, query, form)
	}
	lines, next, err := s.page(r.Context(), query, limit, pageBytes)
	if err != nil {
		return err
	}
	names := s.namer(r.Context())
	var body []byte
	if form == formJSON {
		body = encode(api.LogPage{Logs: showLines(lines, names), Next: next})
	} else {
		for _, l := range lines {
			body = form.append(body, &l, names(l.Function))
		}
	}
	return s.give(w, string(form), body)
}

// give answers with a body, which counts as a buffer until the client has it.
func (s *history) give(w http.ResponseWriter, media string, body []byte) error {
	if !s.bodies.budget.Take(int64(len(body)), buffer.Answer) {
		return full()
	}
	defer s.bodies.budget.Give(int64(len(body)))
	client := http.NewResponseController(w) // one that does not read must not hold the memory for ever
	client.SetWriteDeadline(time.Now().Add(answerPatience))
	defer client.SetWriteDeadline(time.Time{})
	inert(w.Header())
	w.Header().Set("Content-Type", media)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body) // an error has nowhere to go
	client.Flush()
	return nil
}

// Of a call's document: how many of its lines are in it, of how many bytes, and how long
// after the call a line may be written that still counts: the function may run on when its
// caller has gone, and leave threads behind.
const (
	callLines     = defaultPage
	callLineBytes = 256 << 10
	callLinesLate = 10 * time.Minute
)

// linesOf returns the newest lines of a call as its document has them, and where older
// ones begin. Without logs, or if they cannot be read, the lines are nil, and the logs have
// said why.
func (s *history) linesOf(ctx context.Context, c *faas.CallRecord) (shown []api.LogLine, next *string) {
	if s.logs == nil {
		return nil, nil
	}
	end := c.Started.Add(time.Duration(c.Timing.Total * float64(time.Millisecond)))
	lines, next, err := s.page(ctx, faas.LogQuery{
		Functions: []string{c.Function}, Call: faas.LogID(c.ID), Since: c.Started.Add(-time.Second), Until: end.Add(callLinesLate),
	}, callLines, callLineBytes)
	if err != nil {
		return nil, nil
	}
	return showLines(lines, s.namer(ctx)), next
}

// page returns the newest lines of a query in order of time, and where the page before
// them begins, or nil. It has fewer than limit if their texts have many bytes.
func (s *history) page(ctx context.Context, query faas.LogQuery, limit, bytes int) (lines []faas.LogLine, next *string, err error) {
	size := 0
	for l, err := range s.logs.Lines(query, ctx.Done()) {
		if err != nil {
			return nil, nil, err
		}
		if len(lines) == limit || size >= bytes {
			before := strconv.FormatUint(lines[len(lines)-1].Number, 10)
			next = &before
			break
		}
		lines = append(lines, l)
		size += len(l.Text) + 100
	}
	slices.Reverse(lines)
	slices.SortStableFunc(lines, func(a, b faas.LogLine) int { return a.Time.Compare(b.Time) })
	return lines, next, nil
}

// namer returns a function that tells the present name of a function, or "".
func (s *history) namer(ctx context.Context) func(id string) string {
	known := map[string]string{}
	return func(id string) string {
		name, ok := known[id]
		if !ok && id != "" {
			if fn, _, err := s.registry.Resolve(ctx, faas.Ref{ID: id}); err == nil {
				name = fn.Name
			}
			known[id] = name
		}
		return name
	}
}

// lineForm is the media type in which lines, or calls that are followed, are answered.
type lineForm string

const (
	formJSON   lineForm = "application/json"
	formNDJSON lineForm = "application/x-ndjson"
	formEvents lineForm = "text/event-stream"
	formText   lineForm = "text/plain; charset=utf-8"
)

// formOf returns the form that a client accepts, the first one that it names.
func formOf(h http.Header, follow bool) lineForm {
	for part := range strings.SplitSeq(strings.Join(h["Accept"], ","), ",") {
		media, parameters, _ := strings.Cut(part, ";")
		if refusedQuality(parameters) {
			continue
		}
		switch form := lineForm(strings.ToLower(strings.TrimSpace(media))); form {
		case formJSON:
			if follow {
				return formNDJSON
			}
			return form
		case formNDJSON, formEvents:
			return form
		case "text/plain", "*/*", "text/*":
			return formText
		}
	}
	return formText
}

// append appends a line.
func (f lineForm) append(b []byte, l *faas.LogLine, name string) []byte {
	switch {
	case f == formText:
		return appendText(b, l)
	case l.Number == 0: // the follower was too slow
		return f.frame(b, 0, encode(api.OmittedCalls{Omitted: l.Dropped}))
	}
	return f.frame(b, l.Number, encode(showLine(l, name)))
}

// frame appends a document as a line, or as an event, which has its number, unless that
// is 0, as its ID.
func (f lineForm) frame(b []byte, number uint64, document []byte) []byte {
	if f != formEvents {
		return append(append(b, document...), '\n')
	}
	if number > 0 {
		b = append(strconv.AppendUint(append(b, "id: "...), number, 10), '\n')
	}
	return append(append(append(b, "data: "...), document...), "\n\n"...)
}

// appendText appends a line for people: TIME LEVEL CALL TEXT. Nothing in it can move a
// terminal's cursor or pass for another line.
func appendText(b []byte, l *faas.LogLine) []byte {
	if l.Number == 0 {
		return append(strconv.AppendInt(append(b, "omitted "...), int64(l.Dropped), 10), '\n')
	}
	call := l.Call
	if call == "" {
		call = "-"
	}
	b = l.Time.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	b = append(append(append(append(append(append(b, ' '), l.Level...), ' '), call...), ' '), telemetry.Escape(l.Text)...)
	return append(b, '\n')
}

// showLines returns lines as documents.
func showLines(lines []faas.LogLine, names func(id string) string) []api.LogLine {
	shown := []api.LogLine{}
	for _, l := range lines {
		shown = append(shown, showLine(&l, names(l.Function)))
	}
	return shown
}

// showLine returns a line as a document. One that is a JSON object stays one.
func showLine(l *faas.LogLine, name string) api.LogLine {
	shown := api.LogLine{
		Number: l.Number, Function: l.Function, Name: name, Version: l.Version, Sandbox: l.Sandbox, Call: l.Call,
		Time: l.Time, Level: l.Level, More: l.More, Dropped: l.Dropped,
	}
	if text := bytes.TrimSpace(l.Text); !l.More && bytes.HasPrefix(text, []byte("{")) && json.Valid(text) {
		shown.JSON = bytes.ToValidUTF8(text, []byte("\ufffd"))
		return shown
	}
	text := strings.ToValidUTF8(string(l.Text), "\ufffd")
	shown.Text = &text
	return shown
}

// readLogQuery reads which lines are asked for, and how many.
func readLogQuery(given map[string]string, now time.Time) (query faas.LogQuery, limit int, follow bool, err error) {
	calls := map[string]string{}
	for _, name := range []string{"version", "text", "since", "until", "limit", "after", "follow"} {
		if value, ok := given[name]; ok {
			calls[name] = value
		}
	}
	same, limit, follow, err := readCallQuery(calls, now)
	if err != nil {
		return query, 0, false, err
	}
	query = faas.LogQuery{Call: given["call"], Version: same.Version, Since: same.Since, Until: same.Until, Text: same.Text, Before: same.Before}
	if levels, ok := given["level"]; ok {
		for level := range strings.SplitSeq(levels, ",") {
			if !slices.Contains(faas.LogLevels, level) {
				return query, 0, false, faas.Errorf(faas.CodeBadRequest, "level %.40q is not one; there are %v, several separated by commas", level, faas.LogLevels)
			}
			query.Levels = append(query.Levels, level)
		}
	}
	return query, limit, follow, nil
}

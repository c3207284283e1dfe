package history

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/journal"
)

// filter finds the records that a query asks for. It refuses most of the others by their
// bytes, without decoding them: an encoded member of a JSON object can only be a member,
// because quotes in texts are escaped.
type filter struct {
	faas.CallQuery
	functions map[string]bool // nil for all
	contains  [][]byte        // what a record must have somewhere
}

func newFilter(q faas.CallQuery) *filter {
	f := &filter{CallQuery: q}
	if q.Functions != nil {
		f.functions = map[string]bool{}
		for _, id := range q.Functions {
			f.functions[id] = true
		}
	}
	if q.Outcome != "" && q.Outcome != faas.OutcomeFailed {
		f.contains = append(f.contains, member("outcome", q.Outcome))
	}
	if q.Trace != "" {
		f.contains = append(f.contains, member("trace", q.Trace))
	}
	if q.Version > 0 {
		f.contains = append(f.contains, strconv.AppendInt([]byte(`"version":`), int64(q.Version), 10))
	}
	for _, text := range []string{q.Text, q.Caller} {
		if text != "" {
			quoted := encode(text)
			f.contains = append(f.contains, quoted[1:len(quoted)-1])
		}
	}
	return f
}

// member returns a member of a record as records have it: name and value in JSON.
func member(name, value string) []byte {
	return append([]byte(`"`+name+`":`), encode(value)...)
}

var ok = member("outcome", "ok")

// mayMatch reports whether a record may match, by its bytes. It is called concurrently.
func (f *filter) mayMatch(r journal.Record) bool {
	if f.functions != nil && !f.functions[string(functionOf(r.Payload))] {
		return false
	}
	if bytes.HasPrefix(r.Payload, omittedBegin) {
		return f.counts()
	}
	if f.Outcome == faas.OutcomeFailed && bytes.Contains(r.Payload, ok) {
		return false
	}
	for _, part := range f.contains {
		if !bytes.Contains(r.Payload, part) {
			return false
		}
	}
	return f.MinRun == 0 || runOf(r.Payload) >= millis(f.MinRun)
}

// counts reports whether calls that were left out belong to what is asked for: they went
// well, and nothing is known of them but function and minute.
func (f *filter) counts() bool {
	return (f.Outcome == "" || f.Outcome == "ok") && f.Version == 0 && f.Caller == "" && f.Trace == "" && f.Text == "" && f.MinRun == 0
}

// functionOf returns the ID of the function that a record is about, or nothing.
func functionOf(payload []byte) []byte {
	_, rest, _ := bytes.Cut(payload, []byte(`"function":"`))
	return rest[:max(bytes.IndexByte(rest, '"'), 0)]
}

// runOf returns how long the call of a record ran, in milliseconds.
func runOf(payload []byte) float64 {
	const name = `"run":`
	_, rest, _ := bytes.Cut(payload, []byte(name))
	end := bytes.IndexAny(rest, ",}")
	run, _ := strconv.ParseFloat(string(rest[:max(end, 0)]), 64)
	return run
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// read reads a record, and reports whether it does match.
func (f *filter) read(r journal.Record) (c faas.StoredCall, match bool, err error) {
	c.Number = r.Number
	if bytes.HasPrefix(r.Payload, omittedBegin) {
		var o omittedCalls
		if err := json.Unmarshal(r.Payload, &o); err != nil {
			return c, false, err
		}
		c.Omitted = o.Omitted
		return c, f.has(o.Function) && f.during(o.Minute), nil
	}
	if err := json.Unmarshal(r.Payload, &c.Call); err != nil {
		return c, false, err
	}
	return c, f.matches(&c.Call), nil
}

func (f *filter) has(function string) bool { return f.functions == nil || f.functions[function] }

func (f *filter) during(t time.Time) bool {
	return !t.Before(f.Since) && (f.Until.IsZero() || !t.After(f.Until))
}

// matches reports whether a call is asked for, but for its text, which mayMatch has seen.
func (f *filter) matches(c *faas.CallRecord) bool {
	switch {
	case !f.has(c.Function), !f.during(c.Started):
	case f.Version > 0 && c.Version != f.Version:
	case f.Outcome == faas.OutcomeFailed && c.Outcome == "ok":
	case f.Outcome != "" && f.Outcome != faas.OutcomeFailed && c.Outcome != f.Outcome:
	case f.Trace != "" && c.Trace != f.Trace:
	case !strings.Contains(c.Caller, f.Caller) && !strings.Contains(c.Address, f.Caller):
	case f.MinRun > 0 && c.Timing.Run < millis(f.MinRun):
	default:
		return true
	}
	return false
}

// search yields the records that match, the newest first, until done. It waits while
// too many others search. It skips what cannot be read and reports it; only if nothing can
// be read, it yields an error, which is the last.
func (h *History) search(before uint64, done <-chan struct{}, match func(journal.Record) bool) iter.Seq2[journal.Record, error] {
	return func(yield func(journal.Record, error) bool) {
		if h.journal == nil {
			yield(journal.Record{}, errUnreadable(nil))
			return
		}
		select {
		case h.searches <- struct{}{}:
			defer func() { <-h.searches }()
		case <-done:
			return
		}
		failed := func(err error) { h.failed(fmt.Errorf("the history: %w", err)) }
		for r, err := range journal.Search(h.folder, before, done, failed, match) {
			if err != nil {
				err = errUnreadable(err)
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

// Calls implements faas.History.
func (h *History) Calls(query faas.CallQuery, done <-chan struct{}) iter.Seq2[faas.StoredCall, error] {
	f := newFilter(query)
	return func(yield func(faas.StoredCall, error) bool) {
		if f.functions != nil && len(f.functions) == 0 {
			return
		}
		for r, err := range h.search(query.Before, done, f.mayMatch) {
			if err != nil {
				yield(faas.StoredCall{}, err)
				return
			}
			if r.Time.Before(query.Since) {
				return // it was written when its call was over, and so were all before it
			}
			c, match, err := f.read(r)
			if err != nil {
				h.failed(fmt.Errorf("the history: the record %d is none of ours: %w", r.Number, err))
			} else if match && !yield(c, nil) {
				return
			}
		}
	}
}

// Call implements faas.History.
func (h *History) Call(id string, functions []string, done <-chan struct{}) (faas.StoredCall, error) {
	f := newFilter(faas.CallQuery{Functions: functions})
	quoted := append([]byte(`{"id":`), encode(id)...)
	for r, err := range h.search(0, done, func(r journal.Record) bool { return bytes.HasPrefix(r.Payload, quoted) && f.mayMatch(r) }) {
		if err != nil {
			return faas.StoredCall{}, err
		}
		c := faas.StoredCall{Number: r.Number}
		if err := json.Unmarshal(r.Payload, &c.Call); err != nil {
			h.failed(fmt.Errorf("the history: the record %d is none of ours: %w", r.Number, err))
		} else if c.Call.ID == id {
			return c, nil
		}
	}
	return faas.StoredCall{}, faas.UnknownCall(id)
}

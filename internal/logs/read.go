package logs

import (
	"fmt"
	"iter"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/journal"
)

// ahead is more than how long a line can come before the time at which it says that it was
// written.
const ahead = 10 * time.Second

// behind is how long a line can come after the time at which it says that it was written.
const behind = 10 * time.Minute

// errUnreadable is what a client hears.
func errUnreadable(cause error) error {
	return faas.Errorf(faas.CodeUnreadable, "the functions' logs cannot be read; the dispatcher's log says why").Because(cause)
}

// oldest returns the time before which no line that came is asked for.
func (f *filter) oldest() time.Time {
	if f.Since.IsZero() {
		return time.Time{}
	}
	return f.Since.Add(-ahead)
}

// past reports whether a record, and so all before it, came too early to be asked for.
func (f *filter) past(r journal.Record, l *found) bool {
	return r.Time.Before(f.oldest()) || l.number <= f.After
}

// Lines implements faas.Logs.
func (l *Logs) Lines(query faas.LogQuery, done <-chan struct{}) iter.Seq2[faas.LogLine, error] {
	f := newFilter(query)
	return func(yield func(faas.LogLine, error) bool) {
		if l.broken != nil {
			yield(faas.LogLine{}, errUnreadable(l.broken))
			return
		}
		select {
		case l.searches <- struct{}{}:
			defer func() { <-l.searches }()
		case <-done:
			return
		}
		m := merge{next: l.candidates(f), open: func(c candidate) *source { return l.source(c, f, done) }}
		defer m.stop()
		for {
			s, err := m.newest()
			if err != nil {
				yield(faas.LogLine{}, err)
				return
			}
			if s == nil || !yield(s.line, nil) {
				return
			}
			s.advance()
		}
	}
}

// merge puts the lines of several functions in order. It opens a function's log only when
// that may have the next line.
type merge struct {
	next []candidate // not opened yet, those that were used last first
	open func(candidate) *source
	all  []*source
}

// newest returns the source with the newest line, or nil if there are no more.
func (m *merge) newest() (top *source, err error) {
	for {
		top = nil
		some := m.all[:0]
		for _, s := range m.all {
			switch {
			case s.err != nil && err == nil:
				err = s.err
			case s.ended:
				continue
			case top == nil || s.line.Number > top.line.Number:
				top = s
			}
			some = append(some, s)
		}
		m.all = some
		if err != nil {
			return nil, err
		}
		if len(m.next) == 0 || top != nil && top.came.After(m.next[0].used.Add(time.Second)) {
			return top, nil
		}
		m.all = append(m.all, m.open(m.next[0]))
		m.next = m.next[1:]
	}
}

// stop ends all sources.
func (m *merge) stop() {
	for _, s := range m.all {
		s.stop()
	}
}

// source has the lines of one function, the newest first.
type source struct {
	line  faas.LogLine
	came  time.Time
	err   error
	ended bool

	pull func() (hit, error, bool)
	stop func()
}

// hit is a line with when it came.
type hit struct {
	line faas.LogLine
	came time.Time
}

// source opens the log of a function, at its newest line.
func (l *Logs) source(c candidate, f *filter, done <-chan struct{}) *source {
	pull, stop := iter.Pull2(l.search(c, f, done))
	s := &source{pull: pull, stop: stop}
	s.advance()
	return s
}

// advance goes on to the line before.
func (s *source) advance() {
	h, err, more := s.pull()
	if s.line, s.came, s.err, s.ended = h.line, h.came, err, !more; !more {
		s.stop()
	}
}

// search returns the lines of one function that match, the newest first.
func (l *Logs) search(c candidate, f *filter, done <-chan struct{}) iter.Seq2[hit, error] {
	return func(yield func(hit, error) bool) {
		before := uint64(0)
		if !f.Until.IsZero() {
			before, _ = journal.Bound(c.folder, f.Until.Add(behind)) // Search tells the error
		}
		for r, err := range journal.Search(c.folder, before, done, l.failed, func(r journal.Record) bool {
			line, err := parseLine(r.Payload)
			return err != nil || f.past(r, &line) || f.matches(&line)
		}) {
			if err != nil {
				yield(hit{}, errUnreadable(err))
				return
			}
			line, err := parseLine(r.Payload)
			if err != nil {
				l.failed(fmt.Errorf("the record %d of %s: %w", r.Number, c.function, err))
				continue
			}
			if f.past(r, &line) || !yield(hit{line.line(c.function), r.Time}, nil) {
				return
			}
		}
	}
}

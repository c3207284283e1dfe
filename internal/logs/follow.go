package logs

import (
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/journal"
)

const (
	// maxBehind is how many lines a follower may be behind. Others are only counted for
	// it.
	maxBehind = 1000

	// maxBehindBytes is how many bytes they may have.
	maxBehindBytes = 1 << 20

	// maxFollowers is how many there may be at a time: each line is shown to all of them.
	maxFollowers = 100
)

// audience is those who follow.
type audience struct {
	some atomic.Int32
	mu   sync.Mutex
	all  map[*follower]struct{}
}

// follower gets the lines that it asked for as they come.
type follower struct {
	filter *filter
	lines  chan faas.LogLine
	bytes  atomic.Int64 // that they have
	missed int          // since it had no room for one; guarded by the audience's mu
}

// Follow implements faas.Logs.
func (l *Logs) Follow(query faas.LogQuery, done <-chan struct{}) (iter.Seq[faas.LogLine], error) {
	if l.broken != nil {
		return nil, errUnreadable(l.broken)
	}
	after := query.After
	query.After = 0 // whatever comes is shown: the number may not be of these logs
	f := &follower{filter: newFilter(query), lines: make(chan faas.LogLine, maxBehind)}
	if !l.audience.join(f) {
		return nil, faas.Errorf(faas.CodeNoCapacity, "%d clients follow logs already", maxFollowers).After(time.Second)
	}
	var before []faas.LogLine
	if after > 0 { // f is told already of what comes while this is read
		query.After = after
		var err error
		if before, err = l.since(query, done); err != nil {
			l.audience.leave(f)
			return nil, err
		}
	}
	return func(yield func(faas.LogLine) bool) {
		defer l.audience.leave(f)
		shown := map[uint64]bool{}
		for _, line := range before {
			shown[line.Number] = line.Number > 0
			if !yield(line) {
				return
			}
		}
		before = nil
		for {
			select {
			case line := <-f.lines:
				f.bytes.Add(-int64(len(line.Text)))
				if !shown[line.Number] && !yield(line) {
					return
				}
			case <-done:
				return
			case <-l.closing:
				return
			}
		}
	}, nil
}

// since returns the newest lines that came after a number, the oldest of them first, and
// before them a line that counts those that are left out. If some may be gone, or the
// number is not of these logs, it counts one.
func (l *Logs) since(query faas.LogQuery, done <-chan struct{}) (lines []faas.LogLine, err error) {
	missed, size := 0, 0
	if query.After > l.number.Load() {
		return []faas.LogLine{{Dropped: 1}}, nil
	}
	for line, err := range l.Lines(query, done) {
		switch {
		case err != nil:
			return nil, err
		case len(lines) == maxBehind || size+len(line.Text) > maxBehindBytes:
			missed, size = missed+1, maxBehindBytes+1 // no older one either
		default:
			lines = append(lines, line)
			size += len(line.Text)
		}
	}
	if slices.ContainsFunc(l.candidates(newFilter(query)), func(c candidate) bool { return c.trimmed(query.After) }) {
		missed++
	}
	if missed > 0 {
		lines = append(lines, faas.LogLine{Dropped: missed})
	}
	slices.Reverse(lines)
	return lines, nil
}

// trimmed reports whether lines that came after a number may be gone: the oldest line that is
// left came after it, and is not the log's first.
func (c candidate) trimmed(after uint64) bool {
	for r, err := range journal.Records(c.folder, 0) {
		if err == nil {
			line, err := parseLine(r.Payload)
			return r.Number > 1 && err == nil && line.number > after
		}
	}
	return false
}

// join adds a follower, if there may be one more.
func (a *audience) join(f *follower) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.all) >= maxFollowers {
		return false
	}
	if a.all == nil {
		a.all = map[*follower]struct{}{}
	}
	a.all[f] = struct{}{}
	a.some.Add(1)
	return true
}

func (a *audience) leave(f *follower) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.all, f)
	a.some.Add(-1)
}

// publish shows a record to whoever follows its function. It waits for nobody.
func (a *audience) publish(function string, record []byte) {
	if a.some.Load() == 0 {
		return
	}
	line, err := parseLine(record)
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for f := range a.all {
		if f.filter.has(function) && f.filter.matches(&line) {
			f.show(line.line(function))
		}
	}
}

// show gives a line to a follower, or counts it as missed.
func (f *follower) show(line faas.LogLine) {
	if f.missed > 0 {
		select {
		case f.lines <- faas.LogLine{Dropped: f.missed}:
			f.missed = 0
		default:
		}
	}
	if f.missed > 0 || f.bytes.Load()+int64(len(line.Text)) > maxBehindBytes {
		f.missed++
		return
	}
	select {
	case f.lines <- line:
		f.bytes.Add(int64(len(line.Text)))
	default:
		f.missed++
	}
}

package logs

import (
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
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
	f := &follower{filter: newFilter(query), lines: make(chan faas.LogLine, maxBehind)}
	if !l.audience.join(f) {
		return nil, faas.Errorf(faas.CodeNoCapacity, "%d clients follow logs already", maxFollowers).After(time.Second)
	}
	return func(yield func(faas.LogLine) bool) {
		defer l.audience.leave(f)
		for {
			select {
			case line := <-f.lines:
				f.bytes.Add(-int64(len(line.Text)))
				if !yield(line) {
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

package logs

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/journal"
)

// shelf has the lines of one function.
type shelf struct {
	logs     *Logs
	function string
	folder   string

	mu      sync.Mutex       // taken before the logs'
	journal *journal.Journal // nil while it is closed
	gone    bool             // another shelf has its place
	asleep  time.Time        // until then it is not opened, for that failed
	lost    int              // lines since one was written
	buffer  []byte

	// The logs' mu guards these.
	bytes     int64
	used      time.Time // when a line was last written
	inspected time.Time // when it was last opened or inspected
}

// errNothing says that there is no line to remove.
var errNothing = errors.New("it has no lines")

// measure finds out how many bytes a closed shelf has, and when it was used.
func (s *shelf) measure() {
	s.bytes = folderBytes
	entries, _ := os.ReadDir(s.folder)
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil {
			s.bytes += info.Size()
			if t := info.ModTime(); t.After(s.used) {
				s.used = t
			}
		}
	}
}

// open opens the journal, unless it is. The caller holds mu.
func (s *shelf) open(now time.Time) (err error) {
	if s.journal != nil {
		return nil
	}
	if now.Before(s.asleep) {
		return errors.New("it could not be opened a moment ago")
	}
	s.journal, err = journal.Open(s.folder, journal.Options{Segment: s.logs.segment(), MaxAge: s.logs.cfg.MaxAge, Failed: s.logs.failed})
	if err != nil {
		s.asleep = now.Add(openPause)
		return err
	}
	s.logs.mu.Lock()
	s.logs.opened[s] = struct{}{}
	s.inspected = now
	s.logs.mu.Unlock()
	return nil
}

// write writes a line. It reports false if the shelf is gone.
func (s *shelf) write(line *faas.LogLine) (there bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return false
	}
	now := time.Now()
	err := s.open(now)
	if err == nil && s.lost > 0 {
		missing := faas.LogLine{
			Function: s.function, Version: line.Version, Sandbox: line.Sandbox, Time: line.Time, Level: "warn", Dropped: s.lost,
			Text: fmt.Appendf(nil, "%d lines are missing here: the dispatcher could not write them", s.lost),
		}
		if err = s.append(&missing); err == nil {
			s.lost = 0
		}
	}
	if err == nil {
		err = s.append(line)
	}
	s.resize(now)
	if err != nil {
		s.lost++
		s.logs.cfg.Lost(1)
		s.logs.failed(fmt.Errorf("a line is missing: %w", err))
		return true
	}
	return true
}

// append appends a line to the journal and shows it to followers. The caller holds mu.
func (s *shelf) append(line *faas.LogLine) error {
	line.Number = s.logs.number.Add(1)
	s.buffer = appendLine(s.buffer[:0], line)
	_, err := s.journal.Append(s.buffer)
	if err == nil {
		s.logs.audience.publish(s.function, s.buffer)
	}
	if cap(s.buffer) > 4<<10 {
		s.buffer = nil
	}
	return err
}

// resize sets how many bytes the shelf has. A zero now says that nothing was written. The
// caller holds mu.
func (s *shelf) resize(now time.Time) {
	if s.journal == nil {
		return
	}
	size := s.journal.Size() + folderBytes
	s.logs.mu.Lock()
	defer s.logs.mu.Unlock()
	s.logs.bytes += size - s.bytes
	s.bytes = size
	if !now.IsZero() {
		s.used = now
	}
}

// dropOldest removes the oldest lines. It fails with errNothing if there are none.
func (s *shelf) dropOldest() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return nil
	}
	if err := s.open(time.Now()); err != nil {
		return err
	}
	before := s.journal.Size()
	err := s.journal.DropOldest()
	s.resize(time.Time{})
	if err == nil && s.journal.Size() == before {
		return errNothing
	}
	return err
}

// inspect removes lines that are too old, and closes the journal if it is idle.
func (s *shelf) inspect(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return nil
	}
	s.logs.mu.Lock()
	unused := now.Sub(s.used)
	s.inspected = now
	s.logs.mu.Unlock()
	if age := s.logs.cfg.MaxAge; age > 0 && unused >= age {
		return s.removeLocked()
	}
	if err := s.open(now); err != nil {
		return err
	}
	err := s.journal.Trim()
	s.resize(time.Time{})
	if unused >= idleTime {
		err = errors.Join(err, s.closeLocked())
	}
	return err
}

// close closes the journal until it is needed again.
func (s *shelf) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closeLocked()
}

// closeLocked does what close does. The caller holds mu.
func (s *shelf) closeLocked() error {
	if s.journal == nil {
		return nil
	}
	err := s.journal.Close()
	s.journal = nil
	s.logs.mu.Lock()
	delete(s.logs.opened, s)
	s.logs.mu.Unlock()
	return err
}

// remove removes the shelf with all its lines.
func (s *shelf) remove() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.removeLocked()
}

// removeLocked does what remove does. The caller holds mu.
func (s *shelf) removeLocked() error {
	if s.gone {
		return nil
	}
	err := errors.Join(s.closeLocked(), os.RemoveAll(s.folder))
	if err != nil {
		return err
	}
	s.gone = true
	s.logs.mu.Lock()
	defer s.logs.mu.Unlock()
	delete(s.logs.shelves, s.function)
	s.logs.bytes -= s.bytes
	return nil
}

// candidates returns the shelves of a filter that may have a line since then, those that
// were used last first, and when that was.
func (l *Logs) candidates(f *filter) (all []candidate) {
	oldest := f.oldest()
	if since := time.UnixMicro(int64(f.After)).Add(-ahead); since.After(oldest) {
		oldest = since // a line's number is less than the microseconds since 1970 when it came
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for function, s := range l.shelves {
		if f.has(function) && !s.used.Before(oldest) {
			all = append(all, candidate{function, s.folder, s.used})
		}
	}
	slices.SortFunc(all, func(a, b candidate) int { return b.used.Compare(a.used) })
	return all
}

// candidate is a shelf that may have lines that are asked for.
type candidate struct {
	function, folder string
	used             time.Time
}

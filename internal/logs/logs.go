// Package logs keeps what functions print. Each function has a journal of its own below
// one folder, so reading one function's log reads no other's. When all together have too
// many bytes, the oldest lines of the function that has the most go first, so a function
// that prints much pushes out its own lines alone.
//
// Lines are written at once and not synced: a process that is killed loses none that came.
package logs

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/flockofbirds/fob/internal/faas"
)

// Name is the name of the logs' folder.
const Name = "logs"

// MinBytes is the least space in which logs are of use.
const MinBytes = 4 << 20

const (
	// A segment is a part of all that may be kept, so that what is removed at once is
	// little.
	segments               = 512
	minSegment, maxSegment = 64 << 10, 1 << 20

	// folderBytes is what a function's folder takes beside its lines.
	folderBytes = 8 << 10

	// maxOpen is how many journals are open at most. One that was not written to for
	// idleTime is closed.
	maxOpen  = 256
	idleTime = time.Minute

	// inspections is how many closed journals are looked at in a minute, for lines that
	// are too old.
	inspections = 100

	// openPause is how long a journal that cannot be opened is left alone.
	openPause = time.Second

	// maxSearches is how many searches run at a time. Others wait for them.
	maxSearches = 4
)

// Config says what is kept, and where.
type Config struct {
	Data     string        // the data folder
	MaxBytes int64         // of all logs together
	MaxAge   time.Duration // of a line; 0 for no bound

	// Lost hears how many lines could not be kept. Failed hears of everything that went
	// wrong, at most once a second.
	Lost   func(lines int)
	Failed func(error)
}

// Logs are the logs of one data folder. It implements faas.Logs.
type Logs struct {
	cfg     Config
	folder  string
	broken  error         // why nothing can be kept
	closing chan struct{} // closed by Close
	ended   chan struct{} // closed by run after that
	once    sync.Once     // for Close

	number   atomic.Uint64 // of the last line
	searches chan struct{} // has one for each search that runs
	trimming sync.Mutex    // held while the oldest lines are removed
	audience audience
	told     atomic.Int64 // when Failed was last called, in nanoseconds since 1970

	mu      sync.Mutex
	shelves map[string]*shelf // by function
	opened  map[*shelf]struct{}
	bytes   int64 // that all shelves have
}

// Open opens the logs of a data folder, or begins them. If it fails, the logs that it
// returns with the error count every line as lost, and cannot be read. A folder's logs
// must be open only once at a time. The caller must call Close.
func Open(cfg Config) (*Logs, error) {
	l := &Logs{
		cfg: cfg, folder: filepath.Join(cfg.Data, Name), closing: make(chan struct{}), ended: make(chan struct{}),
		searches: make(chan struct{}, maxSearches), shelves: map[string]*shelf{}, opened: map[*shelf]struct{}{},
	}
	l.number.Store(uint64(time.Now().UnixMicro())) // beyond that of every earlier line, unless there were a million a second
	if err := l.survey(); err != nil {
		l.broken = fmt.Errorf("opening the functions' logs: %w; when that cannot be mended, move %s to another place, and new ones begin", err, l.folder)
		close(l.ended)
		return l, l.broken
	}
	go l.run()
	return l, nil
}

// survey finds the shelves that are there.
func (l *Logs) survey() error {
	if err := os.Mkdir(l.folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Chmod(l.folder, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(l.folder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() && uuid.Validate(entry.Name()) == nil {
			s := l.shelf(entry.Name())
			s.measure()
			l.bytes += s.bytes
		}
	}
	return nil
}

// shelf returns the shelf of a function, and makes one if need be.
func (l *Logs) shelf(function string) *shelf {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.shelves[function]
	if s == nil {
		s = &shelf{logs: l, function: function, folder: filepath.Join(l.folder, function)}
		l.shelves[function] = s
	}
	return s
}

// segment returns how large a segment is.
func (l *Logs) segment() int64 { return min(max(l.cfg.MaxBytes/segments, minSegment), maxSegment) }

// Write implements faas.LogWriter.
func (l *Logs) Write(line faas.LogLine) {
	if l.broken != nil || uuid.Validate(line.Function) != nil {
		l.cfg.Lost(1)
		return
	}
	for !l.shelf(line.Function).write(&line) { // it was removed just now
	}
	l.mu.Lock()
	full, crowded := l.bytes > l.cfg.MaxBytes, len(l.opened) > maxOpen
	l.mu.Unlock()
	if crowded {
		l.closeOne()
	}
	if full {
		l.trim()
	}
}

// trim removes the oldest lines of whichever function has the most, until there is room
// for a while. If folders are what takes the room, it removes those that were not used for
// the longest time.
func (l *Logs) trim() {
	if !l.trimming.TryLock() {
		return
	}
	defer l.trimming.Unlock()
	for room := l.cfg.MaxBytes / 64 * 63; ; {
		l.mu.Lock()
		var most *shelf
		for _, s := range l.shelves {
			if most == nil || s.bytes > most.bytes {
				most = s
			}
		}
		full, small := l.bytes > room, most != nil && most.bytes < 2*folderBytes
		crowded := len(l.opened) > maxOpen
		l.mu.Unlock()
		if crowded {
			l.closeOne()
		}
		if !full || most == nil {
			return
		}
		var err error
		if !small {
			err = most.dropOldest()
		}
		if small || errors.Is(err, errNothing) {
			err = l.oldest().remove()
		}
		if err != nil {
			l.failed(err)
			return
		}
	}
}

// oldest returns the shelf that was not used for the longest time.
func (l *Logs) oldest() *shelf {
	l.mu.Lock()
	defer l.mu.Unlock()
	var oldest *shelf
	for _, s := range l.shelves {
		if oldest == nil || s.used.Before(oldest.used) {
			oldest = s
		}
	}
	return oldest
}

// closeOne closes the open journal that was not used for the longest time.
func (l *Logs) closeOne() {
	l.mu.Lock()
	var oldest *shelf
	for s := range l.opened {
		if oldest == nil || s.used.Before(oldest.used) {
			oldest = s
		}
	}
	l.mu.Unlock()
	if oldest != nil {
		l.failed(oldest.close())
	}
}

// run looks after the journals until Close.
func (l *Logs) run() {
	defer close(l.ended)
	minute := time.NewTicker(time.Minute)
	defer minute.Stop()
	for {
		select {
		case <-l.closing:
			return
		case now := <-minute.C:
			l.inspect(now)
		}
	}
}

// inspect removes the lines that are too old, and closes journals that are idle.
func (l *Logs) inspect(now time.Time) {
	l.mu.Lock()
	var open, closed []*shelf
	for _, s := range l.shelves {
		_, is := l.opened[s]
		switch {
		case is:
			open = append(open, s)
		case l.cfg.MaxAge > 0 && now.Sub(s.inspected) >= l.cfg.MaxAge/8:
			closed = append(closed, s)
		}
	}
	slices.SortFunc(closed, func(a, b *shelf) int { return cmp.Or(a.inspected.Compare(b.inspected), a.used.Compare(b.used)) })
	l.mu.Unlock()
	for _, s := range append(open, closed[:min(len(closed), inspections)]...) {
		l.failed(s.inspect(now))
	}
}

// failed passes an error on, at most once a second.
func (l *Logs) failed(err error) {
	if err == nil {
		return
	}
	now, told := time.Now().UnixNano(), l.told.Load()
	if time.Duration(now-told) >= time.Second && l.told.CompareAndSwap(told, now) {
		l.cfg.Failed(fmt.Errorf("the functions' logs: %w", err))
	}
}

// Close ends followers and closes all journals. Nothing may be written after it.
func (l *Logs) Close() error {
	l.once.Do(func() { close(l.closing) })
	<-l.ended
	var all error
	l.mu.Lock()
	opened := l.opened
	l.opened = map[*shelf]struct{}{}
	l.mu.Unlock()
	for s := range opened {
		all = errors.Join(all, s.close())
	}
	return all
}

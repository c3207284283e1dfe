// Package history keeps what became of calls. It is a journal in the data folder, whose
// records are faas.CallRecords in JSON.
package history

import (
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/journal"
)

// Name is the name of the history's folder.
const Name = "history"

const (
	// flushEvery is how long a record waits to be written at most. A dispatcher that is
	// killed loses the records of that time.
	flushEvery = 50 * time.Millisecond

	// How many records may wait: of calls that went well, and of all; and how many bytes
	// they may have.
	maxWaiting       = 8 << 10
	maxWaitingFailed = 64 << 10
	maxWaitingBytes  = 64 << 20

	// flushAtOnce is how many records are written at once.
	flushAtOnce = 128

	// segments is how many files a full history has.
	segments = 32

	// maxSegment bounds a file, in bytes. A search holds what it finds in a file.
	maxSegment = 8 << 20

	// maxSearches is how many searches run at a time. Others wait for them.
	maxSearches = 4
)

// Config says what a history keeps, and where.
type Config struct {
	Data     string        // the data folder
	MaxBytes int64         // bound of the whole history
	MaxAge   time.Duration // bound of a record's age
	Rate     int           // calls a second above which those that went well are sampled

	// Function returns the name of a function, or "". It may be nil.
	Function func(id string) string

	// Lost hears how many calls are missing from the history. Failed hears of everything
	// that went wrong, at most once a second.
	Lost   func(calls int)
	Failed func(error)
}

// History is the history of one data folder. It implements faas.History.
type History struct {
	cfg     Config
	folder  string
	journal *journal.Journal

	closing chan struct{} // closed by Close
	ended   chan struct{} // closed by run after that
	once    sync.Once     // for Close

	searches chan struct{} // has one for each search that runs

	mu      sync.Mutex
	waiting []faas.CallRecord // to be written
	bytes   int               // that they have
	sampler sampler
	lost    int // calls, since that was last reported

	following sync.Mutex // taken while calls are given to followers, for which Record must not wait
	followers map[*follower]struct{}

	told atomic.Int64 // when Failed was last called, in nanoseconds since 1970
}

// Broken returns a history in place of one that could not be opened: it counts every call
// as lost, and answers that it cannot be read.
func Broken(cfg Config) *History {
	h := &History{cfg: cfg, closing: make(chan struct{}), ended: make(chan struct{})}
	close(h.ended)
	return h
}

// errUnreadable is what a client hears.
func errUnreadable(cause error) error {
	return faas.Errorf(faas.CodeUnreadable, "the history of calls cannot be read; the dispatcher's log says why").Because(cause)
}

// Open opens the history of a data folder, or begins one. A folder's history must be
// open only once at a time. The caller must call Close.
func Open(cfg Config) (*History, error) {
	h := &History{
		cfg: cfg, folder: filepath.Join(cfg.Data, Name),
		closing: make(chan struct{}), ended: make(chan struct{}), searches: make(chan struct{}, maxSearches),
		sampler: sampler{rate: cfg.Rate}, followers: map[*follower]struct{}{},
	}
	var err error
	h.journal, err = journal.Open(h.folder, journal.Options{
		Segment: min(cfg.MaxBytes/segments, maxSegment), MaxBytes: cfg.MaxBytes, MaxAge: cfg.MaxAge,
		Failed: func(err error) {
			err = fmt.Errorf("the history: %w", err)
			if h.journal == nil { // each damage that it finds while it is opened is told once
				cfg.Failed(err)
				return
			}
			h.failed(err)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("opening the history of calls: %w; when that cannot be mended, move %s to another place, and a new one begins", err, h.folder)
	}
	go h.run()
	return h, nil
}

// Record implements faas.History.
func (h *History) Record(call faas.CallRecord) {
	if h.journal == nil {
		h.cfg.Lost(1)
		return
	}
	call.Bound() // before it waits: it must not keep a long traceback alive
	size := sizeOf(&call)
	h.mu.Lock()
	defer h.mu.Unlock()
	important := call.Outcome != "ok" || call.Timing.Total >= slow
	switch {
	case !important && !h.sampler.admits(time.Now()), !important && len(h.waiting) >= maxWaiting:
		h.sampler.omit(call.Function, call.Started)
	case len(h.waiting) >= maxWaitingFailed, h.bytes+size > maxWaitingBytes:
		h.lost++
	default:
		call.Own()
		h.waiting = append(h.waiting, call)
		h.bytes += size
	}
}

// run writes records, and removes the oldest, until Close.
func (h *History) run() {
	defer close(h.ended)
	flush, minute := time.NewTicker(flushEvery), time.NewTicker(time.Minute)
	defer flush.Stop()
	defer minute.Stop()
	var spare []faas.CallRecord
	for {
		select {
		case <-h.closing:
			h.flush(nil)
			h.writeOmitted(time.Time{})
			return
		case <-flush.C:
			spare = h.flush(spare)
		case now := <-minute.C:
			h.writeOmitted(now)
			h.failed(h.journal.Trim())
		}
	}
}

// flush writes what is waiting. It returns the slice that had it, for the next time.
func (h *History) flush(spare []faas.CallRecord) []faas.CallRecord {
	h.mu.Lock()
	calls, lost := h.waiting, h.lost
	h.waiting, h.bytes, h.lost = spare[:0], 0, 0
	h.mu.Unlock()
	for some := range slices.Chunk(calls, flushAtOnce) {
		lost += h.write(some)
	}
	if lost > 0 {
		h.cfg.Lost(lost)
	}
	clear(calls) // it must not keep versions and errors alive
	if cap(calls) > maxWaiting {
		return nil
	}
	return calls
}

// write writes calls, and gives them to followers. It returns how many it could not write.
func (h *History) write(calls []faas.CallRecord) (lost int) {
	size := 0
	for i := range calls {
		size += sizeOf(&calls[i])
	}
	buffer, payloads := make([]byte, 0, size), make([][]byte, len(calls))
	for i := range calls {
		call := &calls[i]
		if call.Name == "" && h.cfg.Function != nil {
			call.Name = h.cfg.Function(call.Function)
		}
		from := len(buffer)
		buffer = appendCall(buffer, call)
		payloads[i] = buffer[from:len(buffer):len(buffer)] // stays as it is if the buffer moves
	}
	records, err := h.journal.AppendAll(payloads)
	for i, r := range records {
		h.publish(faas.StoredCall{Number: r.Number, Call: calls[i]}, r)
	}
	if err != nil {
		h.failed(fmt.Errorf("calls are missing from the history: %w", err))
	}
	return len(calls) - len(records)
}

// writeOmitted writes how many calls were left out, by function and minute, for minutes
// that ended before now. A zero time stands for all.
func (h *History) writeOmitted(now time.Time) {
	h.mu.Lock()
	all := h.sampler.omitted(now)
	h.mu.Unlock()
	for _, o := range all {
		if _, err := h.journal.Append(o.encode()); err != nil {
			h.failed(fmt.Errorf("the history lacks how many calls it left out: %w", err))
		}
	}
}

// failed passes an error on, at most once a second.
func (h *History) failed(err error) {
	if err == nil {
		return
	}
	now, told := time.Now().UnixNano(), h.told.Load()
	if time.Duration(now-told) >= time.Second && h.told.CompareAndSwap(told, now) {
		h.cfg.Failed(err)
	}
}

// Close writes what is waiting and closes the file. Nothing may be recorded after it.
func (h *History) Close() error {
	h.once.Do(func() { close(h.closing) })
	<-h.ended
	if h.journal == nil {
		return nil
	}
	return h.journal.Close()
}

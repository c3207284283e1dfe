// Package audit keeps the audit log: a file in the data folder to which each
// entry is appended as a line of JSON.
package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/flockofbirds/fob/internal/durable"
	"github.com/flockofbirds/fob/internal/faas"
)

const (
	// Name is the file's; older ones are called Name.1 to Name.9.
	Name = "audit.jsonl"

	files = 10

	// MaxSize is how large a file gets before the next one is begun, in bytes.
	MaxSize = 64 << 20

	// A second's, and a day's, entries of what was not done; the rest is counted.
	// A day of nothing else, of the longest entries, is some 10 MB: so it is
	// months before strangers push a change out of the last file.
	perSecond = 10
	perDay    = 10_000

	// batch is how many entries are written, and synced, at once at most.
	batch = 256
)

// Log is the audit log of one data folder. It implements faas.AuditLog.
type Log struct {
	folder  string
	maxSize int64
	failed  func(error)
	entries chan pending
	ended   chan struct{}

	open   sync.RWMutex // held for reading while an entry is handed to run
	closed bool

	mu      sync.Mutex
	second  period
	day     period
	told    time.Time // when omitted was last written
	omitted int       // since then

	// Only run uses these.
	file *os.File
	size int64
	torn bool // the file does not end with a line's end
	seq  uint64
}

// pending is an entry, and who waits until it is on disk.
type pending struct {
	entry faas.AuditEntry
	done  chan struct{} // nil when nobody does
}

// Open opens the log in a folder, or begins one. Only one may be open for a
// folder. failed is told of each entry that could not be written, or not be
// synced. Close must be called.
func Open(folder string, maxSize int64, failed func(error)) (*Log, error) {
	l := &Log{folder: folder, maxSize: maxSize, failed: failed, entries: make(chan pending, batch), ended: make(chan struct{})}
	var err error
	if l.seq, err = lastSeq(folder); err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	if err := l.openNewest(); err != nil {
		return nil, fmt.Errorf("opening the audit log: %w", err)
	}
	go l.run()
	return l, nil
}

// Record implements faas.AuditLog.
func (l *Log) Record(entry faas.AuditEntry) {
	p := pending{entry: entry}
	if entry.Outcome == faas.AuditOK {
		p.done = make(chan struct{})
	} else if !l.admit(time.Now()) {
		return
	}
	l.open.RLock()
	if l.closed {
		l.open.RUnlock()
		l.failed(errors.New("the audit log lacks an entry: it is closed"))
		return
	}
	l.entries <- p
	l.open.RUnlock()
	if p.done != nil {
		<-p.done
	}
}

// period counts the entries of a while.
type period struct {
	begun   time.Time
	entries int
}

// admits reports whether there may be another entry in a period of that length.
func (p *period) admits(now time.Time, length time.Duration, most int) bool {
	if now.Sub(p.begun) >= length {
		*p = period{begun: now}
	}
	return p.entries < most
}

// admit reports whether another entry of what was not done is written now, and
// counts it when it is not.
func (l *Log) admit(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.second.admits(now, time.Second, perSecond) || !l.day.admits(now, 24*time.Hour, perDay) {
		l.omitted++
		return false
	}
	l.second.entries++
	l.day.entries++
	return true
}

// countOmitted returns how many entries were only counted, when it is time to
// write that: each second, and once the day's are used up each hour, and at the end.
func (l *Log) countOmitted(now time.Time, end bool) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !end && !l.day.admits(now, 24*time.Hour, perDay) && now.Sub(l.told) < time.Hour {
		return 0
	}
	if n, l.omitted = l.omitted, 0; n > 0 {
		l.told = now
		l.day.entries++
	}
	return n
}

// Close writes what is left to write, and closes the file.
func (l *Log) Close() error {
	l.open.Lock()
	if !l.closed {
		l.closed = true
		close(l.entries)
	}
	l.open.Unlock()
	<-l.ended
	return l.file.Close()
}

// run writes entries until Close, those that have come meanwhile together.
func (l *Log) run() {
	defer close(l.ended)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case p, more := <-l.entries:
			if !more {
				l.writeOmitted(l.countOmitted(time.Now(), true))
				return
			}
			all := []pending{p}
			for len(all) < batch && len(l.entries) > 0 {
				all = append(all, <-l.entries)
			}
			l.write(all)
		case <-tick.C:
			l.writeOmitted(l.countOmitted(time.Now(), false))
		}
	}
}

// writeOmitted writes that n entries were only counted.
func (l *Log) writeOmitted(n int) {
	if n > 0 {
		l.write([]pending{{entry: faas.AuditEntry{Who: "several", Action: faas.AuditOmitted, Outcome: faas.AuditOmitted, Omitted: n}}})
	}
}

// write appends entries, and syncs them when somebody waits for that.
func (l *Log) write(all []pending) {
	var text []byte
	sync := false
	for _, p := range all {
		l.seq++
		text = append(text, l.line(p.entry)...)
		sync = sync || p.done != nil
	}
	if err := l.append(text, sync); err != nil {
		for range all {
			l.failed(fmt.Errorf("the audit log lacks an entry: %w", err))
		}
	}
	for _, p := range all {
		if p.done != nil {
			close(p.done)
		}
	}
}

// line is an entry as it is written.
func (l *Log) line(entry faas.AuditEntry) []byte {
	entry.Seq = l.seq
	entry.Time = time.Now().UTC().Truncate(time.Millisecond)
	for _, text := range []*string{&entry.Who, &entry.From, &entry.Action, &entry.ID, &entry.Name, &entry.Request, &entry.CallID, &entry.Outcome} {
		*text = printable(*text)
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false) // it is no page, and what is escaped is six times as long
	if err := e.Encode(entry); err != nil {
		panic(err) // texts and numbers, which JSON can hold
	}
	return out.Bytes()
}

// append adds whole lines to the file, and begins the next one when it is full.
func (l *Log) append(text []byte, sync bool) error {
	if l.size+int64(len(text)) > l.maxSize && l.size > 0 {
		if err := l.rotate(); err != nil {
			l.failed(fmt.Errorf("the audit log goes on in a file that is full: %w", err))
		}
	}
	if l.torn { // a line that a crash, or a full disk, broke off
		text = append([]byte("\n"), text...)
	}
	n, err := l.file.Write(text)
	l.size += int64(n)
	if n > 0 {
		l.torn = n < len(text)
	}
	if err == nil && sync {
		err = l.file.Sync()
	}
	return err
}

// rotate renames the files, each to the next older one's name, and begins a new
// one. When it fails, the file that was written to is so still, and no file has
// gone: the next one is there before any is renamed, and a gap, which a failure
// left, is filled before the oldest file makes room.
func (l *Log) rotate() (err error) {
	if err := l.file.Sync(); err != nil {
		return err
	}
	next, err := os.OpenFile(path(l.folder, 0)+".new", os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		err = errors.Join(next.Chmod(0o600), durable.SameOwner(next, l.folder))
	}
	gap := 0
	for ; gap < files-1 && err == nil; gap++ {
		if _, err := os.Lstat(path(l.folder, gap)); err != nil {
			break
		}
	}
	for n := gap; n > 0 && err == nil; n-- {
		err = os.Rename(path(l.folder, n-1), path(l.folder, n))
	}
	if err == nil {
		err = os.Rename(next.Name(), path(l.folder, 0))
	}
	if err != nil {
		if next != nil {
			err = errors.Join(err, os.Remove(next.Name()), next.Close())
		}
		return err
	}
	full := l.file
	l.file, l.size, l.torn = next, 0, false
	return errors.Join(durable.SyncFolder(l.folder), full.Close())
}

// openNewest opens the file, or begins one that is there after a power cut too.
func (l *Log) openNewest() error {
	file, err := os.OpenFile(path(l.folder, 0), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	l.size, l.torn, err = ending(l.folder)
	if err == nil {
		err = errors.Join(file.Chmod(0o600), durable.SameOwner(file, l.folder))
	}
	if err == nil {
		err = durable.SyncFolder(l.folder)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	l.file = file
	return nil
}

// ending returns the size of the newest file, and whether its last line lacks
// its end.
func ending(folder string) (size int64, torn bool, err error) {
	file, err := os.Open(path(folder, 0))
	if err != nil {
		return 0, false, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return 0, false, err
	}
	last := make([]byte, 1)
	_, err = file.ReadAt(last, info.Size()-1)
	return info.Size(), last[0] != '\n', err
}

// path is where the nth file is; 0 is the newest.
func path(folder string, n int) string {
	if n == 0 {
		return filepath.Join(folder, Name)
	}
	return filepath.Join(folder, fmt.Sprintf("%s.%d", Name, n))
}

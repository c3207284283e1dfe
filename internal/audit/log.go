// Package audit keeps the audit log. It is a journal in the data folder, whose records
// are entries in JSON.
package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/journal"
)

const (
	// Name is the name of the log's folder.
	Name = "audit"

	// MaxBytes bounds the whole log in bytes. The oldest entries are removed.
	MaxBytes = 640 << 20

	// segments is how many files a full log has. A reader reads at most one in vain.
	segments = 80

	// How many entries about refused requests are written in a second and in a day.
	// Others are only counted. A day full of the longest entries takes some 10 MB, so
	// strangers need months to push a change out of the last file.
	perSecond = 10
	perDay    = 10_000
)

// Log is the audit log of one data folder. It implements faas.AuditLog.
type Log struct {
	data     string // the data folder
	maxBytes int64
	failed   func(error)
	journal  *journal.Journal

	closing chan struct{} // closed by Close
	ended   chan struct{} // closed by run after that
	once    sync.Once     // for Close

	mu      sync.Mutex
	second  period
	day     period
	told    time.Time               // when omitted entries were last reported
	omitted int                     // since then
	damage  map[journal.Damage]bool // damage that was reported
}

// Open opens the log of a data folder, or begins one. A folder's log must be open only
// once at a time. failed is called for each entry that could not be written or synced,
// and for damaged entries. The caller must call Close.
func Open(data string, maxBytes int64, failed func(error)) (*Log, error) {
	l := &Log{data: data, maxBytes: maxBytes, failed: failed, closing: make(chan struct{}), ended: make(chan struct{}), damage: map[journal.Damage]bool{}}
	last, err := lastOld(data)
	if err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	folder := filepath.Join(data, Name)
	l.journal, err = journal.Open(folder, journal.Options{
		Segment: maxBytes / segments, MaxBytes: maxBytes, First: last + 1,
		Failed: func(err error) { failed(fmt.Errorf("the audit log: %w", err)) },
	})
	switch {
	case faas.DiskFull(err):
		return nil, fmt.Errorf("opening the audit log: %w", err)
	case err != nil:
		return nil, fmt.Errorf("opening the audit log: %w; if that cannot be fixed, move %s elsewhere, and a new log begins", err, folder)
	}
	l.dropOld()
	go l.run()
	return l, nil
}

// Record implements faas.AuditLog.
func (l *Log) Record(entry faas.AuditEntry) {
	if entry.Outcome == faas.AuditOK {
		l.write(entry, l.journal.AppendSync)
	} else if l.admit(time.Now()) {
		l.write(entry, l.journal.Append)
	}
}

// write writes an entry with appendTo.
func (l *Log) write(entry faas.AuditEntry, appendTo func([]byte) (journal.Record, error)) {
	if _, err := appendTo(content(entry)); err != nil {
		l.failed(fmt.Errorf("the audit log lacks an entry: %w", err))
	}
}

// content returns an entry as the journal stores it: without the fields that the
// journal has itself.
func content(entry faas.AuditEntry) []byte {
	for _, text := range []*string{&entry.Who, &entry.From, &entry.Action, &entry.ID, &entry.Name, &entry.Request, &entry.CallID, &entry.Outcome} {
		*text = printable(*text)
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false) // nobody shows it as HTML, and escapes are six times as long
	err := e.Encode(struct {
		faas.AuditEntry
		Seq  int `json:"seq,omitempty"`  // hides the entry's own
		Time int `json:"time,omitempty"` // hides the entry's own
	}{AuditEntry: entry})
	if err != nil {
		panic(err) // cannot happen: JSON can hold texts and numbers
	}
	return out.Bytes()
}

// period counts the entries in a period of time.
type period struct {
	begun   time.Time
	entries int
}

// admits reports whether a period of that length has room for another entry.
func (p *period) admits(now time.Time, length time.Duration, most int) bool {
	if now.Sub(p.begun) >= length {
		*p = period{begun: now}
	}
	return p.entries < most
}

// admit reports whether an entry about a refused request is to be written now. If not,
// it counts the entry.
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

// countOmitted returns how many entries were only counted, if it is time to report
// that: every second, every hour once the day's entries are used up, and at the end.
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

// writeOmitted writes an entry that says that n entries were only counted.
func (l *Log) writeOmitted(n int) {
	if n > 0 {
		l.write(faas.AuditEntry{Who: "several", Action: faas.AuditOmitted, Outcome: faas.AuditOmitted, Omitted: n}, l.journal.Append)
	}
}

// run reports omitted entries and removes old segments until Close.
func (l *Log) run() {
	defer close(l.ended)
	second, hour := time.NewTicker(time.Second), time.NewTicker(time.Hour)
	defer second.Stop()
	defer hour.Stop()
	for {
		select {
		case <-l.closing:
			l.writeOmitted(l.countOmitted(time.Now(), true))
			return
		case <-second.C:
			l.writeOmitted(l.countOmitted(time.Now(), false))
		case <-hour.C:
			l.dropOld()
		}
	}
}

// Close writes what is left and closes the file.
func (l *Log) Close() error {
	l.once.Do(func() { close(l.closing) })
	<-l.ended
	return l.journal.Close()
}

// Read implements faas.AuditLog.
func (l *Log) Read(query faas.AuditQuery, emit func(line []byte) error) error {
	return Read(l.data, query, l.damaged, emit)
}

// damaged reports damage, once.
func (l *Log) damaged(err error) {
	var damage *journal.Damage
	if errors.As(err, &damage) {
		l.mu.Lock()
		known := l.damage[*damage]
		l.damage[*damage] = true
		l.mu.Unlock()
		if known {
			return
		}
	}
	l.failed(err)
}

// Package audit keeps the audit log: a journal in the data folder, of which each
// record is an entry in JSON.
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
	// Name is the folder's.
	Name = "audit"

	// MaxBytes bounds all of the log, in bytes; the oldest entries go.
	MaxBytes = 640 << 20

	// segments is how many files it has then. A reader reads one in vain, at most.
	segments = 80

	// A second's, and a day's, entries of what was not done; the rest is counted.
	// A day of nothing else, of the longest entries, is some 10 MB: so it is
	// months before strangers push a change out of the last file.
	perSecond = 10
	perDay    = 10_000
)

// Log is the audit log of one data folder. It implements faas.AuditLog.
type Log struct {
	data     string // folder
	maxBytes int64
	failed   func(error)
	journal  *journal.Journal

	closing chan struct{} // closed by Close
	ended   chan struct{} // and then by run
	once    sync.Once     // for Close

	mu      sync.Mutex
	second  period
	day     period
	told    time.Time               // when omitted was last written
	omitted int                     // since then
	damage  map[journal.Damage]bool // that failed was told of
}

// Open opens the log of a data folder, or begins one. Only one may be open for a
// folder. failed is told of each entry that could not be written, or not be synced,
// and of those that turn out to be damaged. Close must be called.
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
		return nil, fmt.Errorf("opening the audit log: %w; when that cannot be mended, move %s to another place, and a new log begins", err, folder)
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

// write writes an entry.
func (l *Log) write(entry faas.AuditEntry, appendTo func([]byte) (journal.Record, error)) {
	if _, err := appendTo(content(entry)); err != nil {
		l.failed(fmt.Errorf("the audit log lacks an entry: %w", err))
	}
}

// content is an entry as the journal has it: without what the journal knows itself.
func content(entry faas.AuditEntry) []byte {
	for _, text := range []*string{&entry.Who, &entry.From, &entry.Action, &entry.ID, &entry.Name, &entry.Request, &entry.CallID, &entry.Outcome} {
		*text = printable(*text)
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false) // it is no page, and what is escaped is six times as long
	err := e.Encode(struct {
		faas.AuditEntry
		Seq  int `json:"seq,omitempty"`  // in place of the entry's
		Time int `json:"time,omitempty"` // likewise
	}{AuditEntry: entry})
	if err != nil {
		panic(err) // texts and numbers, which JSON can hold
	}
	return out.Bytes()
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

// writeOmitted writes that n entries were only counted.
func (l *Log) writeOmitted(n int) {
	if n > 0 {
		l.write(faas.AuditEntry{Who: "several", Action: faas.AuditOmitted, Outcome: faas.AuditOmitted, Omitted: n}, l.journal.Append)
	}
}

// run writes what is counted, and makes room, until Close.
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

// Close writes what is left to write, and closes the file.
func (l *Log) Close() error {
	l.once.Do(func() { close(l.closing) })
	<-l.ended
	return l.journal.Close()
}

// Read implements faas.AuditLog.
func (l *Log) Read(query faas.AuditQuery, emit func(line []byte) error) error {
	return Read(l.data, query, l.damaged, emit)
}

// damaged tells of damage, once.
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

package audit

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/journal"
)

// Read reads the log of a data folder as faas.AuditLog does, whether or not a
// dispatcher writes to it. It may miss what is written meanwhile. It skips damaged
// entries and reports them to damaged.
func Read(data string, query faas.AuditQuery, damaged func(error), emit func(line []byte) error) error {
	folder := filepath.Join(data, Name)
	first, last, err := journal.Numbers(folder)
	if err != nil {
		return err
	}
	empty := last == 0 // there may still be files of an earlier version
	if query.Last {
		if empty {
			if last, err = lastOld(data); err != nil {
				return err
			}
		}
		if limit := uint64(query.Limit); last > limit {
			query.After = max(query.After, last-limit)
		}
	}
	if empty || query.After+1 < first {
		if query, err = readOld(data, query, emit); err != nil {
			return err
		}
	}
	var line []byte
	for r, err := range journal.Records(folder, query.After) {
		var damage *journal.Damage
		switch {
		case errors.As(err, &damage):
			damaged(fmt.Errorf("the audit log: %w", err))
			continue
		case err != nil:
			return err
		case stamp(r.Time).Before(query.Since):
			continue
		case query.Limit == 0:
			return nil
		}
		query.Limit--
		line = appendLine(line[:0], r)
		if err := emit(line); err != nil {
			return err
		}
	}
	return nil
}

// appendLine appends an entry as a line: first the fields that content left out, then
// the others.
func appendLine(to []byte, r journal.Record) []byte {
	to = fmt.Appendf(to, `{"seq":%d,"time":%q,`, r.Number, stamp(r.Time).Format(time.RFC3339Nano))
	return append(to, r.Payload[1:]...)
}

// stamp returns a time as entries have it.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

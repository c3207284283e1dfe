package audit

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/journal"
)

// Read reads the log of a data folder, whether a dispatcher writes to it or not, as
// faas.AuditLog has it. What is written meanwhile may be missing. Entries that are
// damaged are passed over, and damaged is told.
func Read(data string, query faas.AuditQuery, damaged func(error), emit func(line []byte) error) error {
	folder := filepath.Join(data, Name)
	first, last, err := journal.Numbers(folder)
	if err != nil {
		return err
	}
	empty := last == 0 // and there may be the files of an earlier version
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

// appendLine appends an entry: what content left out, and the rest.
func appendLine(to []byte, r journal.Record) []byte {
	to = fmt.Appendf(to, `{"seq":%d,"time":%q,`, r.Number, stamp(r.Time).Format(time.RFC3339Nano))
	return append(to, r.Payload[1:]...)
}

// stamp is a time as an entry has it.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

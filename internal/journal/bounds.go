package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/flockofbirds/fob/internal/durable"
)

// Trim removes the segments that are too old. With a MaxAge it should be called from
// time to time.
func (j *Journal) Trim() error {
	now := time.Now()
	old := func() bool {
		all := *j.segments.Load()
		return j.options.MaxAge > 0 && !j.closed && j.end > beginSize && now.Sub(all[len(all)-1].begun) >= j.options.MaxAge/8
	}
	err := j.rotate(old)
	j.mu.Lock()
	defer j.mu.Unlock()
	return errors.Join(err, j.trim(now))
}

// Drop removes the segments in which every record has a number below before.
func (j *Journal) Drop(before uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.drop(func(all []segment) bool { return all[1].first <= before })
}

// DropOldest removes the oldest segment. If it is the only one, another is begun first,
// unless it has no record.
func (j *Journal) DropOldest() error {
	err := j.rotate(func() bool { return !j.closed && j.end > beginSize && len(*j.segments.Load()) == 1 })
	j.mu.Lock()
	defer j.mu.Unlock()
	dropped := false
	return errors.Join(err, j.drop(func([]segment) bool {
		first := !dropped
		dropped = true
		return first
	}))
}

// Size returns how many bytes the segments have.
func (j *Journal) Size() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.end + sealed(*j.segments.Load())
}

// sealed returns how many bytes the segments have to which nothing more is written.
func sealed(all []segment) (bytes int64) {
	for _, s := range all[:len(all)-1] {
		bytes += s.size
	}
	return bytes
}

// trim removes the segments that exceed the bounds.
func (j *Journal) trim(now time.Time) error {
	return j.drop(func(all []segment) bool {
		bytes := max(j.options.Segment, j.end) + sealed(all)
		return j.options.MaxBytes > 0 && bytes > j.options.MaxBytes || j.options.MaxAge > 0 && now.Sub(all[0].begun) >= j.options.MaxAge
	})
}

// drop removes the oldest segment for as long as surplus says so, but never the one
// that is written to.
func (j *Journal) drop(surplus func(all []segment) bool) error {
	all := *j.segments.Load()
	for !j.closed && len(all) > 1 && surplus(all) {
		err := os.Remove(all[0].path(j.folder))
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = durable.SyncFolder(j.folder) // else a power cut might bring back this one and not the next
		}
		if err != nil {
			return fmt.Errorf("removing an old segment: %w", err)
		}
		all = all[1:]
		j.keep(all)
	}
	return nil
}

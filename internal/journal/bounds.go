package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/flockofbirds/fob/internal/durable"
)

// Trim drops the segments that are too old. It should be called from time to time
// when there is a MaxAge.
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

// Drop drops the segments that have no record with that number or a higher one.
func (j *Journal) Drop(before uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.drop(func(all []segment) bool { return all[1].first <= before })
}

// Size returns how many bytes the segments have.
func (j *Journal) Size() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.end + sealed(*j.segments.Load())
}

// sealed returns how many bytes the segments have that are not written to.
func sealed(all []segment) (bytes int64) {
	for _, s := range all[:len(all)-1] {
		bytes += s.size
	}
	return bytes
}

// trim drops the segments that are over the bounds.
func (j *Journal) trim(now time.Time) error {
	return j.drop(func(all []segment) bool {
		bytes := max(j.options.Segment, j.end) + sealed(all)
		return j.options.MaxBytes > 0 && bytes > j.options.MaxBytes || j.options.MaxAge > 0 && now.Sub(all[0].begun) >= j.options.MaxAge
	})
}

// drop removes the oldest segment, as long as there is one that is not written to
// and surplus says so.
func (j *Journal) drop(surplus func(all []segment) bool) error {
	all := *j.segments.Load()
	for !j.closed && len(all) > 1 && surplus(all) {
		err := os.Remove(all[0].path(j.folder))
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = durable.SyncFolder(j.folder) // or a power cut might bring it back, and not the next one
		}
		if err != nil {
			return fmt.Errorf("a segment that is not wanted any more: %w", err)
		}
		all = all[1:]
		j.keep(all)
	}
	return nil
}

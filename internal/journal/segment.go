package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flockofbirds/fob/internal/durable"
)

// segment is a file of a journal. Its name contains what is needed to read it, so no
// damage inside can make the whole file unreadable.
type segment struct {
	first uint64 // its records have this number or higher ones
	salt  uint32
	begun time.Time // when its first record was written or, without one, when it was made; see stat
	size  int64     // of the segment that is written to: when it was opened; see stat
}

const suffix = ".journal"

func (s segment) name() string { return fmt.Sprintf("%020d-%08x%s", s.first, s.salt, suffix) }

func (s segment) path(folder string) string { return filepath.Join(folder, s.name()) }

// parseName is the inverse of name.
func parseName(name string) (s segment, ok bool) {
	number, rest, _ := strings.Cut(name, "-")
	salt, found := strings.CutSuffix(rest, suffix)
	first, err := strconv.ParseUint(number, 10, 64)
	salted, saltErr := strconv.ParseUint(salt, 16, 32)
	s = segment{first: first, salt: uint32(salted)}
	return s, found && err == nil && saltErr == nil && first > 0 && s.name() == name
}

// list returns the segments in a folder, the oldest first. If the folder does not
// exist, there are none.
func list(folder string) ([]segment, error) {
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []segment
	for _, entry := range entries {
		if s, ok := parseName(entry.Name()); ok {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b segment) int { return cmp.Compare(a.first, b.first) })
	return all, nil
}

// scanner returns a scanner of what the segment holds now. The next segment's first
// number is the bound.
func (s segment) scanner(file *os.File, bound uint64) (*scanner, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	return &scanner{file: file, size: info.Size(), salt: s.salt, last: s.first - 1, bound: bound, ahead: readAhead}, nil
}

// stat finds out the segment's size and when it was begun. If nothing in it can be
// read, it takes the time of the last write instead, which keeps the segment longer.
func (s *segment) stat(folder string) error {
	file, err := os.Open(s.path(folder))
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	in, err := s.scanner(file, noBound)
	if err != nil {
		return err
	}
	s.size, s.begun, in.ahead = info.Size(), info.ModTime(), 4<<10
	for range 2 {
		f, ok, err := in.next()
		if err != nil || !ok {
			return err
		}
		if s.begun = f.time; !f.begins {
			break
		}
	}
	return nil
}

// begin creates the file of a new segment, durably. last is the number of the last
// record before it.
func begin(folder string, first, last uint64) (segment, *os.File, error) {
	s := segment{first: first, salt: rand.Uint32(), begun: time.Now(), size: beginSize}
	file, err := os.OpenFile(s.path(folder), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return segment{}, nil, err
	}
	_, err = file.WriteAt(appendFrame(nil, s.salt, 0, last, s.begun, []byte(beginning)), 0)
	if err == nil {
		err = errors.Join(durable.SameOwner(file, folder), file.Sync(), durable.SyncFolder(folder))
	}
	if err != nil {
		return segment{}, nil, errors.Join(err, file.Close(), os.Remove(file.Name()))
	}
	return s, file, nil
}

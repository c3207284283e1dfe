package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"slices"
	"time"
)

// Record is a record as it is read.
type Record struct {
	Number   uint64
	Time     time.Time // when it was written
	Payload  []byte
	Position Position
}

// Position is where a record is. It stays there as long as it is kept.
type Position struct {
	Segment uint64 // the number that the segment's records begin with
	Offset  int64  // in the segment, in bytes
}

// Damage is an error that tells of records that were written and cannot be read.
type Damage struct {
	File     string // where they were
	Offset   int64  // at this byte or behind it
	From, To uint64 // their numbers; To is 0 when nobody knows
}

func (d *Damage) Error() string {
	numbers := fmt.Sprintf("the records %d to %d", d.From, d.To)
	switch d.To {
	case 0:
		numbers = fmt.Sprintf("records from %d on", d.From)
	case d.From:
		numbers = fmt.Sprintf("the record %d", d.From)
	}
	return fmt.Sprintf("%s cannot be read: %s is damaged at byte %d; the other records are not affected", numbers, d.File, d.Offset)
}

// Records reads the records of a folder that have higher numbers than after, the
// oldest first, whether somebody writes to it or not. It takes no lock; what is
// written meanwhile may be missing. A record's payload is valid until the next one
// is asked for.
//
// An error that is a *Damage stands for records that cannot be read. Whoever goes
// on gets those behind. Any other error is the end.
//
// Segments that are dropped while they are read are passed over.
func Records(folder string, after uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		all, err := list(folder)
		if err != nil {
			yield(Record{}, err)
			return
		}
		r := reader{folder: folder, after: after, yield: yield}
		for i := start(all, after); i < len(all); i++ {
			if !r.read(all[i], boundOf(all, i)) {
				return
			}
		}
	}
}

// start returns the index of the segment that has the record behind after, if it
// is there.
func start(all []segment, after uint64) int {
	for i := len(all) - 1; i > 0; i-- {
		if all[i].first-1 <= after {
			return i
		}
	}
	return 0
}

// boundOf returns the bound of the numbers in the ith segment.
func boundOf(all []segment, i int) uint64 {
	for _, next := range all[i+1:] {
		if next.first > all[i].first { // not the remains of one that was to begin as it does
			return next.first
		}
	}
	return noBound
}

// reader reads one segment after the other.
type reader struct {
	folder string
	after  uint64
	yield  func(Record, error) bool

	known bool   // whether the rest says anything of what comes before the next one
	last  uint64 // the number of the last record, as far as it could be read
	file  string // in which it was
	end   int64  // where it ended
}

// read reads a segment, and reports whether to go on.
func (r *reader) read(s segment, bound uint64) (more bool) {
	path := s.path(r.folder)
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) { // dropped meanwhile
		r.known = false
		return true
	}
	if err != nil {
		r.yield(Record{}, err)
		return false
	}
	defer file.Close()
	in, err := s.scanner(file, bound)
	if err == nil {
		more, err = r.frames(in, s, path)
	}
	if err != nil {
		r.yield(Record{}, fmt.Errorf("%s: %w", path, err))
		return false
	}
	return more
}

// frames reads the frames of a segment.
func (r *reader) frames(in *scanner, s segment, path string) (more bool, err error) {
	if !r.known {
		r.known, r.last, r.file, r.end = true, s.first-1, path, 0
	}
	for first := true; ; first = false {
		before := in.end
		f, ok, err := in.next()
		if err != nil {
			return false, err
		}
		if !ok {
			break
		}
		if first {
			// The numbers below s.first have been given. When writing one
			// failed the beginning tells that there is no such record.
			last := s.first - 1
			if f.begins {
				last = f.number
			}
			if r.last < last && !r.damaged(last) {
				return false, nil
			}
			r.last, r.file, r.end = max(r.last, last), path, 0
		}
		if f.offset > before && !f.begins && r.last+1 < f.number && !r.damaged(f.number-1) {
			return false, nil
		}
		r.end = in.end
		if f.begins || f.number <= r.last { // a file that the system has listed twice, as it came and others went
			continue
		}
		r.last = f.number
		if f.number > r.after && !r.yield(Record{f.number, f.time, f.payload, Position{s.first, f.offset}}, nil) {
			return false, nil
		}
	}
	if in.end == 0 && in.size > beginSize {
		// There were records, and nobody knows how many. The next segment will
		// tell, if there is one.
		r.file, r.end = path, 0
		if in.bound == noBound {
			return r.damaged(0), nil
		}
	}
	return true, nil
}

// damaged tells of the records behind the last one, up to that with the number to,
// which is 0 when nobody knows.
func (r *reader) damaged(to uint64) (more bool) {
	if to > 0 && to <= r.after {
		return true
	}
	return r.yield(Record{}, &Damage{File: r.file, Offset: r.end, From: max(r.last, r.after) + 1, To: to})
}

// survey reads a segment, the last one, and tells of damage. The reader that it
// returns says what the last record is, and where it ends: at 0 when nothing can
// be read.
func survey(folder string, s segment, damaged func(error)) (*reader, error) {
	var failed error
	r := &reader{folder: folder}
	r.yield = func(_ Record, err error) bool {
		var damage *Damage
		switch {
		case err == nil:
		case errors.As(err, &damage):
			damaged(err)
		default:
			failed = err
		}
		return failed == nil
	}
	r.read(s, noBound)
	return r, failed
}

// At returns the record at a position. The error wraps fs.ErrNotExist when it was
// dropped.
func (j *Journal) At(p Position) (Record, error) {
	all := *j.segments.Load()
	i := slices.IndexFunc(all, func(s segment) bool { return s.first == p.Segment })
	if i < 0 {
		return Record{}, fmt.Errorf("segment %d: %w", p.Segment, fs.ErrNotExist)
	}
	path := all[i].path(j.folder)
	file, err := os.Open(path)
	if err != nil {
		return Record{}, err
	}
	defer file.Close()
	in, err := all[i].scanner(file, boundOf(all, i))
	if err != nil {
		return Record{}, err
	}
	in.at, in.end, in.ahead = p.Offset, p.Offset, 4<<10
	f, ok, err := in.next()
	if err == nil && (!ok || f.begins || f.offset != p.Offset) {
		err = fmt.Errorf("there is no whole record at byte %d", p.Offset)
	}
	if err != nil {
		return Record{}, fmt.Errorf("%s: %w", path, err)
	}
	return Record{f.number, f.time, f.payload, p}, nil
}

// Numbers returns the number of the first record that a folder keeps, damaged or
// not, and of the last. They are 1 and 0 when there is none.
func Numbers(folder string) (first, last uint64, err error) {
	all, err := list(folder)
	if err != nil || len(all) == 0 {
		return 1, 0, err
	}
	r, err := survey(folder, all[len(all)-1], func(error) {})
	if err == nil && !r.known { // dropped meanwhile, like all before it
		return Numbers(folder)
	}
	return all[0].first, r.last, err
}

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

// Record is a record that was read.
type Record struct {
	Number   uint64
	Time     time.Time // when it was written
	Payload  []byte
	Position Position
}

// Position is where a record is. It is valid for as long as the record is kept.
type Position struct {
	Segment uint64 // the number with which the segment's records begin
	Offset  int64  // in the segment, in bytes
}

// Damage is an error that stands for records that were written and cannot be read.
type Damage struct {
	File     string // the segment's file
	Offset   int64  // they are at this byte or after it
	From, To uint64 // their numbers; To is 0 if unknown
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

// Records reads the records in a folder whose numbers are higher than after, the oldest
// first. It takes no lock, and somebody may write at the same time; it may miss what is
// written meanwhile. A record's payload is valid until the next record is asked for.
//
// An error that is a *Damage stands for records that cannot be read; whoever goes on
// gets those behind them. Any other error is the last.
//
// Records skips segments that are removed while it reads.
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

// start returns the index of the segment in which the record after the number after
// would be.
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
		if next.first > all[i].first { // otherwise it is the rest of a segment with the same beginning
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

	known bool   // whether last tells how many records precede the next segment
	last  uint64 // the number of the last record that could be read
	file  string // the file in which it was
	end   int64  // where it ended
}

// read reads a segment, and reports whether to go on.
func (r *reader) read(s segment, bound uint64) (more bool) {
	path := s.path(r.folder)
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) { // it was removed meanwhile
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
			// All numbers below s.first have been given. If a record with the last of
			// them could not be written, the segment's first frame says so.
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
		if f.begins || f.number <= r.last { // a directory listing may show a file twice while others come and go
			continue
		}
		r.last = f.number
		if f.number > r.after && !r.yield(Record{f.number, f.time, f.payload, Position{s.first, f.offset}}, nil) {
			return false, nil
		}
	}
	if in.end == 0 && in.size > beginSize {
		// There were records, and it is unknown how many. The next segment, if there is
		// one, will tell.
		r.file, r.end = path, 0
		if in.bound == noBound {
			return r.damaged(0), nil
		}
	}
	return true, nil
}

// damaged reports the records from after the last one to the number to, which is 0 if
// unknown.
func (r *reader) damaged(to uint64) (more bool) {
	if to > 0 && to <= r.after {
		return true
	}
	return r.yield(Record{}, &Damage{File: r.file, Offset: r.end, From: max(r.last, r.after) + 1, To: to})
}

// survey reads the last segment and reports damage. The reader that it returns knows
// the last record and where it ended; that is 0 if nothing could be read.
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

// At returns the record at a position. The error wraps fs.ErrNotExist if the record was
// removed.
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

// Numbers returns the numbers of the first record that a folder keeps, damaged or not,
// and of the last. They are 1 and 0 if there is none.
func Numbers(folder string) (first, last uint64, err error) {
	all, err := list(folder)
	if err != nil || len(all) == 0 {
		return 1, 0, err
	}
	r, err := survey(folder, all[len(all)-1], func(error) {})
	if err == nil && !r.known { // it was removed meanwhile, and so were all before it
		return Numbers(folder)
	}
	return all[0].first, r.last, err
}

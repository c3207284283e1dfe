// Package journal keeps records in a folder, in the order in which they came. It
// knows nothing of what is in them.
//
// A record gets a number, one more than the one before, and is found again by it,
// or by its Position. A folder has segments, files of checksummed records, the
// oldest of which go when there are too many bytes or they are too old. Records are
// written at once, so that a process that is killed loses none; synced are those
// whose writer waits for that, all that came meanwhile by one sync.
//
// After a power cut each record whose writer was told that it is synced is there.
// Others may be, whole. A record that broke off at the end of the last segment is
// cut off when the journal is opened. One that is damaged elsewhere costs nobody
// but itself: readers are told which it was, and go on with the next.
//
// Readers take no lock. They read the files, beside whoever writes, and in another
// process too.
//
// Opening reads the last segment: 0.3 s for one of 1,000,000 records of 100 bytes, a
// few milliseconds for one of 8 MB (BenchmarkOpen).
package journal

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// MaxPayload is how long a record's payload may be, in bytes.
const MaxPayload = 64 << 20

// defaultSegment is an Options.Segment. Finding a record by its number reads half
// a segment.
const defaultSegment = 8 << 20

// ErrClosed is the error of writing to a journal that is closed.
var ErrClosed = errors.New("it is closed")

// Options are a journal's settings.
type Options struct {
	// Segment is how large a segment gets, in bytes, before the next one is
	// begun. 0 is 8 MB. Only a larger record makes one larger.
	Segment int64

	// MaxBytes bounds all segments: the oldest go before there are more bytes.
	// 0 is no bound. It should be several times Segment.
	MaxBytes int64

	// MaxAge bounds how old records get, as long as Trim is called now and then.
	// They are kept for seven eighths of it at least. 0 is no bound.
	MaxAge time.Duration

	// First is the lowest number that a record gets. 0 is 1.
	First uint64

	// Failed is told of what no caller is: of damage found while opening, and
	// of segments that could not be begun or removed.
	Failed func(error)
}

// Journal writes to a folder. Its methods may be called by several goroutines.
type Journal struct {
	folder  string
	options Options

	segments atomic.Pointer[[]segment] // replaced under mu; the last is written to

	syncing lock // held during a sync, and while file changes; taken before mu

	mu     sync.Mutex
	closed bool
	file   *os.File
	end    int64  // of the last record in file
	last   uint64 // the number that was given last
	prior  uint64 // the number of the last record that was written
	broken error  // why nothing more is written to file
	group  *group // of the records that no sync has begun for
	buffer []byte
}

// group is the records that a sync is for.
type group struct {
	some  bool          // guarded by mu
	ended chan struct{} // closed when it is synced, or will not be
	err   error         // set before
}

func newGroup() *group { return &group{ended: make(chan struct{})} }

// end says what came of it.
func (g *group) end(err error) {
	g.err = err
	close(g.ended)
}

// lock is a mutex that can be waited for beside other things. It has room for one.
type lock chan struct{}

func (l lock) Lock()   { l <- struct{}{} }
func (l lock) Unlock() { <-l }

// tell tells Failed of an error, unless it is nil.
func (j *Journal) tell(err error) {
	if err != nil && j.options.Failed != nil {
		j.options.Failed(err)
	}
}

// Append writes a record, and returns it as it will be read. A power cut may take
// it until there was a sync. When it fails the record is not there, and its number
// is given to no other.
func (j *Journal) Append(payload []byte) (Record, error) {
	record, _, err := j.append(payload)
	return record, err
}

// AppendSync is Append, and returns when the record is on disk. When the sync fails
// the record may be there or not, and nobody knows until it is read after the next
// start of the system.
func (j *Journal) AppendSync(payload []byte) (Record, error) {
	record, group, err := j.append(payload)
	if err == nil {
		err = j.sync(group)
	}
	return record, err
}

func (j *Journal) append(payload []byte) (Record, *group, error) {
	if len(payload) > MaxPayload {
		return Record{}, nil, fmt.Errorf("a record of %d bytes is too long", len(payload))
	}
	size := headerSize + int64(len(payload))
	j.mu.Lock()
	for j.full(size) {
		j.mu.Unlock()
		err := j.rotate(func() bool { return j.full(size) })
		j.tell(err)
		j.mu.Lock()
		if err != nil {
			break
		}
	}
	defer j.mu.Unlock()
	if j.closed {
		return Record{}, nil, ErrClosed
	}
	j.last++
	if j.broken != nil {
		return Record{}, nil, j.broken
	}
	all := *j.segments.Load()
	s := all[len(all)-1]
	record := Record{j.last, time.Now(), payload, Position{s.first, j.end}}
	if err := j.write(appendFrame(j.buffer[:0], s.salt, j.end, record.Number, record.Time, payload)); err != nil {
		return Record{}, nil, err
	}
	if record.Position.Offset == beginSize {
		all = slices.Clone(all)
		all[len(all)-1].begun = record.Time
		j.keep(all)
	}
	j.prior = j.last
	j.group.some = true
	return record, j.group, nil
}

// write writes a frame behind the last one, or nothing of it.
func (j *Journal) write(frame []byte) error {
	if cap(frame) <= readAhead {
		j.buffer = frame
	}
	if _, err := j.file.WriteAt(frame, j.end); err != nil {
		// A reader has seen the part that was written, perhaps. It must not see
		// it change, so nothing comes in its place unless it is gone.
		if undo := j.file.Truncate(j.end); undo != nil {
			j.broken = errors.Join(err, undo)
		}
		return err
	}
	j.end += int64(len(frame))
	return nil
}

// Sync returns when each record that was appended before is on disk.
func (j *Journal) Sync() error {
	j.mu.Lock()
	group := j.group
	j.mu.Unlock()
	return j.sync(group)
}

// sync returns when a group is on disk. Whoever comes first syncs for all.
func (j *Journal) sync(g *group) error {
	select {
	case <-g.ended:
		return g.err
	case j.syncing <- struct{}{}:
	}
	defer j.syncing.Unlock()
	select {
	case <-g.ended: // between the two
		return g.err
	default:
	}
	j.mu.Lock()
	file := j.file
	j.group = newGroup() // of those who write from now on
	err, some := j.broken, g.some
	j.mu.Unlock()
	if err == nil && some {
		err = file.Sync()
	}
	if err != nil {
		// The system may have thrown away what it could not write, and will not
		// say so again. The next records go to another file.
		j.mu.Lock()
		j.broken = err
		j.mu.Unlock()
	}
	g.end(err)
	return err
}

// full reports whether another segment is needed for a record of that size.
func (j *Journal) full(size int64) bool {
	return !j.closed && (j.broken != nil || j.end > beginSize && j.end+size > j.options.Segment)
}

// rotate begins a segment, if that is needed still, and drops those that are too
// many. When it fails the one that is written to stays, and no other has gone.
func (j *Journal) rotate(needed func() bool) error {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if !needed() {
		return nil
	}
	settled := j.settle() // all but the last segment are whole, whoever waits for that or not
	if settled != nil {
		settled = fmt.Errorf("a segment may not be whole: %w", settled)
	}
	file := j.file
	if err := j.begin(); err != nil {
		return errors.Join(settled, fmt.Errorf("the next segment could not be begun: %w", err))
	}
	return errors.Join(settled, file.Close(), j.trim(time.Now()))
}

// settle syncs what no sync has begun for. It wants both locks held.
func (j *Journal) settle() (err error) {
	if j.broken == nil && j.group.some {
		err = j.file.Sync()
		j.broken = err
	}
	j.group.end(j.broken)
	j.group = newGroup()
	return err
}

// begin begins a segment and writes to it from then on.
func (j *Journal) begin() error {
	s, file, err := begin(j.folder, j.last+1, j.prior)
	if err != nil {
		return err
	}
	all := slices.Clone(*j.segments.Load())
	if len(all) > 0 {
		all[len(all)-1].size = max(all[len(all)-1].size, j.end)
	}
	j.keep(append(all, s))
	j.file, j.end, j.broken = file, beginSize, nil
	return nil
}

// keep has readers see these segments from now on. None of them may be changed any
// more.
func (j *Journal) keep(all []segment) { j.segments.Store(&all) }

// Close syncs what was written, and closes the file.
func (j *Journal) Close() error {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	return errors.Join(j.settle(), j.file.Close())
}

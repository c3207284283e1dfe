// Package survey reads and checks a whole bbolt file by bbolt's own page layout. bbolt
// relies on pages being as it wrote them. Damaged pages make it panic, in goroutines of
// its own, too, allocate without bound, or silently leave keys out. So bbolt gets a
// file only after the survey.
//
// A page in the file has, in the machine's byte order, a header (number, type, count of
// elements, and count of overflow pages), elements of 16 bytes, and the keys and values
// to which these point. Pages 0 and 1 are the metas.
package survey

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// Survey is the state of a survey. The caller reads each bucket once, and then calls
// Free.
type Survey struct {
	file     io.ReaderAt
	size     int64
	pageSize int64
	meta     meta   // the valid one with the last commit
	seen     []bool // by page: it belongs to something
	buckets  map[string][]byte
	problems []error
}

// The parts of a page, as in internal/common of bbolt's sources.
const (
	pageHeader  = 16
	elementSize = 16
	metaSize    = 64

	branchPage   = 0x01
	leafPage     = 0x02
	metaPage     = 0x04
	freelistPage = 0x10

	metaMagic    = 0xED0CDAED
	metaVersion  = 2
	noFreelist   = ^uint64(0)
	manyFree     = 0xFFFF // the list then begins with the number of free pages
	bucketHeader = 16     // of a bucket's value: its root page and its sequence
)

// MaxProblems bounds the problems that a survey reports. One bad page may cause
// thousands.
const MaxProblems = 100

// maxDepth is more than the depth of the largest tree that fits on a disk.
const maxDepth = 32

// Begin reads the meta pages and the list of buckets. It never writes, and no part of a
// survey reads a page twice. Problems tells what is wrong.
func Begin(file *os.File) *Survey {
	s := &Survey{file: file, buckets: map[string][]byte{}}
	info, err := file.Stat()
	if err != nil {
		s.Problem(err)
		return s
	}
	s.size = info.Size()
	if err := s.metas(); err != nil {
		s.Problem(err)
		return s
	}
	s.seen = make([]bool, s.meta.pages)
	s.seen[0], s.seen[1] = true, true
	s.tree(s.meta.root, 0, nil, nil, func(flags uint32, key, value []byte) error {
		if flags != 1 {
			return fmt.Errorf("%.80q is not a bucket", key)
		}
		s.buckets[string(key)] = bytes.Clone(value)
		return nil
	})
	return s
}

// Whole reports whether the meta pages are good, so that there are buckets to read.
func (s *Survey) Whole() bool { return s.seen != nil }

// PageSize returns the size of a page in bytes.
func (s *Survey) PageSize() int { return int(s.pageSize) }

// Buckets returns the number of buckets.
func (s *Survey) Buckets() int { return len(s.buckets) }

// Has reports whether there is a bucket of that name.
func (s *Survey) Has(bucket string) bool {
	_, ok := s.buckets[bucket]
	return ok
}

// Problems returns what is wrong so far, cut off at MaxProblems.
func (s *Survey) Problems() []error { return s.problems }

// Problem adds a problem, for example one that the caller found in a bucket.
func (s *Survey) Problem(err error) {
	if len(s.problems) < MaxProblems {
		s.problems = append(s.problems, err)
	}
}

// meta is the content of a meta page.
type meta struct {
	pageSize                    uint32
	root, freelist, pages, txid uint64
}

// metas reads both meta pages. bbolt writes them alternately, and the content of each
// is within one disk sector, which a power cut leaves either old or new. Both are
// therefore valid after any crash. If one is not, bbolt would go on with the other, and
// so drop the last commit.
func (s *Survey) metas() error {
	first, err := s.readMeta(0, 0)
	if err != nil {
		return err
	}
	s.pageSize = int64(first.pageSize)
	if s.pageSize < 1024 || s.pageSize&(s.pageSize-1) != 0 {
		return fmt.Errorf("pages of %d bytes", s.pageSize)
	}
	second, err := s.readMeta(1, s.pageSize)
	if err != nil {
		return err
	}
	s.meta = first
	if second.txid > first.txid {
		s.meta = second
	}
	switch {
	case second.pageSize != first.pageSize:
		return errors.New("the meta pages disagree about the size of a page")
	case s.meta.pages < 4 || s.meta.pages > uint64(s.size/s.pageSize):
		return fmt.Errorf("the file is cut off: it has %d bytes, and should have %d pages of %d", s.size, s.meta.pages, s.pageSize)
	}
	return nil
}

// Transaction returns the number of the transaction that wrote a meta page, 0 or 1.
func Transaction(file io.ReaderAt, page uint64, pageSize int) (uint64, error) {
	s := Survey{file: file}
	m, err := s.readMeta(page, int64(page)*int64(pageSize))
	return m.txid, err
}

func (s *Survey) readMeta(number uint64, at int64) (m meta, err error) {
	text := make([]byte, pageHeader+metaSize)
	if _, err := s.file.ReadAt(text, at); err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("the file is cut off: it has %d bytes", s.size)
		}
		return m, err
	}
	order := binary.NativeEndian
	body := text[pageHeader:]
	sum := fnv.New64a()
	sum.Write(body[:metaSize-8])
	switch {
	case order.Uint32(body) != metaMagic:
		return m, fmt.Errorf("meta page %d is not one of a database", number)
	case order.Uint32(body[4:]) != metaVersion:
		return m, fmt.Errorf("meta page %d has version %d, want %d", number, order.Uint32(body[4:]), metaVersion)
	case order.Uint64(body[metaSize-8:]) != sum.Sum64():
		return m, fmt.Errorf("the checksum of meta page %d is wrong", number)
	}
	if kind := order.Uint16(text[8:]); order.Uint64(text) != number || kind != metaPage {
		return m, fmt.Errorf("page %d says that it is page %d of type %d", number, order.Uint64(text), kind)
	}
	return meta{
		pageSize: order.Uint32(body[8:]),
		root:     order.Uint64(body[16:]),
		freelist: order.Uint64(body[32:]),
		pages:    order.Uint64(body[40:]),
		txid:     order.Uint64(body[48:]),
	}, nil
}

// Bucket reads a bucket, calls each with every key and value in it, and returns the
// bucket's sequence. What each is given is valid until it returns. Its errors become
// problems.
func (s *Survey) Bucket(name string, each func(key, value []byte) error) (sequence uint64) {
	value := s.buckets[name] // has the bucket's page inside if the bucket is small
	records := func(flags uint32, key, value []byte) error {
		if flags != 0 {
			return fmt.Errorf("%.80q is marked with %#x", key, flags)
		}
		return each(key, value)
	}
	if len(value) < bucketHeader {
		s.Problem(fmt.Errorf("bucket %s: it has %d bytes", name, len(value)))
		return 0
	}
	if number := binary.NativeEndian.Uint64(value); number != 0 {
		s.tree(number, 0, nil, nil, records)
	} else if text := value[bucketHeader:]; len(text) < pageHeader || binary.NativeEndian.Uint16(text[8:]) != leafPage {
		s.Problem(fmt.Errorf("bucket %s: it holds no page", name))
	} else if err := s.leaf(text, nil, nil, records); err != nil {
		s.Problem(fmt.Errorf("bucket %s: %w", name, err))
	}
	return binary.NativeEndian.Uint64(value[8:])
}

// Free reads the list of free pages. They must be exactly those that belong to nothing:
// a page that is both in use and free would be overwritten.
func (s *Survey) Free() {
	if len(s.problems) > 0 || s.meta.freelist == noFreelist {
		return // after a problem half of the pages would seem to be in neither place
	}
	text, err := s.page(s.meta.freelist)
	if err != nil {
		s.Problem(err)
		return
	}
	order := binary.NativeEndian
	ids, n := text[pageHeader:], uint64(order.Uint16(text[10:]))
	if kind := order.Uint16(text[8:]); kind != freelistPage {
		s.Problem(fmt.Errorf("page %d has type %d, want the list of free pages", s.meta.freelist, kind))
		return
	}
	if n == manyFree {
		n, ids = order.Uint64(ids), ids[8:]
	}
	if n > uint64(len(ids)/8) {
		s.Problem(fmt.Errorf("page %d: %d free pages do not fit in", s.meta.freelist, n))
		return
	}
	for i := range n {
		id := order.Uint64(ids[8*i:])
		if id >= s.meta.pages || s.seen[id] {
			s.Problem(fmt.Errorf("page %d is listed as free and is not", id))
			return
		}
		s.seen[id] = true
	}
	for id, seen := range s.seen {
		if !seen {
			s.Problem(fmt.Errorf("page %d is neither in use nor free", id))
			return
		}
	}
}

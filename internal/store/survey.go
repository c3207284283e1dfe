package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"strconv"
)

// survey reads a whole database file and checks it, by bbolt's own layout of
// pages. bbolt takes for granted that pages are as it wrote them: damaged ones
// have it panic, in goroutines of its own too, allocate without bound, or leave
// records out in silence. So it gets a file only after the survey.
//
// A page in the file is, in the machine's byte order, a header (number, type,
// elements, and how many pages more belong to it), elements of 16 bytes, and
// the keys and values that these point to. Pages 0 and 1 are the metas.
type survey struct {
	file     io.ReaderAt
	size     int64
	pageSize int64
	meta     meta   // the one that counts
	seen     []bool // by page: it belongs to something
	problems []error

	each     func(Entry) // is called with every good record, valid until it returns
	schema   int         // that the records say, or of this dispatcher when they do not
	records  digest      // what the records come to
	sequence uint64      // the last revision
	digest   *digest     // what is stored of them; nil in schema 1
}

// A page's parts, as bbolt has them (internal/common in its sources).
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
	manyFree     = 0xFFFF // then the first number in the list is how many there are
	bucketHeader = 16     // of a bucket's value: its root page and its sequence
)

// maxProblems is how many are told; after a page that is wrong there may be
// thousands.
const maxProblems = 100

// maxDepth is more than a tree of all pages that fit on a disk has.
const maxDepth = 32

// bucketDigest holds the digest, beside bucket: so small that it is stored in
// the page that lists the buckets, which every commit writes anyway.
var bucketDigest = []byte("digest")

// surveyFile reads the file and returns what it found. It never writes, and
// reads no page twice. each is called with every good record, whose value is
// valid until it returns.
func surveyFile(file *os.File, each func(Entry)) *survey {
	s := &survey{file: file, each: each}
	info, err := file.Stat()
	if err != nil {
		s.problem(err)
		return s
	}
	s.size = info.Size()
	if err := s.metas(); err != nil {
		s.problem(err)
		return s
	}
	s.seen = make([]bool, s.meta.pages)
	s.seen[0], s.seen[1] = true, true
	root := map[string][]byte{}
	s.tree(s.meta.root, 0, nil, nil, func(flags uint32, key, value []byte) error {
		if flags != 1 {
			return fmt.Errorf("%.80q is no bucket", key)
		}
		root[string(key)] = bytes.Clone(value)
		return nil
	})
	s.buckets(root)
	s.freelist()
	return s
}

// err returns the problems as one error, that of damage in most cases.
func (s *survey) err() error {
	switch n := len(s.problems); {
	case n == 0:
		return nil
	case errors.Is(s.problems[0], errNewer) || errors.Is(s.problems[0], errNotOurs):
		return s.problems[0]
	case n == 1:
		return damaged(s.problems[0])
	default:
		return damaged(fmt.Errorf("%w (dispatcher check lists %d more)", s.problems[0], n-1))
	}
}

func (s *survey) problem(err error) {
	if len(s.problems) < maxProblems {
		s.problems = append(s.problems, err)
	}
}

// meta is what a meta page says.
type meta struct {
	pageSize                    uint32
	root, freelist, pages, txid uint64
}

// metas reads both meta pages. bbolt writes them in turn, the content of each
// within one sector of the disk, which a power cut leaves old or new. So both
// are valid after any crash, and bbolt's own remedy for one that is not, to go
// on with the other, would drop the last commit.
func (s *survey) metas() error {
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

func (s *survey) readMeta(number uint64, at int64) (m meta, err error) {
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

// errNotOurs is about a database that no dispatcher wrote, or a newer one.
var errNotOurs = errors.New("another program's data is in it, or a newer dispatcher's")

// buckets reads what the two buckets hold.
func (s *survey) buckets(root map[string][]byte) {
	records, ok := root[string(bucket)]
	own, hasDigest := root[string(bucketDigest)]
	want := 1
	s.schema = 1
	if hasDigest {
		want, s.schema = 2, schema
	}
	if !ok || len(root) != want {
		s.problem(errNotOurs)
		return
	}
	s.sequence = s.bucket(bucket, records, s.record)
	if !hasDigest {
		return
	}
	s.bucket(bucketDigest, own, func(key, stored []byte) error {
		if !bytes.Equal(key, bucketDigest) {
			return fmt.Errorf("%.80q is no digest", key)
		}
		d, err := decodeDigest(stored)
		s.digest = &d
		return err
	})
	s.records.sequence = s.sequence
	if s.digest == nil {
		s.problem(errors.New("there is no digest of the records"))
	} else if err := s.digest.compare(s.records); err != nil {
		s.problem(err)
	}
}

// record reads one record.
func (s *survey) record(key, stored []byte) error {
	decode := decodeEntry
	if s.schema == 1 {
		decode = decodeFirst
	}
	e, sum, err := decode(key, stored)
	if err != nil {
		return err
	}
	s.records.add(sum)
	if e.Key == keySchema && s.schema != 1 {
		if number, err := strconv.Atoi(string(e.Value)); err == nil && number > 1 {
			s.schema = number
		}
	}
	s.each(e)
	return nil
}

// bucket reads a bucket, of which value is what the root has, and returns its
// sequence. A small bucket is a page within the value.
func (s *survey) bucket(name, value []byte, each func(key, stored []byte) error) (sequence uint64) {
	records := func(flags uint32, key, stored []byte) error {
		if flags != 0 {
			return fmt.Errorf("%.80q is marked with %#x", key, flags)
		}
		return each(key, stored)
	}
	if len(value) < bucketHeader {
		s.problem(fmt.Errorf("bucket %s: it has %d bytes", name, len(value)))
		return 0
	}
	if number := binary.NativeEndian.Uint64(value); number != 0 {
		s.tree(number, 0, nil, nil, records)
	} else if text := value[bucketHeader:]; len(text) < pageHeader || binary.NativeEndian.Uint16(text[8:]) != leafPage {
		s.problem(fmt.Errorf("bucket %s: it holds no page", name))
	} else if err := s.leaf(text, nil, nil, records); err != nil {
		s.problem(fmt.Errorf("bucket %s: %w", name, err))
	}
	return binary.NativeEndian.Uint64(value[8:])
}

// freelist reads which pages are free: all that belong to nothing. A page that
// is in use and free too would be overwritten.
func (s *survey) freelist() {
	if len(s.problems) > 0 || s.meta.freelist == noFreelist {
		return // after a problem half of the pages would be in neither place
	}
	text, err := s.page(s.meta.freelist)
	if err != nil {
		s.problem(err)
		return
	}
	order := binary.NativeEndian
	ids, n := text[pageHeader:], uint64(order.Uint16(text[10:]))
	if kind := order.Uint16(text[8:]); kind != freelistPage {
		s.problem(fmt.Errorf("page %d has type %d, want the list of free pages", s.meta.freelist, kind))
		return
	}
	if n == manyFree {
		n, ids = order.Uint64(ids), ids[8:]
	}
	if n > uint64(len(ids)/8) {
		s.problem(fmt.Errorf("page %d: %d free pages do not fit in", s.meta.freelist, n))
		return
	}
	for i := range n {
		id := order.Uint64(ids[8*i:])
		if id >= s.meta.pages || s.seen[id] {
			s.problem(fmt.Errorf("page %d is listed as free and is not", id))
			return
		}
		s.seen[id] = true
	}
	for id, seen := range s.seen {
		if !seen {
			s.problem(fmt.Errorf("page %d is neither in use nor free", id))
			return
		}
	}
}

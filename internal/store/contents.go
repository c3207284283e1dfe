package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/flockofbirds/fob/internal/store/survey"
)

// contents is what is in a database file, as a survey found it: the schema, the digest
// and the problems. The records themselves go to a function.
type contents struct {
	pageSize int
	problems []error

	schema  int     // that the records have; this dispatcher's if they say nothing
	records digest  // computed from the records
	digest  *digest // as stored; nil in schema 1
}

// readContents surveys a file: its pages, every record, and the digest. It never
// writes, and reads no page twice. It calls each for every sound record. The
// record's value may be used until each returns.
func readContents(file *os.File, each func(Entry)) *contents {
	s := survey.Begin(file)
	c := &contents{pageSize: s.PageSize()}
	if s.Whole() {
		c.read(s, each)
		s.Free()
	}
	c.problems = s.Problems()
	return c
}

// bucketDigest holds the digest. It is so small that bbolt stores it in the page that
// lists the buckets, which every commit writes anyway.
var bucketDigest = []byte("digest")

// errNotOurs says that the file was written by another program, or by a newer
// dispatcher.
var errNotOurs = errors.New("another program's data is in it, or a newer dispatcher's")

// read reads the two buckets.
func (c *contents) read(s *survey.Survey, each func(Entry)) {
	want := 1
	c.schema = 1
	hasDigest := s.Has(string(bucketDigest))
	if hasDigest {
		want, c.schema = 2, schema
	}
	if !s.Has(string(bucket)) || s.Buckets() != want {
		s.Problem(errNotOurs)
		return
	}
	c.records.sequence = s.Bucket(string(bucket), func(key, stored []byte) error { return c.record(key, stored, each) })
	if !hasDigest {
		return
	}
	s.Bucket(string(bucketDigest), func(key, stored []byte) error {
		if !bytes.Equal(key, bucketDigest) {
			return fmt.Errorf("%.80q is not a digest", key)
		}
		d, err := decodeDigest(stored)
		c.digest = &d
		return err
	})
	if c.digest == nil {
		s.Problem(errors.New("there is no digest of the records"))
	} else if err := c.digest.compare(c.records); err != nil {
		s.Problem(err)
	}
}

// record reads one record.
func (c *contents) record(key, stored []byte, each func(Entry)) error {
	decode := decodeEntry
	if c.schema == 1 {
		decode = decodeFirst
	}
	e, sum, err := decode(key, stored)
	if err != nil {
		return err
	}
	c.records.add(sum)
	if e.Key == keySchema && c.schema != 1 {
		if number, err := strconv.Atoi(string(e.Value)); err == nil && number > 1 {
			c.schema = number
		}
	}
	each(e)
	return nil
}

// err returns the problems as one error, which usually wraps errDamaged.
func (c *contents) err() error {
	switch n := len(c.problems); {
	case n == 0:
		return nil
	case errors.Is(c.problems[0], errNewer) || errors.Is(c.problems[0], errNotOurs):
		return c.problems[0]
	case n == 1:
		return damaged(c.problems[0])
	default:
		return damaged(fmt.Errorf("%w (dispatcher check lists %d more)", c.problems[0], n-1))
	}
}

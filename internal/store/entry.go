package store

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
)

// A value in the file is a header followed by the record. The header has, in big-endian
// order: the revision that created the key, the revision that last put it, the schema,
// and a sum over all this with the key and the value.
const (
	sumAt      = 8 + 8 + 4
	headerSize = sumAt + sumSize
)

// sumSize is half a SHA-256: large enough that no damage passes by chance.
const sumSize = 16

// sum is the checksum of a record.
type sum [sumSize]byte

// sumOf covers the key, the header before the sum, and the value. It includes the key's
// length, so that moving bytes from the key to the value changes the sum.
func sumOf(key, header, value []byte) sum {
	h := sha256.New()
	var length [4]byte
	binary.BigEndian.PutUint32(length[:], uint32(len(key)))
	h.Write(length[:])
	h.Write(key)
	h.Write(header[:sumAt])
	h.Write(value)
	return sum(h.Sum(nil)[:sumSize])
}

// encodeEntry returns the value to store for a key.
func encodeEntry(key []byte, created, revision uint64, value []byte) (stored []byte, s sum) {
	stored = make([]byte, 0, headerSize+len(value))
	stored = binary.BigEndian.AppendUint64(stored, created)
	stored = binary.BigEndian.AppendUint64(stored, revision)
	stored = binary.BigEndian.AppendUint32(stored, schema)
	s = sumOf(key, stored, value)
	stored = append(stored, s[:]...)
	return append(stored, value...), s
}

// decodeEntry checks and decodes what is stored for a key. The entry's value is part of
// stored.
func decodeEntry(key, stored []byte) (e Entry, s sum, err error) {
	if len(stored) < headerSize {
		return e, s, fmt.Errorf("the record %.80q has no header", key)
	}
	value := stored[headerSize:]
	s = sumOf(key, stored, value)
	if subtle.ConstantTimeCompare(s[:], stored[sumAt:headerSize]) != 1 {
		return e, s, fmt.Errorf("the checksum of the record %.80q is wrong", key)
	}
	if err := checkSchema(int(binary.BigEndian.Uint32(stored[16:]))); err != nil {
		return e, s, fmt.Errorf("the record %.80q: %w", key, err)
	}
	return Entry{
		Key:      string(key),
		Value:    value,
		Created:  int64(binary.BigEndian.Uint64(stored)),
		Revision: int64(binary.BigEndian.Uint64(stored[8:])),
	}, s, nil
}

// decodeFirst is decodeEntry for schema 1, whose header has only the revisions and no
// sum.
func decodeFirst(key, stored []byte) (e Entry, s sum, err error) {
	const size = 8 + 8
	if len(stored) < size {
		return e, s, fmt.Errorf("the record %.80q has no header", key)
	}
	created, revision := binary.BigEndian.Uint64(stored), binary.BigEndian.Uint64(stored[8:])
	e = Entry{Key: string(key), Value: stored[size:], Created: int64(created), Revision: int64(revision)}
	return e, s, nil
}

// digest sums up all records, so that no record can be lost or come back unnoticed. It
// is stored beside the records and changes with every commit.
type digest struct {
	count    uint64
	sequence uint64 // the last revision
	sum      sum    // exclusive or of all records' sums; no record occurs twice
}

// digestSize is the size of a stored digest: its fields and a sum over them.
const digestSize = 8 + 8 + sumSize + sumSize

func (d *digest) toggle(s sum) { subtle.XORBytes(d.sum[:], d.sum[:], s[:]) }

func (d *digest) add(s sum) {
	d.count++
	d.toggle(s)
}

func (d *digest) remove(s sum) {
	d.count--
	d.toggle(s)
}

func (d *digest) encode() []byte {
	stored := make([]byte, 0, digestSize)
	stored = binary.BigEndian.AppendUint64(stored, d.count)
	stored = binary.BigEndian.AppendUint64(stored, d.sequence)
	stored = append(stored, d.sum[:]...)
	own := sha256.Sum256(stored)
	return append(stored, own[:sumSize]...)
}

func decodeDigest(stored []byte) (d digest, err error) {
	if len(stored) != digestSize {
		return d, errors.New("there is no digest of the records")
	}
	own := sha256.Sum256(stored[:digestSize-sumSize])
	if string(own[:sumSize]) != string(stored[digestSize-sumSize:]) {
		return d, errors.New("the checksum of the digest of the records is wrong")
	}
	d.count = binary.BigEndian.Uint64(stored)
	d.sequence = binary.BigEndian.Uint64(stored[8:])
	d.sum = sum(stored[16:])
	return d, nil
}

// compare returns how a digest differs from found, which was computed from the records;
// or nil.
func (d digest) compare(found digest) error {
	switch {
	case found == d:
		return nil
	case found.count != d.count:
		return fmt.Errorf("there are %d records and should be %d", found.count, d.count)
	case found.sequence != d.sequence:
		return fmt.Errorf("the last revision is %d and should be %d", found.sequence, d.sequence)
	}
	return errors.New("the records are not those that were stored last")
}

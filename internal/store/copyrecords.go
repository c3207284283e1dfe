package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"go.etcd.io/bbolt"

	"github.com/flockofbirds/fob/internal/faas"
)

// copyRecords puts the records of an older database into a new one, in the form that
// this schema has. They keep their revisions.
func copyRecords(from *bbolt.Bucket, to *bbolt.DB, fromSchema int) error {
	m := migrating{old: from, from: fromSchema, to: to}
	if fromSchema == 1 {
		if err := checkFirst(from); err != nil {
			return err
		}
	}
	if err := to.Update(createBuckets); err != nil {
		return err
	}
	defer m.rollback()
	c := from.Cursor()
	for key, stored := c.First(); key != nil; key, stored = c.Next() {
		e, err := m.read(key, stored)
		if err == nil {
			err = m.record(e)
		}
		if err != nil {
			return err
		}
	}
	return m.finish()
}

// copyBatch is how many bytes of records a migration puts in one transaction, which
// holds them in memory until it is committed.
const copyBatch = 1 << 20

// checkFirst makes sure that the database has schema 1. A database of this schema looks
// the same once its digest is lost.
func checkFirst(bk *bbolt.Bucket) error {
	stored := bk.Get([]byte(keySchema))
	if stored == nil {
		return damaged(fmt.Errorf("the record %q is not there", keySchema))
	}
	e, _, err := decodeFirst([]byte(keySchema), stored)
	if err == nil && string(e.Value) != "1" {
		err = fmt.Errorf("the record %q is %.80q, want 1", keySchema, e.Value)
	}
	return damaged(err)
}

// migrating puts records into a new database, in transactions of copyBatch bytes.
type migrating struct {
	old  *bbolt.Bucket
	from int // the schema of old

	to     *bbolt.DB
	tx     *bbolt.Tx // the transaction under way, or nil
	size   int       // bytes put in tx
	digest digest
}

// read decodes a record of the old database.
func (m *migrating) read(key, stored []byte) (Entry, error) {
	decode := decodeEntry
	if m.from == 1 {
		decode = decodeFirst
	}
	e, _, err := decode(key, stored)
	return e, damaged(err)
}

// record puts the records that stand for an old one in this schema.
func (m *migrating) record(e Entry) error {
	switch {
	case e.Key == keySchema:
		e.Value = []byte(strconv.Itoa(schema))
	case m.from < 3 && functionKind.holds(e.Key):
		return m.function(e)
	case m.from < 3 && secondCodeKind.holds(e.Key):
		return nil // function writes it
	case m.from == 3 && codeKind.holds(e.Key):
		return m.code(e, e.Key[len(codeKind.prefix):])
	}
	return m.put(e, e.Key, e.Value)
}

// function gives every version of a function a record of its own, with the revisions of
// the function's record. It stores code that several versions share once.
func (m *migrating) function(e Entry) error {
	if _, err := functionKind.decode(e); err != nil {
		return damaged(err)
	}
	fn, err := readSecond(e)
	if err != nil {
		return damaged(err)
	}
	var kept []keptVersion
	for _, v := range fn.Versions {
		key := secondCodeKind.at(versionID(fn.ID, v.Number))
		stored := m.old.Get([]byte(key))
		if stored == nil {
			return damaged(badRecord(key, errors.New("it is not there")))
		}
		code, err := m.read([]byte(key), stored)
		if err != nil {
			return err
		}
		if len(code.Value) != v.Size {
			return damaged(badRecord(key, fmt.Errorf("it has %d bytes and should have %d", len(code.Value), v.Size)))
		}
		v.Digest = faas.Digest(string(code.Value))
		if !slices.ContainsFunc(kept, func(k keptVersion) bool { return k.Digest == v.Digest }) {
			if err := m.code(code, codeID(fn.ID, v.Digest)); err != nil {
				return err
			}
		}
		version, err := versionKind.put(versionID(fn.ID, v.Number), &versionRecord{Version: v})
		if err == nil {
			err = m.put(e, version.Key, version.Value)
		}
		if err != nil {
			return err
		}
		kept = append(kept, keptVersion{v.Number, v.Digest})
	}
	function, err := functionKind.put(fn.ID, &functionRecord{Function: fn.Function, Versions: kept})
	if err != nil {
		return err
	}
	return m.put(e, function.Key, function.Value)
}

// code stores a code in chunks.
func (m *migrating) code(e Entry, id string) error {
	for _, chunk := range chunks(id, e.Value) {
		if err := m.put(e, chunk.Key, chunk.Value); err != nil {
			return err
		}
	}
	return nil
}

// put stores a record with the revisions of an old one. The key may be another.
func (m *migrating) put(old Entry, key string, value []byte) error {
	if m.tx == nil {
		var err error
		if m.tx, err = m.to.Begin(true); err != nil {
			return err
		}
	}
	stored, s := encodeEntry([]byte(key), uint64(old.Created), uint64(old.Revision), value)
	bk := m.tx.Bucket(bucket)
	bk.FillPercent = 0.9 // most keys come in order
	if err := bk.Put([]byte(key), stored); err != nil {
		return err
	}
	m.digest.add(s)
	if m.size += len(stored); m.size < copyBatch {
		return nil
	}
	return m.commit()
}

func (m *migrating) commit() error {
	tx := m.tx
	m.tx, m.size = nil, 0
	if tx == nil {
		return nil
	}
	return tx.Commit()
}

func (m *migrating) rollback() {
	if m.tx != nil {
		m.tx.Rollback() // fails only if tx has ended
	}
}

// finish stores the digest of all records.
func (m *migrating) finish() error {
	if err := m.commit(); err != nil {
		return err
	}
	return m.to.Update(func(tx *bbolt.Tx) error {
		if err := tx.Bucket(bucket).SetSequence(m.old.Sequence()); err != nil {
			return err
		}
		return writeDigest(tx, m.digest)
	})
}

// secondRecord is a function in schemas 1 and 2. It contains all its versions, whose
// code had a record each.
type secondRecord struct {
	*faas.Function
	Versions []*faas.Version `json:"versions"`
}

// secondCodeKind is the kind of code in these schemas, by the function's ID and version
// number.
var secondCodeKind = kind[plain]{
	description: description{name: "code", prefix: "code/"},
	note:        func(c *checking, e Entry, r *plain) { c.addCode(e.Key, r) },
}

// readSecond reads such a record. functionKind has already decoded everything in it but
// the versions.
func readSecond(e Entry) (*secondRecord, error) {
	var record secondRecord
	err := json.Unmarshal(e.Value, &record)
	for _, v := range record.Versions {
		if err == nil && (v == nil || v.FunctionID != record.ID) {
			err = errors.New("its versions are not those of one function")
		}
	}
	if err != nil {
		return nil, badRecord(e.Key, err)
	}
	return &record, nil
}

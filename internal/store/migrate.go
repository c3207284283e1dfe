package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/flockofbirds/fob/internal/durable"
	"github.com/flockofbirds/fob/internal/faas"
)

// Migration is what opening an older database has done to it.
type Migration struct {
	From   int    // the schema that it had; 0 says that there was no migration
	To     int    // that it has now
	Backup string // the path of what it was
}

// Migrated returns what opening the file has migrated.
func (b *Bolt) Migrated() Migration { return b.migrated }

// copyBatch is how many bytes of records one transaction of a migration puts: it holds
// them in memory until it is committed.
const copyBatch = 1 << 20

// migrate makes a database of this schema of one that is older: a new file beside it,
// which takes its place once it is complete. The old file stays, under another name. A
// crash at any moment leaves one or the other, and the next start does it over.
//
// It returns the new database, which has the lock; the old one is closed then.
func (b *Bolt) migrate(path string, from int) (*Bolt, error) {
	fail := func(err error) (*Bolt, error) {
		return nil, fmt.Errorf("migrating to schema %d: %w", schema, b.explain(err))
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fail(err)
	}
	if err := b.room("migrate the database", 1); err != nil {
		return fail(err)
	}
	next, err := b.copyAside(real, from)
	if err != nil {
		return fail(err)
	}
	backup, err := b.keepOld(real, fmt.Sprintf("%s.schema-%d", real, from))
	if err == nil {
		err = os.Rename(next.file.Name(), real)
	}
	if err == nil {
		err = durable.SyncFolder(filepath.Dir(real))
	}
	if err != nil {
		os.Remove(next.file.Name())
		return fail(errors.Join(err, next.Close()))
	}
	if err := b.Close(); err != nil {
		return fail(errors.Join(err, next.Close()))
	}
	next.migrated = Migration{From: from, To: schema, Backup: backup}
	return next, nil
}

// copyAside makes a new database beside path of what is in b, checked and synced.
func (b *Bolt) copyAside(path string, from int) (next *Bolt, err error) {
	folder := filepath.Dir(path)
	file, err := os.CreateTemp(folder, filepath.Base(path)+temporary+"*")
	if err != nil {
		return nil, err
	}
	next, err = overFile(file, b.folder, true)
	if err != nil {
		return nil, errors.Join(err, os.Remove(file.Name()))
	}
	err = guard(func() error {
		return b.db.View(func(old *bbolt.Tx) error { return copyRecords(old.Bucket(bucket), next.db, from) })
	})
	if err == nil {
		next.db.NoSync = false
		err = errors.Join(durable.SameOwner(file, folder), file.Sync())
	}
	if err == nil {
		found := readContents(file, func(Entry) {})
		next.feed = newFeed(int64(found.records.sequence))
		err = found.err()
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(file.Name()), next.Close())
	}
	return next, nil
}

// keepOld gives the database's file, now, a second name: path or, where another database
// is kept there, path with the time. It returns the name. One that an earlier attempt
// made will do.
func (b *Bolt) keepOld(now, path string) (string, error) {
	kept, err := filepath.Glob(globEscape(path) + "*")
	if err != nil {
		return "", err
	}
	content, err := contentOf(b.file)
	if err != nil {
		return "", err
	}
	for _, name := range kept {
		if strings.HasSuffix(name, partial) { // cut off: whoever has the database writes it, and that is us
			if err := os.Remove(name); err != nil {
				return "", err
			}
		} else if holds(name, content) {
			return name, durable.SyncFolder(filepath.Dir(path))
		}
	}
	if slices.Contains(kept, path) {
		path += "-" + time.Now().UTC().Format("20060102T150405.000Z")
	}
	if err := os.Link(now, path); err != nil {
		return "", err
	}
	return path, durable.SyncFolder(filepath.Dir(path))
}

// contentOf sums up the records of a database of any schema.
func contentOf(file *os.File) (d digest, err error) {
	err = readContents(file, func(e Entry) {
		_, s := encodeEntry([]byte(e.Key), uint64(e.Created), uint64(e.Revision), e.Value)
		d.add(s)
	}).err()
	return d, err
}

// holds reports whether the file called name is a database with that content.
func holds(name string, content digest) bool {
	file, err := os.Open(name)
	if err != nil {
		return false
	}
	defer file.Close()
	found, err := contentOf(file)
	return err == nil && found == content
}

// checkFirst makes sure that it is schema 1: without its digest a database of
// this schema looks the same at first sight.
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

// copyRecords puts the records of an older database into a new one, as this schema has
// them. Revisions stay.
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

// migrating puts records into a new database, in transactions of copyBatch bytes.
type migrating struct {
	old  *bbolt.Bucket
	from int // the schema of old

	to     *bbolt.DB
	tx     *bbolt.Tx // under way, unless nil
	size   int       // of what is put in tx
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

// record puts what this schema has for a record of the old database.
func (m *migrating) record(e Entry) error {
	switch {
	case e.Key == keySchema:
		e.Value = []byte(strconv.Itoa(schema))
	case m.from < 3 && functionKind.holds(e.Key):
		return m.function(e)
	case m.from < 3 && secondCodeKind.holds(e.Key):
		return nil // goes with its function
	case m.from == 3 && codeKind.holds(e.Key):
		return m.code(e, e.Key[len(codeKind.prefix):])
	}
	return m.put(e, e.Key, e.Value)
}

// function gives every version of a function a record of its own, with the revisions
// of the function's, and keeps the same code once.
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

// code puts a code in chunks.
func (m *migrating) code(e Entry, id string) error {
	for _, chunk := range chunks(id, e.Value) {
		if err := m.put(e, chunk.Key, chunk.Value); err != nil {
			return err
		}
	}
	return nil
}

// put puts a record with the revisions of an old one, whose key it need not have.
func (m *migrating) put(old Entry, key string, value []byte) error {
	if m.tx == nil {
		var err error
		if m.tx, err = m.to.Begin(true); err != nil {
			return err
		}
	}
	stored, s := encodeEntry([]byte(key), uint64(old.Created), uint64(old.Revision), value)
	bk := m.tx.Bucket(bucket)
	bk.FillPercent = 0.9 // most keys come in their order
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
		m.tx.Rollback() // which fails for one that has ended
	}
}

// finish puts the digest of all records.
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

// secondRecord is a function in schemas 1 and 2: with all its versions, whose code
// each had a record of its own.
type secondRecord struct {
	*faas.Function
	Versions []*faas.Version `json:"versions"`
}

// secondCodeKind is the kind of code there, by the function's ID and the version.
var secondCodeKind = kind[plain]{
	description: description{name: "code", prefix: "code/"},
	note:        func(c *checking, e Entry, r *plain) { c.addCode(e.Key, r) },
}

// readSecond reads such a record, which functionKind has decoded: it knows all but
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

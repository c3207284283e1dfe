package store

import (
	"bytes"
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

// migrate brings a database of an older schema to this one: everything in one
// transaction, after a backup. A crash at any moment leaves one or the other, and
// the next start does it over.
func (b *Bolt) migrate(path string, from int) error {
	var backup string
	err := b.explain(guard(func() error {
		if from == 1 {
			if err := b.db.View(func(tx *bbolt.Tx) error { return checkFirst(tx.Bucket(bucket)) }); err != nil {
				return err
			}
		}
		var err error
		if backup, err = b.keepOld(fmt.Sprintf("%s.schema-%d", path, from)); err != nil {
			return fmt.Errorf("a backup before the migration: %w", err)
		}
		err = b.db.Update(func(tx *bbolt.Tx) error {
			if from == 1 {
				if err := migrateFirst(tx); err != nil {
					return err
				}
			}
			return migrateSecond(tx)
		})
		if err != nil {
			return err
		}
		return readContents(b.file, func(Entry) {}).err()
	}))
	if err != nil {
		return fmt.Errorf("migrating to schema %d: %w", schema, err)
	}
	b.migrated = Migration{From: from, To: schema, Backup: backup}
	return nil
}

// keepOld puts a copy of the database at path, or, where other content is kept there,
// at path with the time now, and returns where it is. One that an earlier attempt made
// will do. It fails when the disk has no room for the copy and the migration.
func (b *Bolt) keepOld(path string) (string, error) {
	const doing = "migrate the database"
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
			return name, errors.Join(b.room(doing, 1), durable.SyncFolder(b.folder))
		}
	}
	if err := b.room(doing, 2); err != nil {
		return "", err
	}
	if slices.Contains(kept, path) {
		path += "-" + time.Now().UTC().Format("20060102T150405.000Z")
	}
	return path, writeFile(path, func(file *os.File) error {
		if err := durable.SameOwner(file, b.folder); err != nil {
			return err
		}
		return b.db.View(func(tx *bbolt.Tx) error {
			_, err := tx.WriteTo(file)
			return err
		})
	})
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

// migrateFirst gives every record the header that it has since schema 2. Revisions
// and values stay.
func migrateFirst(tx *bbolt.Tx) error {
	if _, err := tx.CreateBucket(bucketDigest); err != nil {
		return err
	}
	bk := tx.Bucket(bucket)
	var keys [][]byte // first, since putting moves a cursor
	err := bk.ForEach(func(key, _ []byte) error {
		keys = append(keys, append([]byte{}, key...))
		return nil
	})
	if err != nil {
		return err
	}
	var d digest
	for _, key := range keys {
		e, _, err := decodeFirst(key, bk.Get(key))
		if err != nil {
			return damaged(err)
		}
		stored, s := encodeEntry(key, uint64(e.Created), uint64(e.Revision), e.Value)
		if err := bk.Put(key, stored); err != nil {
			return err
		}
		d.add(s)
	}
	return writeDigest(tx, d)
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
	note:        noteCode,
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

// migrateSecond gives every version a record of its own, with the revisions of its
// function's, and keeps the same code of a function once.
func migrateSecond(tx *bbolt.Tx) error {
	d, err := readDigest(tx)
	if err != nil {
		return err
	}
	bk := tx.Bucket(bucket)
	put := func(e Entry, key string, value []byte) error {
		if _, err := remove(bk, &d, []byte(key)); err != nil {
			return err
		}
		stored, s := encodeEntry([]byte(key), uint64(e.Created), uint64(e.Revision), value)
		d.add(s)
		return bk.Put([]byte(key), stored)
	}
	var keys [][]byte // first, since putting moves a cursor
	c := bk.Cursor()
	for key, _ := c.Seek([]byte(functionKind.prefix)); bytes.HasPrefix(key, []byte(functionKind.prefix)); key, _ = c.Next() {
		keys = append(keys, bytes.Clone(key))
	}
	for _, key := range keys {
		e, _, err := readEntry(key, bk.Get(key))
		if err != nil {
			return err
		}
		if _, err := functionKind.decode(e); err != nil {
			return damaged(err)
		}
		fn, err := readSecond(e)
		if err != nil {
			return damaged(err)
		}
		var kept []keptVersion
		for _, v := range fn.Versions {
			codeAt := []byte(secondCodeKind.at(versionID(fn.ID, v.Number)))
			stored := bk.Get(codeAt)
			if stored == nil {
				return damaged(badRecord(string(codeAt), errors.New("it is not there")))
			}
			code, _, err := readEntry(codeAt, stored)
			if err != nil {
				return err
			}
			if len(code.Value) != v.Size {
				return damaged(badRecord(string(codeAt), fmt.Errorf("it has %d bytes and should have %d", len(code.Value), v.Size)))
			}
			v.Digest = faas.Digest(string(code.Value))
			if !slices.ContainsFunc(kept, func(k keptVersion) bool { return k.Digest == v.Digest }) {
				if err := put(code, codeKind.at(codeID(fn.ID, v.Digest)), code.Value); err != nil {
					return err
				}
			}
			if _, err := remove(bk, &d, codeAt); err != nil {
				return err
			}
			version, err := versionKind.put(versionID(fn.ID, v.Number), &versionRecord{Version: v})
			if err != nil {
				return err
			}
			if err := put(e, version.Key, version.Value); err != nil {
				return err
			}
			kept = append(kept, keptVersion{v.Number, v.Digest})
		}
		function, err := functionKind.put(fn.ID, &functionRecord{Function: fn.Function, Versions: kept})
		if err != nil {
			return err
		}
		if err := put(e, function.Key, function.Value); err != nil {
			return err
		}
	}
	at := []byte(keySchema)
	stored := bk.Get(at)
	if stored == nil {
		return damaged(fmt.Errorf("the record %q is not there", keySchema))
	}
	e, _, err := readEntry(at, stored)
	if err != nil {
		return err
	}
	if err := put(e, keySchema, []byte(strconv.Itoa(schema))); err != nil {
		return err
	}
	return writeDigest(tx, d)
}

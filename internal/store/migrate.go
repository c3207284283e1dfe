package store

import (
	"fmt"
	"os"
	"strconv"

	"go.etcd.io/bbolt"
)

// Migration is what opening an older database has done to it.
type Migration struct {
	From   int    // the schema that it had; 0 says that there was no migration
	To     int    // that it has now
	Backup string // the path of what it was
}

// Migrated returns what opening the file has migrated.
func (b *Bolt) Migrated() Migration { return b.migrated }

// migrate brings a database of schema 1, which had no checksums, to this one:
// everything in one transaction, after a backup. A crash at any moment leaves
// one or the other, and the next start does it over.
func (b *Bolt) migrate(path string) error {
	backup := path + ".schema-1"
	err := b.explain(guard(func() error {
		if err := b.db.View(func(tx *bbolt.Tx) error { return checkFirst(tx.Bucket(bucket)) }); err != nil {
			return err
		}
		err := writeFile(backup, func(file *os.File) error {
			return b.db.View(func(tx *bbolt.Tx) error {
				_, err := tx.WriteTo(file)
				return err
			})
		})
		if err != nil {
			return fmt.Errorf("a backup before the migration: %w", err)
		}
		if err := b.db.Update(migrateFirst); err != nil {
			return err
		}
		return surveyFile(b.file, func(Entry) {}).err()
	}))
	if err != nil {
		return fmt.Errorf("migrating to schema %d: %w", schema, err)
	}
	b.migrated = Migration{From: 1, To: schema, Backup: backup}
	return nil
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

// migrateFirst gives every record the header that it has now. Revisions stay,
// and values but that of keySchema.
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
		if e.Key == keySchema {
			e.Value = []byte(strconv.Itoa(schema))
		}
		stored, s := encodeEntry(key, uint64(e.Created), uint64(e.Revision), e.Value)
		if err := bk.Put(key, stored); err != nil {
			return err
		}
		d.add(s)
	}
	return writeDigest(tx, d)
}

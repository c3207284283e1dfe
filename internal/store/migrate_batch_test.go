package store

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/store/survey"
)

// TestMigrationInBatches migrates a database that has much code. No transaction may have
// more than its share of it, for bbolt holds in memory what a transaction puts.
func TestMigrationInBatches(t *testing.T) {
	const size, functions = 2_000_000, 20
	path := filepath.Join(t.TempDir(), "fob.db")
	makeSecond(t, path, functions, size)
	kv, err := OpenBolt(t.Context(), path, false)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(t.Context(), kv)
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.Functions(t.Context())
	if err != nil || len(all) != functions {
		t.Fatalf("%d functions, %v", len(all), err)
	}
	for i, fn := range all {
		if code, err := s.Code(t.Context(), fn.ID, 1); err != nil || code != codeOfSecond(i, size) {
			t.Errorf("the code of %s has %d bytes, %v", fn.ID, len(code), err)
		}
	}
	last := uint64(0)
	for page := range uint64(2) {
		txid, err := survey.Transaction(kv.file, page, kv.pageSize)
		if err != nil {
			t.Fatal(err)
		}
		last = max(last, txid)
	}
	if least := uint64(functions * size / (copyBatch + chunkSize)); last < least {
		t.Errorf("it took %d transactions, want %d at least", last, least)
	}
	if err := kv.Close(); err != nil {
		t.Error(err)
	}
}

// codeOfSecond is the code of a function that makeSecond makes.
func codeOfSecond(i, size int) string {
	return string(bytes.Repeat([]byte{byte('a' + i%26)}, size))
}

// makeSecond makes a database of schema 2, as far as a migration can tell.
func makeSecond(t *testing.T, path string, functions, size int) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		if err := createBuckets(tx); err != nil {
			return err
		}
		bk, d := tx.Bucket(bucket), digest{}
		put := func(key, value string) {
			n, err := bk.NextSequence()
			stored, s := encodeEntry([]byte(key), n, n, []byte(value))
			if err := errors.Join(err, bk.Put([]byte(key), stored)); err != nil {
				t.Fatal(err)
			}
			d.add(s)
		}
		put(keyAviary, "01234567")
		put(keySchema, "2")
		for i := range functions {
			id := fmt.Sprintf("id-%04d", i)
			code := codeOfSecond(i, size)
			put(secondCodeKind.at(versionID(id, 1)), code)
			put(functionKind.at(id), fmt.Sprintf(`{"schema":2,"id":%q,"aliases":{"live":1},"versions":[{"function":%q,"version":1,"lang":"python","size":%d,"digest":%q}]}`, id, id, size, faas.Digest(code)))
		}
		return writeDigest(tx, d)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

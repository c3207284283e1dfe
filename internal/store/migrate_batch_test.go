package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
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

// TestMigrationFillsDisk runs out of room half way, as when somebody else takes what
// there was: the old database is as it was, and nothing is left beside it.
func TestMigrationFillsDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it takes root to make a small disk")
	}
	folder := t.TempDir()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size=5m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(folder, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(folder, "fob.db")
	makeSecond(t, path, 3, 1_000_000)
	b, found, err := openFile(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.copyAside(path, found.schema); !faas.DiskFull(b.explain(err)) {
		t.Errorf("it says %v", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if names, err := filepath.Glob(path + "*"); err != nil || len(names) != 1 {
		t.Errorf("there are %v (%v)", names, err)
	}
	if report, err := Check(path); err != nil || report.Err() != nil || report.Schema != 2 {
		t.Errorf("%v, %v", report, err)
	}
}

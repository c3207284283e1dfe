package store_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/store"
)

// unpacked is a file of testdata: a database that the dispatcher of schema 1
// wrote (12 functions, of which one was deleted), or its records, a line each.
func unpacked(t *testing.T, name string) []byte {
	t.Helper()
	file, err := os.Open(filepath.Join("testdata", name+".gz"))
	check(t, err)
	defer file.Close()
	r, err := gzip.NewReader(file)
	check(t, err)
	data, err := io.ReadAll(r)
	check(t, err)
	return data
}

// TestMigration opens a database of schema 1: every record, revisions included,
// is what it was, and the old file is kept.
func TestMigration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fob.db")
	old := unpacked(t, "schema-1.db")
	check(t, os.WriteFile(path, old, 0o600))
	want := strings.Replace(string(unpacked(t, "schema-1.txt")), "meta/schema 1 1 \"1\"", "meta/schema 1 1 \"2\"", 1)

	kv := openBolt(t, path)
	if m := kv.Migrated(); m != (store.Migration{From: 1, To: 2, Backup: path + ".schema-1"}) {
		t.Errorf("it says %+v", m)
	}
	s := newStore(t, kv)
	functions, err := s.Functions(t.Context())
	check(t, err)
	for _, fn := range functions {
		for _, v := range fn.Versions {
			if code, err := s.Code(t.Context(), fn.ID, v.Number); err != nil || len(code) != v.Size {
				t.Errorf("the code of %s@%d: %v", fn.ID, v.Number, err)
			}
		}
	}
	if notes, err := s.Sandboxes(t.Context()); len(functions) != 11 || len(notes) != 11 || err != nil {
		t.Errorf("%d functions and %d sandboxes, want 11 each (%v)", len(functions), len(notes), err)
	}
	check(t, kv.Close())
	for range 2 { // the second time it is nothing new
		if got, err := content(t, path); err != nil || got != want {
			t.Errorf("the content is (%v)\n%s\nwant\n%s", err, got, want)
		}
	}
	kv = openBolt(t, path)
	if m := kv.Migrated(); m.From != 0 {
		t.Errorf("migrated again: %+v", m)
	}
	// The backup is a database that the old dispatcher can open, and so can this one.
	backup := filepath.Join(t.TempDir(), "fob.db")
	data, err := os.ReadFile(path + ".schema-1")
	check(t, err)
	check(t, os.WriteFile(backup, data, 0o600))
	if got, err := content(t, backup); err != nil || got != want {
		t.Errorf("from the backup: %v\n%s", err, got)
	}
	names, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	if check(t, err); len(names) != 2 {
		t.Errorf("in the folder: %v", names)
	}
}

// TestMigrationRefuses what is damaged, and changes nothing then.
func TestMigrationRefuses(t *testing.T) {
	old := unpacked(t, "schema-1.db")
	// Bits of the structure; the records have no checksums yet.
	for _, at := range []int{16, 4096 + 70, 8, 10, 4096*3 + 8} {
		path := filepath.Join(t.TempDir(), "fob.db")
		data := bytes.Clone(old)
		data[at] ^= 1
		check(t, os.WriteFile(path, data, 0o600))
		_, err := store.OpenBolt(t.Context(), path, false)
		if err == nil {
			t.Logf("byte %d does not matter", at)
			continue
		}
		wantMessage(t, err, "dispatcher restore --data")
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, data) {
			t.Errorf("byte %d: the file was changed (%v)", at, err)
		}
		wantAlone(t, path)
	}
	// A database of this schema that lost its digest is none of schema 1.
	path := filepath.Join(t.TempDir(), "fob.db")
	fill(t, path)
	dropBucket(t, path, "digest")
	_, err := store.OpenBolt(t.Context(), path, false)
	wantMessage(t, err, "meta/schema", "dispatcher restore --data")
}

package store_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/flockofbirds/fob/internal/store"
	"github.com/flockofbirds/fob/internal/store/storetest"
)

func TestUnusableFiles(t *testing.T) {
	good := filepath.Join(t.TempDir(), "fob.db")
	fill(t, good)
	data, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	write := func(content []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, test := range map[string]struct {
		make func(*testing.T, string)
		want string
	}{
		"empty":         {write(nil), "empty"},
		"one byte":      {write([]byte("x")), "backup"},
		"text":          {write([]byte(strings.Repeat("not a database\n", 2000))), "backup"},
		"zeros":         {write(make([]byte, 1<<16)), "backup"},
		"half a page":   {write(data[:2048]), "backup"},
		"the metas":     {write(data[:2*4096]), "backup"},
		"cut in half":   {write(data[:len(data)/2]), "backup"},
		"a folder":      {func(t *testing.T, path string) { check(t, os.Mkdir(path, 0o700)) }, "backup"},
		"link to none":  {func(t *testing.T, path string) { check(t, os.Symlink("nowhere", path)) }, "backup"},
		"not ours":      {func(t *testing.T, path string) { makeBolt(t, path, "theirs") }, "another program"},
		"no schema":     {func(t *testing.T, path string) { changeKey(t, path, "meta/schema", "") }, "meta/schema"},
		"newer schema":  {func(t *testing.T, path string) { changeKey(t, path, "meta/schema", "5") }, "newer dispatcher"},
		"broken schema": {func(t *testing.T, path string) { changeKey(t, path, "meta/schema", "x") }, "meta/schema"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "fob.db")
			test.make(t, path)
			for _, wait := range []bool{false, false, true} { // the lock is free again each time
				_, err := store.Open(t.Context(), path, wait)
				wantMessage(t, err, test.want)
			}
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func makeBolt(t *testing.T, path, bucket string) {
	db, err := bbolt.Open(path, 0o600, nil)
	check(t, err)
	check(t, db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket([]byte(bucket))
		return err
	}))
	check(t, db.Close())
}

func dropBucket(t *testing.T, path, bucket string) {
	db, err := bbolt.Open(path, 0o600, nil)
	check(t, err)
	check(t, db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte(bucket)) }))
	check(t, db.Close())
}

// changeKey makes a database in which a key has another value, or, when that
// is empty, is missing.
func changeKey(t *testing.T, path, key, value string) {
	kv := openBolt(t, path)
	txn := store.Txn{Delete: []string{key}}
	if value != "" {
		txn = store.Txn{Put: []store.Pair{{Key: key, Value: []byte(value)}}}
	}
	check(t, kv.Commit(t.Context(), txn))
	check(t, kv.Close())
}

// fill makes a database of a few dozen pages, free ones among them.
func fill(t *testing.T, path string) {
	kv := openBolt(t, path)
	s := newStore(t, kv)
	for i := range 60 {
		fn, code := storetest.NewFunction("")
		check(t, s.CreateFunction(t.Context(), longer(fn, &code, strings.Repeat("#", 100*i)), code, ""))
		if i%7 == 0 {
			check(t, s.DeleteFunction(t.Context(), fn.ID))
		}
	}
	check(t, kv.Close())
}

// TestDamagedPages overwrites one page after the other. What is damaged may be
// refused or, when it holds nothing, be served; it must not end the process or
// hang.
func TestDamagedPages(t *testing.T) {
	good := filepath.Join(t.TempDir(), "fob.db")
	fill(t, good)
	data, err := os.ReadFile(good)
	check(t, err)
	page := os.Getpagesize()
	refused := 0
	for i := 0; i < len(data)/page; i++ {
		path := filepath.Join(memory(t), "fob.db")
		damaged := bytes.Clone(data)
		copy(damaged[i*page:], bytes.Repeat([]byte{"\x00\xffA"[i%3]}, page))
		check(t, os.WriteFile(path, damaged, 0o600))
		if err := useAll(t, path); err != nil {
			refused++
			wantMessage(t, err, "backup")
		}
	}
	if refused == 0 {
		t.Error("no damage was noticed")
	}
}

// TestCutOffWhileOpen takes the file away under an open database, as a full or
// failing disk can: reads and writes must fail, and Close must return.
func TestCutOffWhileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fob.db")
	fill(t, path)
	kv := openBolt(t, path)
	s := newStore(t, kv)
	check(t, os.Truncate(path, int64(2*os.Getpagesize())))
	_, err := s.Functions(t.Context())
	wantMessage(t, err, "backup")
	for range 3 {
		fn, code := storetest.NewFunction("")
		err := s.CreateFunction(t.Context(), fn, code, "")
		wantMessage(t, err, "backup")
	}
}

func useAll(t *testing.T, path string) error {
	s, err := store.Open(t.Context(), path, false)
	if err != nil {
		return err
	}
	defer s.Close()
	functions, err := s.Functions(t.Context())
	if err != nil {
		return err
	}
	for _, fn := range functions {
		if _, err := s.Code(t.Context(), fn.ID, 1); err != nil {
			return err
		}
	}
	for range 2 {
		fn, code := storetest.NewFunction("")
		if err := s.CreateFunction(t.Context(), longer(fn, &code, strings.Repeat("#", 5000)), code, ""); err != nil {
			return err
		}
		if err := s.DeleteFunction(t.Context(), fn.ID); err != nil {
			return err
		}
	}
	return nil
}

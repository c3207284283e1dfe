package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/store"
	"github.com/flockofbirds/fob/internal/store/storetest"
)

// TestCheck finds what records say wrongly of one another, which no checksum
// knows of, and damage in several places at once.
func TestCheck(t *testing.T) {
	good := filepath.Join(memory(t), "fob.db")
	kv := openBolt(t, good)
	s := newStore(t, kv)
	fn, code := storetest.NewFunction("hello")
	check(t, s.CreateFunction(t.Context(), fn, code, "00aa"))
	next, code := storetest.NextFunction(fn)
	check(t, s.AddVersion(t.Context(), next, code, ""))
	stored, err := kv.Get(t.Context(), "version/"+fn.ID+"/00000001")
	check(t, errors.Join(err, kv.Close()))
	other, _ := storetest.NewFunction("")
	otherRecord, err := json.Marshal(map[string]any{
		"schema": 3, "id": other.ID, "aliases": map[string]int{"live": 1}, "versions": []any{map[string]any{"version": 1, "digest": other.Live().Digest}},
	})
	check(t, err)

	codeOf := func(v *faas.Version) string {
		return "meta/code/" + fn.ID + "/" + strings.TrimPrefix(v.Digest, "sha256:")
	}
	first, firstVersion := codeOf(fn.Live()), "version/"+fn.ID+"/00000001"
	second := codeOf(next.Live())
	for name, test := range map[string]struct {
		txn  store.Txn
		want []string // parts of the problems, in order; no others
	}{
		"as it should be":   {},
		"no code":           {store.Txn{Delete: []string{first}}, []string{"version 1, is missing"}},
		"other code":        {store.Txn{Put: []store.Pair{{Key: first, Value: []byte("x")}}}, []string{"has 1 bytes and should"}},
		"code of that size": {store.Txn{Put: []store.Pair{{Key: first, Value: []byte(strings.Repeat("x", fn.Live().Size))}}}, []string{"has the digest sha256:"}},
		"no version":        {store.Txn{Delete: []string{firstVersion}}, []string{"version 1, is missing"}},
		"another's version": {store.Txn{Put: []store.Pair{{Key: firstVersion, Value: []byte(strings.Replace(string(stored.Value), fn.Live().Digest, next.Live().Digest, 1))}}}, []string{"version 1, has other code"}},
		"a stray version":   {store.Txn{Put: []store.Pair{{Key: "version/" + fn.ID + "/00000003", Value: []byte(strings.Replace(string(stored.Value), `"version":1`, `"version":3`, 1))}}}, []string{`00000003"`}},
		"a stray's code":    {store.Txn{Put: []store.Pair{{Key: "meta/code/x/01"}}}, []string{"no version has the code"}},
		"no name":           {store.Txn{Delete: []string{"name/hello"}}, []string{`that name is ""'s`}},
		"another's name":    {store.Txn{Put: []store.Pair{{Key: "name/bye", Value: []byte(fn.ID)}}}, []string{`the name "bye"`}},
		"nobody's name":     {store.Txn{Put: []store.Pair{{Key: "name/bye", Value: []byte("x")}}}, []string{`the name "bye"`}},
		"no function":       {store.Txn{Delete: []string{"function/" + fn.ID}}, []string{first, second, "00000001", "00000002", `the name "hello"`}},
		"a function's code": {store.Txn{Put: []store.Pair{{Key: "function/" + other.ID, Value: otherRecord}}}, []string{"version 1, is missing"}},
		"a bad record":      {store.Txn{Put: []store.Pair{{Key: "token/ab", Value: []byte("{}")}, {Key: "secret/A", Value: []byte("x")}}}, []string{"secret/A", "token/ab"}},
		"a stray sandbox":   {store.Txn{Put: []store.Pair{{Key: "sandbox/bb", Value: []byte(`{"schema":2,"function":"x","version":1}`)}}}, nil},
		"an unknown record": {store.Txn{Put: []store.Pair{{Key: "bird/wren"}}}, []string{"bird/wren"}},
		"no aviary":         {store.Txn{Delete: []string{"meta/aviary"}}, []string{"meta/aviary"}},
		"a newer schema":    {store.Txn{Put: []store.Pair{{Key: "meta/schema", Value: []byte("5")}}}, []string{"newer dispatcher"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(memory(t), "fob.db")
			data, err := os.ReadFile(good)
			check(t, errors.Join(err, os.WriteFile(path, data, 0o600)))
			kv := openBolt(t, path)
			check(t, errors.Join(kv.Commit(t.Context(), test.txn), kv.Close()))
			wantProblems(t, path, test.want)
		})
	}

	t.Run("damage in two places", func(t *testing.T) {
		path := filepath.Join(memory(t), "fob.db")
		data, err := os.ReadFile(good)
		check(t, err)
		for _, text := range []string{"return", "live"} {
			data[strings.LastIndex(string(data), text)] ^= 1
			data[strings.Index(string(data), text)] ^= 1
		}
		check(t, os.WriteFile(path, data, 0o600))
		report, err := store.Check(path)
		check(t, err)
		if len(report.Problems) < 3 {
			t.Errorf("it found %q", report.Problems)
		}
	})
	t.Run("in use", func(t *testing.T) {
		path := filepath.Join(memory(t), "fob.db")
		kv := openBolt(t, path)
		if _, err := store.Check(path); !errors.Is(err, store.ErrInUse) {
			t.Error(err)
		}
		if _, err := restoreFile(good, path); !errors.Is(err, store.ErrInUse) {
			t.Error(err)
		}
		check(t, kv.Close())
		wantProblems(t, path, nil)
	})
}

func wantProblems(t *testing.T, path string, want []string) {
	t.Helper()
	before, err := os.ReadFile(path)
	check(t, err)
	report, err := store.Check(path)
	check(t, err)
	if len(report.Problems) != len(want) {
		t.Fatalf("it found %q, want %q", report.Problems, want)
	}
	for i, part := range want {
		if !strings.Contains(strings.Join(report.Problems, "\n"), part) {
			t.Errorf("it found %q, want %q in it", report.Problems, want[i])
		}
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Error("checking has changed the file:", err)
	}
	wantAlone(t, path)
	// What cannot be restored changes nothing.
	if len(want) > 0 {
		target := filepath.Join(t.TempDir(), "fob.db")
		_, err := restoreFile(path, target)
		wantMessage(t, err, "nothing was changed", want[0])
		if _, err := os.Stat(target); err == nil {
			t.Error("it was restored all the same")
		}
	}
}

// TestDamagedWhileOpen flips a bit of a record under an open database. From when
// it is read the database is broken, and nothing is written to it any more; what
// is good can still be read.
func TestDamagedWhileOpen(t *testing.T) {
	path := filepath.Join(memory(t), "fob.db")
	kv := openBolt(t, path)
	s := newStore(t, kv)
	fn, code := storetest.NewFunction("hello")
	check(t, s.CreateFunction(t.Context(), fn, code, ""))
	if err := s.Broken(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	check(t, err)
	for at := range data { // in every copy that there is
		if strings.HasPrefix(string(data[at:]), "def callme") {
			data[at] ^= 1
		}
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	check(t, err)
	_, err = file.WriteAt(data, 0)
	check(t, errors.Join(err, file.Close()))

	_, err = s.Code(t.Context(), fn.ID, 1)
	wantMessage(t, err, "meta/code/"+fn.ID, "dispatcher restore --data")
	for _, err := range []error{err, s.Broken(), s.DeleteFunction(t.Context(), fn.ID)} {
		if faas.CodeOf(err) != faas.CodeStorage {
			t.Errorf("the error is %v", err)
		}
	}
	if functions, err := s.Functions(t.Context()); err != nil || len(functions) != 1 {
		t.Error(functions, err)
	}
	if _, err := s.Snapshot(context.Background()); err == nil {
		t.Error("there is a backup of it")
	}
}

// restoreFile restores the backup in a file.
func restoreFile(backup, path string) (*store.Restored, error) {
	from, err := os.Open(backup)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	return store.Restore(from, backup, path, time.Now())
}

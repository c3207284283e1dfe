package store_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	unix "syscall"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/store"
	"github.com/flockofbirds/fob/internal/store/storetest"
)

// unpacked is a file of testdata: a database that the dispatcher of an older schema
// wrote (12 functions or fewer, one of them deleted), or its records, a line each.
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

// oldRecord is a record of an older database. Of a function it has all.
type oldRecord struct {
	key               string
	created, revision int64
	value             string
	function          struct {
		*faas.Function
		Versions []*faas.Version `json:"versions"`
	}
}

// oldRecords reads what is unpacked.
func oldRecords(t *testing.T, schema int) (all []*oldRecord, code map[string]string) {
	t.Helper()
	code = map[string]string{}
	for line := range strings.Lines(string(unpacked(t, fmt.Sprintf("schema-%d.txt", schema)))) {
		var r oldRecord
		if _, err := fmt.Sscanf(line, "%s %d %d %q\n", &r.key, &r.created, &r.revision, &r.value); err != nil {
			t.Fatalf("%.100q: %v", line, err)
		}
		switch kind, _, _ := strings.Cut(r.key, "/"); kind {
		case "code":
			code[r.key] = r.value
		case "function":
			check(t, json.Unmarshal([]byte(r.value), &r.function))
		}
		all = append(all, &r)
	}
	return all, code
}

// TestMigration opens databases of older schemas: everything is there that was, in
// records of this schema, and the old file is kept.
func TestMigration(t *testing.T) {
	for from := 1; from <= 2; from++ {
		t.Run(fmt.Sprintf("from %d", from), func(t *testing.T) { migration(t, from) })
	}
}

func migration(t *testing.T, from int) {
	path := filepath.Join(t.TempDir(), "fob.db")
	kept := fmt.Sprintf("%s.schema-%d", path, from)
	check(t, os.WriteFile(path, unpacked(t, fmt.Sprintf("schema-%d.db", from)), 0o600))
	old, oldCode := oldRecords(t, from)
	// The old one is as good as ever, for whoever restores a backup of then.
	wantProblems(t, path, nil)

	kv := openBolt(t, path)
	if m := kv.Migrated(); m != (store.Migration{From: from, To: 4, Backup: kept}) {
		t.Errorf("it says %+v", m)
	}
	s := newStore(t, kv)
	functions, err := s.Functions(t.Context())
	check(t, err)
	byID := map[string]*faas.Function{}
	for _, fn := range functions {
		byID[fn.ID] = fn
	}
	want := map[string]bool{} // every key
	for _, r := range old {
		kind, id, _ := strings.Cut(r.key, "/")
		if kind == "code" {
			continue
		}
		e, err := kv.Get(t.Context(), r.key)
		if check(t, err); e.Created != r.created || e.Revision != r.revision {
			t.Errorf("%s has the revisions %d and %d, and had %d and %d", r.key, e.Created, e.Revision, r.created, r.revision)
		}
		want[r.key] = true
		if kind != "function" {
			if r.key == "meta/schema" {
				r.value = "4"
			}
			if string(e.Value) != r.value {
				t.Errorf("%s is %q, and was %q", r.key, e.Value, r.value)
			}
			continue
		}
		fn := byID[id]
		if fn == nil || fn.Name != r.function.Name || !fn.Created.Equal(r.function.Created) || len(fn.Versions) != len(r.function.Versions) || fn.Live().Number != r.function.Aliases["live"] {
			t.Fatalf("%s is %+v, and was %s", id, fn, r.value)
		}
		for _, was := range r.function.Versions {
			code := oldCode[fmt.Sprintf("code/%s/%08d", id, was.Number)]
			was.Digest = faas.Digest(code) // in the one of schema 1 it is made up
			v, err := s.Version(t.Context(), id, was.Number)
			check(t, err)
			if v.Created = was.Created; *v != *was {
				t.Errorf("%s@%d is %+v, and was %+v", id, was.Number, v, was)
			}
			if got, err := s.Code(t.Context(), id, was.Number); err != nil || got != code {
				t.Errorf("the code of %s@%d is %q (%v), and was %q", id, was.Number, got, err, code)
			}
			want[fmt.Sprintf("version/%s/%08d", id, was.Number)] = true
			want["meta/code/"+id+"/"+strings.TrimPrefix(was.Digest, "sha256:")] = true
		}
	}
	entries, err := kv.List(t.Context(), "", "", 1_000_000)
	check(t, err)
	for _, e := range entries {
		if !want[e.Key] {
			t.Errorf("nobody asked for %s", e.Key)
		}
		delete(want, e.Key)
	}
	if len(want) > 0 || len(functions) < 7 {
		t.Errorf("of %d functions, %v are missing", len(functions), want)
	}
	// It can be built on.
	next, code := storetest.NextFunction(functions[len(functions)-1])
	check(t, s.AddVersion(t.Context(), next.Without([]int{1}), code, ""))
	check(t, kv.Close())
	is, err := content(t, path)
	check(t, err)
	report, err := store.Check(path)
	if check(t, errors.Join(err, report.Err())); report.Schema != 4 {
		t.Errorf("it has schema %d", report.Schema)
	}
	checkPages(t, path)

	kv = openBolt(t, path)
	if m := kv.Migrated(); m.From != 0 {
		t.Errorf("migrated again: %+v", m)
	}
	check(t, kv.Close())
	if again, err := content(t, path); err != nil || again != is {
		t.Errorf("the second time it is another: %v", err)
	}
	// What was kept is a database that can be restored, and migrated then.
	restored := filepath.Join(t.TempDir(), "fob.db")
	_, err = restoreFile(kept, restored)
	check(t, err)
	kv = openBolt(t, restored)
	if functions, err := newStore(t, kv).Functions(t.Context()); err != nil || len(functions) != len(byID) || kv.Migrated().From != from {
		t.Errorf("from the backup: %d functions, %v", len(functions), err)
	}
	check(t, kv.Close())
	names, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	if check(t, err); len(names) != 2 {
		t.Errorf("in the folder: %v", names)
	}
}

// TestMigrationFromThird opens a database that the dispatcher of schema 3 wrote, with
// code in one record each: now it is in chunks, and all else is as it was.
func TestMigrationFromThird(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fob.db")
	check(t, os.WriteFile(path, unpacked(t, "schema-3.db"), 0o600))
	wantProblems(t, path, nil)
	kv := openBolt(t, path)
	if m := kv.Migrated(); m != (store.Migration{From: 3, To: 4, Backup: path + ".schema-3"}) {
		t.Errorf("it says %+v", m)
	}
	s := newStore(t, kv)
	functions, err := s.Functions(t.Context())
	if check(t, err); len(functions) != 9 {
		t.Fatalf("there are %d functions", len(functions))
	}
	codes := map[string]string{} // by digest
	large, records := 0, 0
	old, _ := oldRecords(t, 3)
	for _, r := range old {
		if digest, is := strings.CutPrefix(r.key, "meta/code/"); is {
			_, digest, _ = strings.Cut(digest, "/")
			codes["sha256:"+digest] = r.value
			chunks := max(1, (len(r.value)+(512<<10)-1)/(512<<10))
			if records += chunks; chunks > 1 {
				large++
			}
			continue
		}
		records++
		if r.key == "meta/schema" {
			r.value = "4"
		}
		e, err := kv.Get(t.Context(), r.key)
		if check(t, err); string(e.Value) != r.value || e.Created != r.created || e.Revision != r.revision {
			t.Errorf("%s is %q (%d, %d), and was %q (%d, %d)", r.key, e.Value, e.Created, e.Revision, r.value, r.created, r.revision)
		}
	}
	for _, fn := range functions {
		for _, number := range fn.Versions {
			v, err := s.Version(t.Context(), fn.ID, number)
			check(t, err)
			if code, err := s.Code(t.Context(), fn.ID, number); err != nil || code != codes[v.Digest] {
				t.Errorf("the code of %s@%d has %d bytes, and had %d; %v", fn.ID, number, len(code), len(codes[v.Digest]), err)
			}
		}
	}
	entries, err := kv.List(t.Context(), "", "", 1_000_000)
	if check(t, err); len(entries) != records || large != 1 {
		t.Errorf("there are %d records, want %d; %d codes are large", len(entries), records, large)
	}
	for _, e := range entries {
		if len(e.Value) > 512<<10 {
			t.Errorf("%s has %d bytes", e.Key, len(e.Value))
		}
	}
	check(t, kv.Close())
	report, err := store.Check(path)
	check(t, errors.Join(err, report.Err()))
	checkPages(t, path)
}

// What an earlier migration kept is not replaced by that of another database, nor
// made twice of the same.
func TestMigrationKeeps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fob.db")
	kept := path + ".schema-2"
	old := unpacked(t, "schema-2.db")
	other := filepath.Join(t.TempDir(), "fob.db")
	fill(t, other)
	otherData, err := os.ReadFile(other)
	check(t, err)
	migrate := func() string {
		t.Helper()
		check(t, os.WriteFile(path, old, 0o600))
		kv := openBolt(t, path)
		defer kv.Close()
		return kv.Migrated().Backup
	}
	if got := migrate(); got != kept {
		t.Errorf("it is kept at %s", got)
	}
	if got := migrate(); got != kept {
		t.Errorf("the same is kept at %s", got)
	}
	check(t, os.WriteFile(kept, otherData, 0o600))
	// Of one that was killed, perhaps as another user.
	check(t, os.WriteFile(kept+".partial", []byte("cut off"), 0o400))
	second := migrate()
	if now, err := os.ReadFile(kept); err != nil || !bytes.Equal(now, otherData) {
		t.Errorf("what was kept before is another (%v)", err)
	}
	if !strings.HasPrefix(second, kept+"-2") {
		t.Errorf("the second one is kept at %s", second)
	}
	report, err := store.Check(second)
	check(t, errors.Join(err, report.Err()))
	if got := migrate(); got != second {
		t.Errorf("the same as the second one is kept at %s", got)
	}
	if names, err := filepath.Glob(path + "*"); err != nil || len(names) != 3 {
		t.Errorf("there are %v (%v)", names, err)
	}
}

// What root keeps is the folder's owner's.
func TestMigrationByRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it takes root")
	}
	path := filepath.Join(t.TempDir(), "fob.db")
	check(t, os.WriteFile(path, unpacked(t, "schema-2.db"), 0o600))
	check(t, errors.Join(os.Chown(path, 1, 1), os.Chown(filepath.Dir(path), 1, 1)))
	kv := openBolt(t, path)
	check(t, kv.Close())
	info, err := os.Stat(kv.Migrated().Backup)
	if check(t, err); info.Sys().(*unix.Stat_t).Uid != 1 {
		t.Errorf("it belongs to the user %d", info.Sys().(*unix.Stat_t).Uid)
	}
}

// Without room for the new database nothing is begun, and it says how much there has to
// be.
func TestMigrationNeedsRoom(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it takes root to make a small disk")
	}
	old := unpacked(t, "schema-2.db")
	folder := t.TempDir()
	size := func(copies float64) string { return fmt.Sprintf("size=%d", int(copies*float64(len(old)))) }
	check(t, unix.Mount("tmpfs", folder, "tmpfs", 0, size(1.5)))
	t.Cleanup(func() { check(t, unix.Unmount(folder, unix.MNT_DETACH)) })
	path := filepath.Join(folder, "fob.db")
	check(t, os.WriteFile(path, old, 0o600))
	_, err := store.OpenBolt(t.Context(), path, false)
	wantMessage(t, err, "migrate", fmt.Sprintf("needs %d", len(old)+len(old)/10))
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, old) {
		t.Errorf("the file was changed (%v)", err)
	}
	wantAlone(t, path)
	check(t, unix.Mount("tmpfs", folder, "tmpfs", unix.MS_REMOUNT, size(4)))
	check(t, openBolt(t, path).Close())
}

// The room that counts is where the link leads to.
func TestMigrationOfLinkNeedsRoom(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it takes root to make a small disk")
	}
	old := unpacked(t, "schema-2.db")
	folder := t.TempDir()
	check(t, unix.Mount("tmpfs", folder, "tmpfs", 0, fmt.Sprintf("size=%d", len(old)*3/2)))
	t.Cleanup(func() { check(t, unix.Unmount(folder, unix.MNT_DETACH)) })
	file, path := filepath.Join(folder, "real.db"), filepath.Join(t.TempDir(), "fob.db")
	check(t, os.WriteFile(file, old, 0o600))
	check(t, os.Symlink(file, path))
	_, err := store.OpenBolt(t.Context(), path, false)
	wantMessage(t, err, "migrate", fmt.Sprintf("needs %d", len(old)+len(old)/10))
	wantAlone(t, file)
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

// What the path links to is migrated, and the link stays one. What a migration left that
// was killed is cleared away there, too.
func TestMigrationOfLink(t *testing.T) {
	file := filepath.Join(t.TempDir(), "real.db")
	path := filepath.Join(t.TempDir(), "fob.db")
	check(t, os.WriteFile(file, unpacked(t, "schema-2.db"), 0o600))
	check(t, os.WriteFile(file+".new-123", []byte("cut off"), 0o600))
	check(t, os.Symlink(file, path))
	defer func() {
		if names, err := filepath.Glob(file + "*"); err != nil || len(names) != 2 {
			t.Errorf("there are %v (%v)", names, err)
		}
	}()
	kv := openBolt(t, path)
	if got := kv.Migrated().Backup; got != file+".schema-2" {
		t.Errorf("it is kept at %s", got)
	}
	check(t, kv.Close())
	if to, err := os.Readlink(path); err != nil || to != file {
		t.Errorf("the link leads to %q (%v)", to, err)
	}
	report, err := store.Check(path)
	check(t, errors.Join(err, report.Err()))
}

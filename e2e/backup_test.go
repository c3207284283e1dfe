package e2e

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// What root does to a folder that is another's leaves nothing there that this one
// cannot open.
func TestRootLeavesTheOwner(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("it takes root to give files away")
	}
	const owner = 1234
	data := shortDir(t)
	if err := os.Chown(data, owner, owner); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "backup.db")
	mustCommand(t, data, "token", "create", "x", "--grant", "admin")
	mustCommand(t, data, "backup", file)
	mustCommand(t, data, "restore", file)
	entries, err := os.ReadDir(data)
	if err != nil || len(entries) != 3 {
		t.Errorf("there are %v, %v", entries, err)
	}
	files := 0
	err = filepath.WalkDir(data, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == data {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o600)
		if entry.IsDir() {
			mode = 0o700
		} else {
			files++
		}
		if is := info.Sys().(*syscall.Stat_t); is.Uid != owner || is.Gid != owner || info.Mode().Perm() != mode {
			t.Errorf("%s is %d's and %v", path, is.Uid, info.Mode())
		}
		return nil
	})
	if err != nil || files < 3 {
		t.Errorf("%d files, %v", files, err)
	}
}

// A backup takes the place of a file, and of nothing else; one that was cut off is
// nobody else's to read.
func TestBackupToWhatIsNoFile(t *testing.T) {
	t.Parallel()
	data, folder := shortDir(t), t.TempDir()
	mustCommand(t, data, "token", "create", "x", "--grant", "admin")
	file := filepath.Join(folder, "backup.db")
	link := filepath.Join(folder, "link")
	fifo := filepath.Join(folder, "fifo")
	if err := errors.Join(os.Symlink(file, link), syscall.Mkfifo(fifo, 0o600), os.WriteFile(file+".partial", make([]byte, 1<<20), 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"/dev/null", link, fifo, folder} {
		refusedCommand(t, "not a regular file", data, "backup", to)
	}
	mustCommand(t, data, "backup", file)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.Symlink(filepath.Join(data, "fob.db"), file+".partial"); err != nil {
		t.Fatal(err)
	}
	refusedCommand(t, ".partial", data, "backup", file)
	if out := mustCommand(t, data, "check"); !strings.Contains(out, "is good") {
		t.Errorf("check says %s", out)
	}
}

// A backup of a running dispatcher, under load, is whole: checked, restored and
// served it has every function that was there before it was asked for.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	r := boot(t)
	data := r.Data
	r.gen("?name=first", "def callme(): return 1")
	folder := t.TempDir()
	file := filepath.Join(folder, "backup.db")
	refusedCommand(t, "a dispatcher uses", data, "restore", filepath.Join(data, "fob.db"))
	refusedCommand(t, "give the backup another name", data, "backup", filepath.Join(data, "fob.db"))

	// Backups one after the other while functions come and go.
	stop := make(chan struct{})
	var writers sync.WaitGroup
	defer writers.Wait()
	ended := sync.OnceFunc(func() { close(stop) })
	defer ended()
	for w := range 2 {
		writers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprintf("f%d-%d", w, n)
				if a, err := r.try("PUT", "/api/functions/"+name+"?idle_timeout=100ms", "def callme(): return 2"); err != nil || a.Status != 201 {
					t.Errorf("PUT %s: %v %v", name, a, err)
					return
				}
				r.try("DELETE", "/api/functions/"+name, "")
			}
		})
	}
	for n := range 3 {
		name := fmt.Sprintf("kept-%d", n)
		r.gen("?name="+name, "def callme(): return 3")
		if out := mustCommand(t, data, "backup", file); !strings.Contains(out, "functions") {
			t.Errorf("backup says %s", out)
		}
		if out := mustCommand(t, data, "check", file); !strings.Contains(out, "is good") {
			t.Errorf("check says %s", out)
		}
		if out := mustCommand(t, data, "check"); !strings.Contains(out, "handed out is good") {
			t.Errorf("check of the running one says %s", out)
		}
	}
	ended()
	writers.Wait()
	if left, _ := filepath.Glob(filepath.Join(folder, "*")); len(left) != 1 {
		t.Errorf("beside the backup: %v", left)
	}
	r.gen("?name=late", "def callme(): return 4")
	r.terminate()

	// With none running: the database itself is checked and backed up.
	if out := mustCommand(t, data, "check"); !strings.Contains(out, "fob.db is good") {
		t.Errorf("check says %s", out)
	}
	mustCommand(t, data, "backup", filepath.Join(folder, "offline.db"))
	same := mustCommand(t, data, "backup", "-")
	if len(same) < 8*4096 {
		t.Errorf("standard output got %d bytes", len(same))
	}

	// The present database is damaged; it is kept all the same.
	path := filepath.Join(data, "fob.db")
	if err := os.WriteFile(path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	refusedCommand(t, "fob.db has problems", data, "check")
	refusedCommand(t, "nothing was changed", data, "restore", path)
	if out := mustCommand(t, data, "restore", file); !strings.Contains(out, "functions") || !strings.Contains(out, "before-restore-") {
		t.Errorf("restore says %s", out)
	}
	kept, _ := filepath.Glob(path + ".before-restore-*")
	if text, err := os.ReadFile(strings.Join(kept, "")); err != nil || string(text) != "rubbish" {
		t.Errorf("kept: %v %q %v", kept, text, err)
	}
	r = boot(t, "FOB_DATA="+data)
	for n := range 3 {
		r.do("GET", fmt.Sprintf("/api/call/kept-%d", n), "").wants(t, 200, `{"result": 3}`)
	}
	r.do("GET", "/api/call/late", "").wantsProblem(t, 404, "unknown_function")
	r.terminate()

	// Into a folder that is not there yet.
	data = filepath.Join(shortDir(t), "new")
	mustCommand(t, data, "restore", filepath.Join(folder, "offline.db"))
	r = boot(t, "FOB_DATA="+data)
	r.do("GET", "/api/call/late", "").wants(t, 200, `{"result": 4}`)
}

// What is not there is not set up by a question about it.
func TestBackupOfNothing(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "none")
	refusedCommand(t, "there is no database", data, "backup", filepath.Join(t.TempDir(), "x"))
	for _, args := range [][]string{{"check"}, {"restore", "nowhere.db"}} {
		refusedCommand(t, "no such file", data, args...)
		if _, err := os.Stat(data); err == nil {
			t.Errorf("dispatcher %v made the data folder", args)
		}
	}
}

// damage replaces text in a file, in place, by another of the same length.
func damage(t *testing.T, path, was, is string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(strings.ReplaceAll(string(text), was, is)), 0); err != nil {
		t.Fatal(err)
	}
}

// Damage that is found while it runs: calls go on, changes are refused and
// /readyz says why, and the next start names the command that helps.
func TestDamagedWhileServing(t *testing.T) {
	t.Parallel()
	r := boot(t)
	data := r.Data
	r.gen("?name=warm", "def callme(): return 'a damaged record'")
	file := filepath.Join(t.TempDir(), "backup.db")
	mustCommand(t, data, "backup", file)
	damage(t, filepath.Join(data, "fob.db"), "a damaged record", "a famaged record")

	r.do("GET", "/readyz", "").wants(t, 200, `{"status": "ready"}`) // nobody has read it
	r.do("GET", "/api/cs/warm", "").wantsProblem(t, 503, "storage_failed")
	r.do("GET", "/readyz", "").wantsProblem(t, 503, "storage_failed")
	r.do("PUT", "/api/functions/warm", "def callme(): return 2").wantsProblem(t, 503, "storage_failed")
	r.do("GET", "/healthz", "").wants(t, 200, `{"status": "ok"}`)
	r.do("GET", "/api/call/warm", "").wants(t, 200, `{"result": "a damaged record"}`)
	refusedCommand(t, "(503)", data, "backup", file)
	r.terminate()

	refusedCommand(t, "the checksum of the record", data, "check")
	refusedCommand(t, "dispatcher restore --data "+data, data, "serve", "--engine=process", "--addr=127.0.0.1:0")
	mustCommand(t, data, "restore", file)
	r = boot(t, "FOB_DATA="+data)
	r.do("GET", "/api/call/warm", "").wants(t, 200, `{"result": "a damaged record"}`)
}

// TestRestoreFromStandardInput: a backup need not be a file here.
func TestRestoreFromStandardInput(t *testing.T) {
	t.Parallel()
	data := shortDir(t)
	file := filepath.Join(t.TempDir(), "backup.db")
	mustCommand(t, data, "token", "create", "kept", "--grant", "admin")
	mustCommand(t, data, "backup", file)
	restore := func(from io.Reader, to string) (string, error) {
		cmd := commandOf([]string{"FOB_DATA=" + to}, "restore", "-")
		cmd.Stdin = from
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	backup, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other := shortDir(t)
	if out, err := restore(strings.NewReader(string(backup[:len(backup)/2])), other); err == nil || !strings.Contains(out, "standard input") {
		t.Errorf("half a backup: %v %s", err, out)
	}
	if out, err := restore(strings.NewReader(string(backup)), other); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if out := mustCommand(t, other, "token", "list"); !strings.Contains(out, "kept") {
		t.Errorf("token list says %s", out)
	}
}

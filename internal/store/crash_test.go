package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/store"
	"github.com/flockofbirds/fob/internal/store/storetest"
)

// childEnv makes the test binary the process that is to be killed: it names
// the database that this process works on.
const childEnv = "FOB_TEST_STORE_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		err := work(path)
		fmt.Println("failed", err)
		os.Exit(1)
	}
	for env, run := range map[string]func(path string) error{writerEnv: writeMuch, refusedEnv: writeRefused, replaceEnv: replaceDatabase} {
		if path := os.Getenv(env); path != "" {
			if err := run(path); err != nil {
				fmt.Println("failed", err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// work creates, extends and deletes functions until it is killed, and says
// what it begins to delete and what the store has acknowledged.
func work(path string) error {
	fmt.Println("starting")
	s, err := store.Open(context.Background(), path, true)
	if err != nil {
		return err
	}
	fmt.Println("open")
	for round := 0; ; round++ {
		fn, code := storetest.NewFunction(fmt.Sprintf("f-%d-%d", os.Getpid(), rand.Int64()))
		if err := s.CreateFunction(context.Background(), fn, code, fmt.Sprintf("%016x", round)); err != nil {
			return err
		}
		fmt.Println("stored", fn.ID, 1)
		next, code := storetest.NextFunction(fn)
		if err := s.AddVersion(context.Background(), next, code, ""); err != nil {
			return err
		}
		fmt.Println("stored", fn.ID, 2)
		// One that has the same code, and in the place of the first.
		last, _ := storetest.NextFunction(next)
		last.Current = storetest.WithCode(last.Current, code)
		if err := s.AddVersion(context.Background(), last.Without([]int{1}), "", ""); err != nil {
			return err
		}
		fmt.Println("stored", fn.ID, 3)
		if round%3 == 0 {
			fmt.Println("deleting", fn.ID)
			if err := s.DeleteFunction(context.Background(), fn.ID); err != nil {
				return err
			}
			fmt.Println("deleted", fn.ID)
		}
	}
}

// child is a process that works on a database.
type child struct {
	cmd  *exec.Cmd
	said *bufio.Reader
}

func startChild(t *testing.T, path string) *child {
	t.Helper()
	self, err := os.Executable()
	check(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	c := &child{cmd, bufio.NewReader(out)}
	t.Cleanup(c.kill)
	c.expect(t, "starting")
	return c
}

func (c *child) expect(t *testing.T, want string) {
	t.Helper()
	line, err := c.said.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != want {
		t.Fatalf("the child says %q (%v), want %q", line, err, want)
	}
}

// kill ends the child with SIGKILL; killing it again does nothing.
func (c *child) kill() {
	if c.cmd.ProcessState == nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	}
}

// ledger is what children have been heard to say: versions acknowledged by
// function.
type ledger struct {
	stored  map[string]int
	deleted map[string]bool // false: began, and may have happened
}

// hear reads what a killed child said. A line that was cut off was not said.
func (l *ledger) hear(t *testing.T, c *child) (opened bool) {
	t.Helper()
	for {
		line, err := c.said.ReadString('\n')
		if err != nil {
			return opened
		}
		var id string
		var version int
		switch {
		case line == "open\n":
			opened = true
		case scan(line, "stored %s %d\n", &id, &version):
			l.stored[id] = version
		case scan(line, "deleting %s\n", &id):
			l.deleted[id] = false
		case scan(line, "deleted %s\n", &id):
			l.deleted[id] = true
		default:
			t.Fatalf("the child says %q", line)
		}
	}
}

func scan(line, format string, into ...any) bool {
	n, err := fmt.Sscanf(line, format, into...)
	return err == nil && n == len(into)
}

// TestKilled kills a process at random moments, half of the time during the
// first start in a new folder, and looks at what it left.
func TestKilled(t *testing.T) {
	const rounds = 60
	inInit, working := 0, 0
	var path string
	var said *ledger
	for round := range rounds {
		if round%10 == 0 || round%2 == 0 && round < rounds/2 {
			path = filepath.Join(t.TempDir(), "data", "fob.db")
			said = &ledger{map[string]int{}, map[string]bool{}}
		}
		c := startChild(t, path)
		// The moment, not a wait for anything: a first start takes a few
		// milliseconds.
		most := 30 * time.Millisecond
		if round%2 == 0 {
			most = 6 * time.Millisecond
		}
		time.Sleep(rand.N(most))
		_ = c.cmd.Process.Kill()
		if said.hear(t, c) {
			working++
		} else {
			inInit++
		}
		c.kill()
		inspect(t, path, said)
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	t.Logf("%d killed before they had opened the store, %d at work; %d functions acknowledged in the last folder", inInit, working, len(said.stored))
}

// inspect opens what a killed child left.
func inspect(t *testing.T, path string, said *ledger) {
	t.Helper()
	kv, err := store.OpenBolt(t.Context(), path, false)
	check(t, err)
	defer func() { checkPages(t, path) }()
	defer kv.Close()
	wantAlone(t, path)
	s := newStore(t, kv)
	if _, err := s.Aviary(t.Context()); err != nil {
		t.Error(err)
	}
	functions, err := s.Functions(t.Context())
	check(t, err)
	byID := map[string]*faas.Function{}
	for _, fn := range functions {
		byID[fn.ID] = fn
	}
	for id, version := range said.stored {
		fn := byID[id]
		gone, deleting := said.deleted[id]
		switch {
		case gone && fn != nil:
			t.Errorf("function %s was deleted and is there", id)
		case fn == nil && !deleting:
			t.Errorf("function %s was acknowledged and is lost", id)
		case fn != nil && fn.Latest() < version:
			t.Errorf("version %d of %s was acknowledged, the last is %d", version, id, fn.Latest())
		}
	}
	// Nothing half done: what the functions call for is exactly what is there.
	want := map[string]bool{"meta/schema": true, "meta/aviary": true}
	for _, fn := range functions {
		want["function/"+fn.ID] = true
		want["name/"+fn.Name] = true
		if fn.Has(1) == (fn.Latest() == 3) {
			t.Errorf("%s has the versions %v", fn.ID, fn.Versions)
		}
		for _, number := range fn.Versions {
			want[fmt.Sprintf("version/%s/%08d", fn.ID, number)] = true
			v, err := s.Version(t.Context(), fn.ID, number)
			check(t, err)
			want["meta/code/"+fn.ID+"/"+strings.TrimPrefix(v.Digest, "sha256:")] = true
			if code, err := s.Code(t.Context(), fn.ID, v.Number); err != nil || len(code) != v.Size {
				t.Errorf("the code of %s@%d has %d bytes, want %d (%v)", fn.ID, v.Number, len(code), v.Size, err)
			}
		}
	}
	notes, err := s.Sandboxes(t.Context())
	check(t, err)
	for id, version := range notes {
		want["sandbox/"+id] = true
		if byID[version.FunctionID] == nil {
			t.Errorf("sandbox %s is that of %s, which is not there", id, version.FunctionID)
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
	for key := range want {
		t.Errorf("%s is missing", key)
	}
}

// checkPages has bbolt check the whole file.
func checkPages(t *testing.T, path string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	check(t, err)
	err = db.View(func(tx *bbolt.Tx) error {
		var all []error
		for err := range tx.Check() {
			all = append(all, err)
		}
		return errors.Join(all...)
	})
	check(t, errors.Join(err, db.Close()))
}

// TestStandbyTakesOver waits for the lock of a process that is killed.
func TestStandbyTakesOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fob.db")
	c := startChild(t, path)
	c.expect(t, "open")
	if _, err := store.OpenBolt(t.Context(), path, false); err == nil {
		t.Fatal("the lock is not held")
	}
	took := make(chan error)
	go func() {
		kv, err := store.OpenBolt(t.Context(), path, true)
		if err == nil {
			err = kv.Close()
		}
		took <- err
	}()
	began := time.Now()
	c.kill()
	check(t, <-took)
	t.Log("took over after", time.Since(began))
}

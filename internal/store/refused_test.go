package store_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/durable/powercut"
	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/store"
	"github.com/flockofbirds/fob/internal/store/storetest"
)

// refusedEnv makes the test binary a process some of whose writes the system
// refuses: it names the database that this works on.
const refusedEnv = "FOBTEST_STORE_REFUSED"

// writeRefused creates functions, one after the other, and says what came of each.
func writeRefused(path string) error {
	runtime.LockOSThread() // strace counts by thread
	s, err := store.Open(context.Background(), path, false)
	if err != nil {
		return err
	}
	for range 5 {
		fn, code := newFunction("f-" + fmt.Sprint(os.Getpid()))
		fn.Name = "f-" + fn.ID
		code += strings.Repeat("#", 8<<10)
		fn.Current = storetest.WithCode(fn.Current, code)
		is := answer(s.CreateFunction(context.Background(), fn, code, ""))
		if s.Broken() != nil {
			is = "broken"
		}
		fmt.Println(fn.ID, "is", is)
	}
	return s.Close()
}

// answer is an error's code, or "stored".
func answer(err error) string {
	if err == nil {
		return "stored"
	}
	return string(faas.CodeOf(err))
}

// TestRefusedBySystem has the system refuse one write, one growing or one sync of
// the database, each in turn, for want of space or because the disk fails. What is
// refused is not there and the next writes go on; but where it is the last sync of
// a commit, nothing is written any more, for nobody knows what is on disk.
func TestRefusedBySystem(t *testing.T) {
	for reason, code := range map[string]faas.Code{"ENOSPC": faas.CodeNoSpace, "EIO": faas.CodeStorage} {
		t.Run(reason, func(t *testing.T) { refusedBySystem(t, reason, code) })
	}
}

func refusedBySystem(t *testing.T, reason string, code faas.Code) {
	self, err := os.Executable()
	check(t, err)
	passing, unknown := 0, 0
	for _, call := range []string{"pwrite64", "ftruncate", "fsync", "fdatasync"} {
		for n := 1; ; n++ {
			if n == 60 {
				t.Fatalf("there is no end of %s", call)
			}
			path := filepath.Join(t.TempDir(), "fob.db")
			check(t, newStore(t, openBolt(t, path)).Close())
			cmd := exec.Command("strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-P", path, "-e", "trace="+call, "-e", fmt.Sprintf("inject=%s:error=%s:when=%d", call, reason, n), self)
			cmd.Env = append(os.Environ(), refusedEnv+"="+path, powercut.QuickExit)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %v (scripts/setup test installs strace, which needs to be allowed ptrace(2))\n%s", cmd, err, out)
			}
			s := newStore(t, openBolt(t, path))
			refused := ""
			for line := range strings.Lines(string(out)) {
				var id, is string
				if !scan(line, "%s is %s\n", &id, &is) {
					t.Fatalf("the writer says %q", line)
				}
				kept, err := s.Code(t.Context(), id, 1)
				switch {
				case is == "stored" && refused == "broken":
					t.Errorf("%s %d: a write is acknowledged on top of one that may be lost", call, n)
				case is == "stored" && (err != nil || kept == ""):
					t.Errorf("%s %d: a function was acknowledged and is lost: %v", call, n, err)
				case is == string(code) && (err == nil || refused != ""):
					t.Errorf("%s %d: a function was refused and is there, or it was the second: %v", call, n, err)
				case is != "stored" && is != string(code) && is != "broken":
					t.Errorf("%s %d: %s", call, n, line)
				}
				if is != "stored" {
					refused = is
				}
			}
			check(t, s.Close())
			checkPages(t, path)
			if refused == "" { // it makes no more of these calls
				break
			}
			if refused == "broken" {
				unknown++
			} else {
				passing++
			}
		}
	}
	if passing < 20 || unknown != 5 {
		t.Error("too little was refused")
	}
	t.Logf("%d writes, growings and syncs refused, after which it went on; %d last syncs, after which it did not", passing, unknown)
}

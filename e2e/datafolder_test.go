package e2e

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/audit"
)

// openFolders are data folders, and what is in them, that others can change, with
// what to run then.
var openFolders = map[string]struct {
	mode os.FileMode
	path string // in a data folder called data
}{
	"chmod go-w ROOT/data,":             {0o777, "."},
	"chmod go-w ROOT/data, ":            {0o770, "./"},
	"chmod go-w ROOT,":                  {0o777, ".."},
	"chmod go-w ROOT/data/fob.db,":      {0o666, "fob.db"},
	"chmod go-w ROOT/data/audit,":       {0o777, "audit"},
	"chmod go-w ROOT/data/audit.jsonl,": {0o662, "audit.jsonl"},
	"chmod go-w ROOT/data/secret.key,":  {0o620, "secret.key"},
	"chmod go-w ROOT/data/sockets,":     {0o777, "sockets"},
}

// openedFolder is a data folder that has been used, and then had a mode of
// something in it changed.
func openedFolder(t *testing.T, path string, mode os.FileMode) (root, data string) {
	t.Helper()
	root = shortDir(t)
	data = filepath.Join(root, "data")
	mustCommand(t, data, "token", "create", "x", "--grant", "admin")
	for _, name := range []string{"secret.key", audit.OldName} {
		if err := os.WriteFile(filepath.Join(data, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(data, "sockets"), 0o700); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(data, path)
	if mode&0o002 == 0 { // for a group, which is to be another one than its owner's own
		if os.Geteuid() != 0 {
			t.Skip("it takes root to give something to a group that is not one's own")
		}
		if err := os.Chown(path, -1, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return root, data
}

// A data folder that others can change is used by nothing.
func TestOpenDataFolder(t *testing.T) {
	t.Parallel()
	for advice, c := range openFolders {
		t.Run(c.path+" "+c.mode.String(), func(t *testing.T) {
			root, data := openedFolder(t, c.path, c.mode)
			want := strings.TrimSpace(strings.ReplaceAll(advice, "ROOT", root))
			refusedCommand(t, want, data, "serve", "--engine=process", "--addr=127.0.0.1:0")
			listener := listenAs(t, data, 0)
			value := filepath.Join(root, "value")
			if err := os.WriteFile(value, []byte("hush"), 0o600); err != nil {
				t.Fatal(err)
			}
			asked := []string{"secret set s --file " + value, "secret list", "secret rotate-key", "token create y --grant admin", "token list", "audit", "backup " + value + ".db", "check", "restore " + value}
			if c.path != "." {
				asked = asked[:1] // which all ask in the same way
			}
			for _, args := range asked {
				refusedCommand(t, want, data, strings.Fields(args)...)
			}
			if heard := listener(); heard != "" {
				t.Errorf("who listens in the folder was told %q", heard)
			}
		})
	}
}

// A folder elsewhere that is named is no other matter.
func TestOpenFoldersElsewhere(t *testing.T) {
	t.Parallel()
	for name, file := range map[string]string{"FOB_SOCKETS": "", "FOB_KEY_FILE": "key"} {
		data := shortDir(t)
		open := filepath.Join(data, "open")
		if err := os.Mkdir(open, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(open, 0o777); err != nil {
			t.Fatal(err)
		}
		said := bootUnready(t, "FOB_DATA="+data, name+"="+filepath.Join(open, file)).refuses()
		if !strings.Contains(said, name+": others may write to "+open) || !strings.Contains(said, "chmod go-w "+open+",") {
			t.Errorf("%s: %s", name, said)
		}
	}
}

// Root starts on the folder of another user, whether it has been used or not, and
// with sockets and a key that are elsewhere in it, but for a third one's.
func TestAnothersDataFolder(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("it takes root to use the folder of somebody else")
	}
	for name, c := range map[string]struct {
		made    []string // folders, by root
		set     string   // a setting, with a path in the data folder
		refused string
	}{
		"new":                  {},
		"used":                 {made: []string{"sockets"}},
		"with its own sockets": {set: "FOB_SOCKETS=s"},
		"and they are there":   {made: []string{"s"}, set: "FOB_SOCKETS=s"},
		"with its own key":     {made: []string{"keys"}, set: "FOB_KEY_FILE=keys/key"},
		"a third one's":        {made: []string{"third"}, set: "FOB_SOCKETS=third", refused: "FOB_SOCKETS: "},
	} {
		t.Run(name, func(t *testing.T) {
			data := shortDir(t)
			for _, folder := range append([]string{"."}, c.made...) {
				path, uid := filepath.Join(data, folder), 0
				if err := os.MkdirAll(path, 0o755); err != nil {
					t.Fatal(err)
				}
				switch folder {
				case ".":
					uid = 1000
				case "third":
					uid = 1001
				}
				if err := os.Chown(path, uid, uid); err != nil {
					t.Fatal(err)
				}
			}
			settings := []string{"FOB_DATA=" + data}
			if name, path, is := strings.Cut(c.set, "="); is {
				settings = append(settings, name+"="+filepath.Join(data, path))
			}
			if c.refused == "" {
				boot(t, settings...)
			} else if said := bootUnready(t, settings...).refuses(); !strings.Contains(said, c.refused) {
				t.Errorf("want %q, got %s", c.refused, said)
			}
		})
	}
}

// Somebody who could once put a socket into the folder is told nothing later
// either.
func TestStrangerOnControlSocket(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("it takes root to be somebody else")
	}
	root, data := openedFolder(t, ".", 0o777)
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	listener := listenAs(t, data, 1000)
	if err := os.Chmod(data, 0o755); err != nil {
		t.Fatal(err)
	}
	value := filepath.Join(root, "value")
	if err := os.WriteFile(value, []byte("hush"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"secret set s --file " + value, "token create y --grant admin", "backup " + value + ".db"} {
		refusedCommand(t, "of the user with the ID 1000 listens there", data, strings.Fields(args)...)
	}
	if heard := listener(); heard != "" {
		t.Errorf("the stranger was told %q", heard)
	}
}

// listenAs listens on the control socket of a data folder, as another user unless
// uid is 0. The function that it returns ends that and tells what was heard.
func listenAs(t *testing.T, data string, uid int) (heard func() string) {
	t.Helper()
	type result struct {
		listener net.Listener
		err      error
	}
	listening := make(chan result)
	go func() {
		if uid != 0 { // of this thread alone, which ends with the goroutine
			runtime.LockOSThread()
			if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
				listening <- result{nil, errno}
				return
			}
		}
		listener, err := net.Listen("unix", filepath.Join(data, "control.sock"))
		listening <- result{listener, err}
	}()
	got := <-listening
	if got.err != nil {
		t.Fatal(got.err)
	}
	told := make(chan string)
	go func() {
		var all strings.Builder
		defer func() { told <- all.String() }()
		for {
			conn, err := got.listener.Accept()
			if err != nil {
				return
			}
			conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			piece := make([]byte, 1000)
			n, _ := conn.Read(piece)
			all.Write(piece[:n])
			conn.Close()
		}
	}()
	return func() string {
		got.listener.Close()
		return <-told
	}
}

// A copy of a data folder in use, here a restored backup, is refused on the same
// engine, and what runs is left alone.
func TestDockerCopiedFolder(t *testing.T) {
	t.Parallel()
	aviary, data, copied := testAviary(t), shortDir(t), shortDir(t)
	settings := func(data string) []string {
		return []string{"FOB_DATA=" + data, "FOB_AVIARY=" + aviary, "FOB_POOL=python=1,node=0"}
	}
	p := boot(t, settings(data)...)
	p.do("PUT", "/api/functions/f?min_scale=1", "def callme(): return 1").wantsStatus(t, 201)
	eventually(t, time.Minute, "the pool is full", func() bool { return len(containers(t, aviary)) == 2 })
	before := containers(t, aviary)
	backup := filepath.Join(shortDir(t), "backup")
	mustCommand(t, data, "backup", backup)
	mustCommand(t, copied, "restore", backup)

	if said := bootUnready(t, settings(copied)...).refuses(); !strings.Contains(said, "belongs to a running dispatcher with another data folder, "+data+" on ") || !strings.Contains(said, "set FOB_AVIARY") {
		t.Errorf("it said %s", said)
	}
	if after := containers(t, aviary); !slices.Equal(after, before) {
		t.Errorf("the sandboxes were %v, and are %v", before, after)
	}
	p.do("GET", "/api/call/f", "").wants(t, 200, `{"result": 1}`)

	// Once the first has ended the copy is as good as the original.
	p.terminate()
	second := boot(t, settings(copied)...)
	second.do("GET", "/api/call/f", "").wants(t, 200, `{"result": 1}`)
	second.terminate()
	if marks := lines(dockerCLI(t, "volume", "ls", "--quiet", "--filter", "label=fob.aviary="+aviary)); len(marks) != 0 {
		t.Errorf("left: %v", marks)
	}
}

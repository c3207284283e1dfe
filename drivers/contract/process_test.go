package contract

import (
	"bytes"
	"context"
	"hash/crc32"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/flockofbirds/fob/drivers"
)

// process is a driver that runs as a plain local process.
type process struct {
	Driver
	cmd    *exec.Cmd
	socket string
	exited chan struct{} // closed once cmd has ended
}

// buffer collects a log while it is read.
type buffer struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (b *buffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.Write(data)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}

// start starts a driver with additional environment, and does not wait for
// its socket. What the test does not end by then, is killed when it ends.
func start(t *testing.T, lang string, change func(*exec.Cmd), env ...string) *process {
	t.Helper()
	files, err := drivers.Files(lang)
	if err != nil {
		t.Fatal(err)
	}
	// t.TempDir is too long a path for a socket's.
	folder, err := os.MkdirTemp("/tmp", "fob")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.CopyFS(filepath.Join(folder, "d"), files); err != nil {
		t.Fatal(err)
	}
	secrets := filepath.Join(folder, "secrets")
	if err := os.Mkdir(secrets, 0o700); err != nil {
		t.Fatal(err)
	}
	log := &buffer{}
	p := &process{socket: filepath.Join(folder, "s"), exited: make(chan struct{})}
	p.Driver = Driver{
		Dial: func(ctx context.Context) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", p.socket)
		},
		Log: log.String,
	}
	line := drivers.Command(lang)
	p.cmd = exec.Command(line[0], line[1:]...)
	p.cmd.Dir = filepath.Join(folder, "d")
	p.cmd.Env = append(withoutOurs(os.Environ()), append([]string{"FOB_SOCKET=" + p.socket, "FOB_SECRETS=" + secrets, "TMPDIR=" + folder}, env...)...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if change != nil {
		change(p.cmd)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("%v; the contract's test needs %s on the PATH", err, line[0])
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // the tests look at ProcessState
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.exited
		if t.Failed() {
			t.Logf("the driver's log:\n%s", show([]byte(log.String())))
		}
	})
	return p
}

// boot starts a driver and waits until it is ready.
func boot(t *testing.T, lang string, env ...string) *process {
	t.Helper()
	p := start(t, lang, nil, env...)
	p.ready(t)
	return p
}

func (p *process) ready(t *testing.T) {
	t.Helper()
	Eventually(t, "the driver's socket accepts", func() bool {
		select {
		case <-p.exited:
			t.Fatalf("the driver ended instead (%v): %s", p.cmd.ProcessState, p.Log())
		default:
		}
		conn, err := p.Dial(t.Context())
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

// each runs a test for both languages, beside other tests: they mostly wait for
// drivers to start.
func each(t *testing.T, test func(t *testing.T, lang string)) {
	t.Parallel()
	for _, lang := range drivers.Langs() {
		t.Run(lang, func(t *testing.T) {
			t.Parallel()
			test(t, lang)
		})
	}
}

// TestCases runs every case in each language. A short run takes every other case of a
// language, and so nearly every case in one of them: a driver's start costs the most.
func TestCases(t *testing.T) {
	of := map[string]int{"python": 0, "node": 1}
	each(t, func(t *testing.T, lang string) {
		var cases []Case
		for _, c := range Cases(t, lang) {
			if sum := crc32.ChecksumIEEE([]byte(c.Name)); !testing.Short() || int(sum%2) == of[lang] {
				cases = append(cases, c)
			}
		}
		Run(t, lang, cases, func(t *testing.T) Driver { return boot(t, lang).Driver })
	})
}

var extensions = map[string]string{"python": ".py", "node": ".js"}

func TestExamplesLoad(t *testing.T) {
	each(t, func(t *testing.T, lang string) {
		names, err := fs.Glob(os.DirFS("../../examples"), "*"+extensions[lang])
		if err != nil || len(names) == 0 {
			t.Fatalf("no examples: %v", err)
		}
		for _, name := range names {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				code, err := os.ReadFile(filepath.Join("../../examples", name))
				if err != nil {
					t.Fatal(err)
				}
				if status, _, body := boot(t, lang).Client(t).Load(t, string(code)); status != 200 {
					t.Errorf("it does not load: %d %s", status, body)
				}
			})
		}
	})
}

// withoutOurs is an environment without what somebody set for a dispatcher.
func withoutOurs(environ []string) []string {
	return slices.DeleteFunc(environ, func(entry string) bool { return strings.HasPrefix(entry, "FOB_") })
}

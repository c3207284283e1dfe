// Package e2e has the tests that use a dispatcher as people do: a process of the
// real program, asked over HTTP, by commands, and in its folders.
package e2e

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/client"
)

// root is the repository, as seen from where the tests run.
const root = ".."

// program is the dispatcher that the tests run, which TestMain builds.
var program string

func TestMain(m *testing.M) {
	flag.Parse()
	// Most of a test's time is waiting for processes, containers and browsers.
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "test.parallel" })
	if !set {
		flag.Set("test.parallel", "6")
	}
	go func() {
		runtime.LockOSThread()
		for start := range births {
			start()
		}
	}()
	os.Exit(buildAndRun(m))
}

// births are starts of dispatchers. A thread that lives as long as the tests makes them,
// so that no dispatcher outlives tests that were killed or took too long.
var births = make(chan func())

// buildAndRun builds the program, with the race detector if the tests have it.
func buildAndRun(m *testing.M) int {
	folder, err := os.MkdirTemp("", "fob-e2e")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(folder)
	program = filepath.Join(folder, "dispatcher")
	args := []string{"build", "-buildvcs=false", "-o", program}
	if raced() {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "../cmd/dispatcher")...)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "building the dispatcher:", err)
		return 1
	}
	if err := os.Symlink("dispatcher", filepath.Join(folder, "fob")); err != nil { // as make build does
		panic(err)
	}
	return m.Run()
}

// raced reports whether this was built with the race detector.
func raced() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// dispatcher is one that a test runs.
type dispatcher struct {
	*client.Dispatcher
	Data  string // folder
	owner *client.Client
	t     *testing.T
}

// boot runs a dispatcher until the test ends, and waits until it is ready. Settings are
// FOB_NAME=value. What they do not say is as below: a data folder of its own, sandboxes
// that go with it, and the process engine without a pool. Settings that name an aviary
// are for Docker, with a pool that does not grow, for tests count sandboxes.
func boot(t *testing.T, settings ...string) *dispatcher {
	t.Helper()
	d := bootUnready(t, settings...)
	d.awaitReady(3 * time.Minute) // the driver images may have to be built
	return d
}

// bootUnready is boot without the waiting.
func bootUnready(t *testing.T, settings ...string) *dispatcher {
	t.Helper()
	return bootAs(t, exec.Command(program, "serve"), settings...)
}

// bootAs is bootUnready with a command that becomes the dispatcher. Its output is kept
// unless the command has somewhere for it to go.
func bootAs(t *testing.T, cmd *exec.Cmd, settings ...string) *dispatcher {
	t.Helper()
	engine, pool := "process", 0
	if slices.ContainsFunc(settings, func(s string) bool { return strings.HasPrefix(s, "FOB_AVIARY=") }) {
		engine, pool = "docker", 1
	}
	all := append([]string{"FOB_ENGINE=" + engine, fmt.Sprintf("FOB_POOL=python=%d,node=%[1]d", pool), "FOB_POOL_MAX=0", "FOB_DRAIN_TIMEOUT=10s", "FOB_REMOVE_SANDBOXES=true", "FOB_LOG_FORMAT=json", "GORACE=halt_on_error=1"}, settings...)
	if !slices.ContainsFunc(settings, func(s string) bool { return strings.HasPrefix(s, "FOB_DATA=") }) {
		all = append(all, "FOB_DATA="+shortDir(t))
	}
	process, err := client.Prepare(program, all...)
	if err != nil {
		t.Fatal(err)
	}
	d := &dispatcher{Dispatcher: process, Data: process.Setting("FOB_DATA"), t: t}
	d.owner = asOwner(t, d.Data)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	started := make(chan error)
	births <- func() { started <- d.StartAs(cmd) }
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !d.Over() {
			d.Signal(syscall.SIGCONT)
			d.terminate()
		}
		d.HTTP.CloseIdleConnections()
		d.checkLog()
		if t.Failed() {
			t.Logf("the dispatcher said:\n%s", d.Log.String())
		}
	})
	return d
}

// asOwner asks over the control socket of a data folder, as commands do. It needs no
// token.
func asOwner(t *testing.T, data string) *client.Client {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		folder, err := os.Open(data) // through which a long path is short
		if err != nil {
			return nil, err
		}
		defer folder.Close()
		return new(net.Dialer).DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/control.sock", folder.Fd()))
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &client.Client{URL: "http://localhost", HTTP: &http.Client{Transport: transport}}
}

// local makes a request as the owner, which must succeed.
func (d *dispatcher) local(method, path, body string) string {
	d.t.Helper()
	text, err := d.owner.Ask(method, path, body)
	if err != nil {
		d.t.Fatal(err)
	}
	return text
}

func (d *dispatcher) awaitReady(patience time.Duration) {
	d.t.Helper()
	if err := d.AwaitReady(patience); err != nil {
		d.t.Fatal(err)
	}
}

// awaitStandby waits until it says that it is on standby.
func (d *dispatcher) awaitStandby() {
	d.t.Helper()
	eventually(d.t, time.Minute, "it is on standby", func() bool {
		a, err := d.try("GET", "/readyz", "")
		return err == nil && strings.Contains(a.Body, `"standby"`)
	})
}

// kill ends it as kill -9 does.
func (d *dispatcher) kill() {
	d.t.Helper()
	d.Kill()
	d.checkLog()
}

// terminate has it end on SIGTERM, and fails the test unless it ends well. One that has
// ended stays so.
func (d *dispatcher) terminate() {
	d.t.Helper()
	if err := d.Terminate(); err != nil {
		d.t.Error(err)
	}
	d.checkLog()
}

// endsWell waits for the end after a signal.
func (d *dispatcher) endsWell() {
	d.t.Helper()
	if err := d.AwaitEnd(); err != nil {
		d.t.Error(err)
	}
}

// refuses waits for the end of one that is not to start. It returns what it said.
func (d *dispatcher) refuses() string {
	d.t.Helper()
	select {
	case <-d.Ended():
	case <-time.After(time.Minute):
		d.t.Fatal("it goes on")
	}
	if code := d.State().ExitCode(); code != 1 {
		d.t.Errorf("it ended with %d", code)
	}
	return d.Log.String()
}

// checkLog fails the test when the log tells of a bug.
func (d *dispatcher) checkLog() {
	d.t.Helper()
	if trouble := d.Log.Trouble(); trouble != "" {
		d.t.Errorf("the dispatcher's log has\n%s", trouble)
	}
}

// shortDir is a temporary folder with a path short enough for sockets.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/tmp", "fob")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// eventually polls until condition holds, and fails the test when it never
// does.
func eventually(t *testing.T, patience time.Duration, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after %v: %s", patience, what)
		}
	}
}

// command runs a command of the program's. Env is more of its environment.
func command(t *testing.T, env []string, args ...string) (stdout, stderr string, ok bool) {
	t.Helper()
	cmd := commandOf(env, args...)
	var out, complaints strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err := cmd.Run()
	return out.String(), complaints.String(), err == nil
}

// commandOf is a command of the program's that is yet to run, without the FOB_ variables
// of our own environment.
func commandOf(env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, "FOB_") }), env...)
	return cmd
}

// mustCommand runs a command on a data folder, and returns what it printed.
func mustCommand(t *testing.T, data string, args ...string) string {
	t.Helper()
	out, complaints, ok := command(t, []string{"FOB_DATA=" + data}, args...)
	if !ok {
		t.Fatalf("dispatcher %v: %s%s", args, out, complaints)
	}
	return out
}

// refusedCommand fails the test unless a command on a data folder is refused in these
// words.
func refusedCommand(t *testing.T, want string, data string, args ...string) {
	t.Helper()
	if out, complaints, ok := command(t, []string{"FOB_DATA=" + data}, args...); ok || !strings.Contains(complaints, want) {
		t.Errorf("dispatcher %v: %v %s%s, want %q", args, ok, out, complaints, want)
	}
}

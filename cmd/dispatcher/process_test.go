package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary be the dispatcher itself, so that tests can
// run it as a process of its own, and kill it.
func TestMain(m *testing.M) {
	if os.Getenv("FOBTEST_MAIN") == "1" {
		main()
		return
	}
	os.Exit(m.Run())
}

// dispatcherProcess is a dispatcher that runs as a process of its own.
type dispatcherProcess struct {
	running
	cmd    *exec.Cmd
	output *lockedBuffer
	ended  chan struct{}
}

// spawn starts dispatcher serve with settings as FOB_ variables. It is killed
// at the end of the test if it still runs.
func spawn(t *testing.T, settings map[string]string) *dispatcherProcess {
	t.Helper()
	return spawnAs(t, exec.Command(os.Args[0], "serve"), settings)
}

// spawnAs is spawn with a command that becomes the dispatcher. Its output is kept
// unless the command has somewhere for it to go.
func spawnAs(t *testing.T, cmd *exec.Cmd, settings map[string]string) *dispatcherProcess {
	t.Helper()
	if settings["FOB_ADDR"] == "" {
		settings["FOB_ADDR"] = freeAddr(t)
	}
	p := &dispatcherProcess{
		running: running{URL: "http://" + settings["FOB_ADDR"], t: t},
		cmd:     cmd,
		output:  &lockedBuffer{},
		ended:   make(chan struct{}),
	}
	p.cmd.Env = append(os.Environ(), "FOBTEST_MAIN=1", "FOB_POOL_MAX=0") // tests count sandboxes
	for name, value := range settings {
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	if p.cmd.Stderr == nil {
		p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the dispatcher's output:\n%s", p.output)
		}
	})
	return p
}

// kill ends it as kill -9 does.
func (p *dispatcherProcess) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

// terminate sends SIGTERM and waits for the end.
func (p *dispatcherProcess) terminate() {
	p.t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.endsWell()
}

// endsWell waits for the end after a signal.
func (p *dispatcherProcess) endsWell() {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		p.t.Fatal("the dispatcher did not end on a signal")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		p.t.Errorf("the dispatcher ended with %d on a signal", code)
	}
}

// freeAddr is an address that nobody listened on just now.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr())
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

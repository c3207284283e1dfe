package client

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Dispatcher is one that runs as a process of its own. It can be started again after
// it ended. What it says goes to Log.
type Dispatcher struct {
	Client
	Env []string // NAME=value; the last of a name counts
	Log Log

	args  []string // program first
	cmd   *exec.Cmd
	ended chan struct{}
}

// Prepare makes a dispatcher that is yet to be started. Settings are FOB_NAME=value;
// without FOB_ADDR it gets a port of its own. Those of our own environment do not count,
// but for the base image.
func Prepare(program string, settings ...string) (*Dispatcher, error) {
	d := &Dispatcher{args: []string{program, "serve"}}
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "FOB_") || strings.HasPrefix(entry, "FOB_BASE_IMAGE=") {
			d.Env = append(d.Env, entry)
		}
	}
	d.Env = append(d.Env, settings...)
	addr := d.Setting("FOB_ADDR")
	if addr == "" {
		var err error
		if addr, err = FreeAddr(); err != nil {
			return nil, err
		}
		d.Env = append(d.Env, "FOB_ADDR="+addr)
	}
	d.URL = "http://" + strings.Replace(addr, "0.0.0.0", "127.0.0.1", 1)
	d.HTTP = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	return d, nil
}

// Setting is what a setting was given as.
func (d *Dispatcher) Setting(name string) string {
	for _, entry := range slices.Backward(d.Env) {
		if value, is := strings.CutPrefix(entry, name+"="); is {
			return value
		}
	}
	return ""
}

// Addr is the address that it listens on.
func (d *Dispatcher) Addr() string { return strings.TrimPrefix(d.URL, "http://") }

// Start runs it. Extra is more of its environment, this time.
func (d *Dispatcher) Start(extra ...string) error {
	return d.StartAs(exec.Command(d.args[0], d.args[1:]...), extra...)
}

// StartAs is Start with a command that becomes the dispatcher. A command that has
// somewhere for its output to go keeps it.
func (d *Dispatcher) StartAs(cmd *exec.Cmd, extra ...string) error {
	d.HTTP.CloseIdleConnections() // to the one that ended
	d.Log.reset()
	cmd.Env = append(slices.Clone(d.Env), extra...)
	if cmd.Stderr == nil {
		cmd.Stdout, cmd.Stderr = &d.Log, &d.Log
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	d.cmd, d.ended = cmd, ended
	go func() {
		cmd.Wait() // State says how it ended
		close(ended)
	}()
	return nil
}

// AwaitReady waits until functions can be registered and called.
func (d *Dispatcher) AwaitReady(patience time.Duration) error {
	return d.Await(patience, "it is ready", func() bool {
		_, err := d.Ask(http.MethodGet, "/readyz", "")
		return err == nil
	})
}

// Await polls until condition holds. It is an error when the process ends before.
func (d *Dispatcher) Await(patience time.Duration, what string, condition func() bool) error {
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(2 * time.Millisecond) {
		if d.Over() {
			return fmt.Errorf("the dispatcher ended before %s: %s", what, d.Log.Tail())
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %v not yet: %s; the end of the dispatcher's log: %s", patience, what, d.Log.Tail())
		}
	}
	return nil
}

// PID is the process's ID.
func (d *Dispatcher) PID() int { return d.cmd.Process.Pid }

// Process is the process that was started last.
func (d *Dispatcher) Process() *os.Process { return d.cmd.Process }

// Ended is closed when the process has ended.
func (d *Dispatcher) Ended() <-chan struct{} { return d.ended }

// State says how it ended.
func (d *Dispatcher) State() *os.ProcessState { return d.cmd.ProcessState }

// Over reports whether the process has ended, or was never started.
func (d *Dispatcher) Over() bool {
	if d.ended == nil {
		return true
	}
	select {
	case <-d.ended:
		return true
	default:
		return false
	}
}

// Signal sends a signal. One that comes too late is lost.
func (d *Dispatcher) Signal(s syscall.Signal) { _ = d.cmd.Process.Signal(s) }

// Kill ends it as kill -9 does.
func (d *Dispatcher) Kill() {
	d.Signal(syscall.SIGKILL)
	<-d.ended
}

// Terminate has it end as a service manager does, and waits for that. It is an error
// unless it ends well. One that has ended already stays so.
func (d *Dispatcher) Terminate() error {
	if d.Over() {
		return nil
	}
	d.Signal(syscall.SIGTERM)
	return d.AwaitEnd()
}

// AwaitEnd waits until it has ended, and ended well.
func (d *Dispatcher) AwaitEnd() error {
	select {
	case <-d.ended:
	case <-time.After(2 * time.Minute):
		return errors.New("the dispatcher did not end within 2 minutes")
	}
	d.HTTP.CloseIdleConnections()
	if code := d.State().ExitCode(); code != 0 {
		return fmt.Errorf("the dispatcher ended with %d: %s", code, d.Log.Tail())
	}
	return nil
}

// FreeAddr is an address that nobody listened on just now. It is none of those that
// the kernel gives to clients, for it could give it to one before the dispatcher has it.
func FreeAddr() (string, error) {
	for range 1000 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(10000+rand.IntN(20000)))
		if l, err := net.Listen("tcp", addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", errors.New("there is no free port")
}

// Log holds what a process has said since it was started.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *Log) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Reset()
}

// String is all of it.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Tail is its end.
func (l *Log) Tail() string {
	text := l.String()
	return text[max(0, len(text)-1500):]
}

// Trouble is what in it tells of a bug: a panic, or what the race detector found.
func (l *Log) Trouble() string {
	text := l.String()
	for _, word := range []string{"panic", "fatal error:", "DATA RACE"} {
		if i := strings.Index(text, word); i >= 0 {
			return text[max(0, i-100):min(len(text), i+4000)]
		}
	}
	return ""
}

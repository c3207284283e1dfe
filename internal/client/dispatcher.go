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

// Dispatcher is a dispatcher in a process of its own. It can be started again after it
// has ended. Its output goes to Log.
type Dispatcher struct {
	Client
	Env []string // NAME=value; the last one of a name counts
	Log Log

	args  []string // the program first
	cmd   *exec.Cmd
	ended chan struct{}
}

// Prepare returns a dispatcher that has not been started. settings are FOB_NAME=value;
// without FOB_ADDR it gets a port of its own. Settings in our own environment do not
// apply, except the base image.
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

// Setting returns the value that a setting was given.
func (d *Dispatcher) Setting(name string) string {
	for _, entry := range slices.Backward(d.Env) {
		if value, is := strings.CutPrefix(entry, name+"="); is {
			return value
		}
	}
	return ""
}

// Addr returns the address on which it listens.
func (d *Dispatcher) Addr() string { return strings.TrimPrefix(d.URL, "http://") }

// Start starts the process. extra is added to its environment this time.
func (d *Dispatcher) Start(extra ...string) error {
	return d.StartAs(exec.Command(d.args[0], d.args[1:]...), extra...)
}

// StartAs is Start with a command that becomes the dispatcher. If the command has set
// its output, it keeps it.
func (d *Dispatcher) StartAs(cmd *exec.Cmd, extra ...string) error {
	d.HTTP.CloseIdleConnections() // they lead to the process that ended
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
		cmd.Wait() // State has the result
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

// Await polls until condition holds. It fails if the process ends before.
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

// PID returns the process's ID.
func (d *Dispatcher) PID() int { return d.cmd.Process.Pid }

// Process returns the process that was started last.
func (d *Dispatcher) Process() *os.Process { return d.cmd.Process }

// Ended returns a channel that is closed when the process has ended.
func (d *Dispatcher) Ended() <-chan struct{} { return d.ended }

// State returns how the process ended.
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

// Signal sends a signal. It does nothing if the process has ended.
func (d *Dispatcher) Signal(s syscall.Signal) { _ = d.cmd.Process.Signal(s) }

// Kill ends the process as kill -9 does.
func (d *Dispatcher) Kill() {
	d.Signal(syscall.SIGKILL)
	<-d.ended
}

// Terminate ends the process as a service manager does, and waits for its end. It fails
// if the process does not end well. If it has ended already, Terminate does nothing.
func (d *Dispatcher) Terminate() error {
	if d.Over() {
		return nil
	}
	d.Signal(syscall.SIGTERM)
	return d.AwaitEnd()
}

// AwaitEnd waits until the process has ended. It fails if the process does not end
// well.
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

// FreeAddr returns an address on which nobody listened just now. Its port is not one
// that the kernel gives to clients, because a client could get it before the dispatcher
// does.
func FreeAddr() (string, error) {
	for range 1000 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(10000+rand.IntN(20000)))
		if l, err := net.Listen("tcp", addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", errors.New("there is no free port")
}

// Log holds the output of a process since it was started.
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

// String returns all of it.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Tail returns its end.
func (l *Log) Tail() string {
	text := l.String()
	return text[max(0, len(text)-1500):]
}

// Trouble returns what in it hints at a bug: a panic, or a report of the race detector.
func (l *Log) Trouble() string {
	text := l.String()
	for _, word := range []string{"panic", "fatal error:", "DATA RACE"} {
		if i := strings.Index(text, word); i >= 0 {
			return text[max(0, i-100):min(len(text), i+4000)]
		}
	}
	return ""
}

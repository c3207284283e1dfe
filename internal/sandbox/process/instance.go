package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/flockofbirds/fob/internal/sandbox"
)

// The files in a sandbox's folder, beside the socket.
const (
	lockFile     = "lock" // locked as long as the process lives
	pidFile      = "pid"
	recordFile   = "sandbox.json"
	tempFolder   = "tmp"
	secretFolder = "secrets"
)

const (
	codeUnknown = -1 // another process started it, and so gets its status
	codeKilled  = 128 + int(syscall.SIGKILL)

	loopback = "127.0.0.1"

	poll = 2 * time.Millisecond

	// strayTime bounds the wait for processes that a killed driver had started.
	strayTime = time.Second
)

// record is what a later Engine has to know about a sandbox.
type record struct {
	Spec    sandbox.Spec `json:"spec"`
	Created time.Time    `json:"created"`
	Port    int          `json:"port"`
	Token   string       `json:"token"`
	Recipe  string       `json:"recipe"` // how it was made
}

// instance is one process. It implements sandbox.Instance.
type instance struct {
	e     *Engine
	id    string
	own   bool     // we are its parent
	lock  *os.File // of an adopted one: open even if somebody removes the folder; otherwise nil
	ready atomic.Bool
	log   *logReader // nil for an adopted one

	done     chan struct{}
	removing *semaphore.Weighted // a lock; ctx can end the wait for it

	mu     sync.Mutex
	pid    int // also of its process group; 0 until it is started
	record record
	exit   sandbox.Exit
}

func (e *Engine) newInstance(id string, own bool, r record) *instance {
	return &instance{e: e, id: id, own: own, record: r, done: make(chan struct{}), removing: semaphore.NewWeighted(1)}
}

// adopt returns an instance for a sandbox that an earlier Engine started. If it is
// dead, adopt removes its folder and returns nil.
func (e *Engine) adopt(ctx context.Context, id string) (*instance, error) {
	lock, err := os.OpenFile(e.path(id, lockFile), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, e.clear(id)
	}
	if err != nil {
		return nil, err
	}
	alive, err := held(lock)
	if err != nil || !alive {
		lock.Close()
		if err == nil {
			err = e.clear(id)
		}
		return nil, err
	}
	inst := e.newInstance(id, false, record{})
	inst.lock = lock
	if inst.pid, err = e.readPID(ctx, id); err != nil {
		lock.Close()
		return nil, err
	}
	text, err := os.ReadFile(e.path(id, recordFile))
	if err == nil {
		err = json.Unmarshal(text, &inst.record)
	}
	if err != nil {
		// It is of no use without its record.
		e.log.Warn().Err(err).Str("sandbox", id).Msg("a sandbox's record cannot be read: removing the sandbox")
		return nil, inst.Remove(ctx)
	}
	if err := syscall.Kill(-inst.pid, syscall.SIGCONT); err != nil && err != syscall.ESRCH {
		return nil, fmt.Errorf("resuming sandbox %s: %w", id, err)
	}
	inst.ready.Store(true)
	return e.add(inst), nil
}

// readPID reads the process ID that the process writes first.
func (e *Engine) readPID(ctx context.Context, id string) (int, error) {
	waiting, cancel := context.WithTimeout(ctx, strayTime)
	defer cancel()
	for {
		text, err := os.ReadFile(e.path(id, pidFile))
		if err == nil && strings.HasSuffix(string(text), "\n") {
			// 0 and 1 would be terrible mistakes in a kill.
			if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && pid > 1 {
				return pid, nil
			}
		}
		select {
		case <-waiting.Done():
			return 0, fmt.Errorf("sandbox %s runs but its process ID is not in %s: end it by hand and remove %s", id, e.path(id, pidFile), e.path(id))
		case <-time.After(poll):
		}
	}
}

// locked reports whether somebody holds the lock on a file: the process that inherited
// it, or one that it has started. A process ID would not tell, because it may have been
// reused. A file that does not exist is not locked.
func locked(path string) (bool, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	return held(f)
}

// held reports whether somebody else holds the lock on an open file.
func held(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch err {
	case nil: // it was free
		return false, syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
	case syscall.EWOULDBLOCK:
		return true, nil
	}
	return false, err
}

// ID implements sandbox.Instance.
func (i *instance) ID() string { return i.id }

// Done implements sandbox.Instance.
func (i *instance) Done() <-chan struct{} { return i.done }

// Spec implements sandbox.Instance.
func (i *instance) Spec() sandbox.Spec {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.record.Spec
}

// Created implements sandbox.Instance.
func (i *instance) Created() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.record.Created
}

// Addr implements sandbox.Instance.
func (i *instance) Addr() (string, int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return loopback, i.record.Port
}

// Token implements sandbox.Instance.
func (i *instance) Token() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.record.Token
}

// Dial implements sandbox.Instance.
func (i *instance) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", i.e.path(i.id, sandbox.SocketName))
	if err != nil {
		return nil, fmt.Errorf("connecting to sandbox %s: %w", i.id, err)
	}
	return conn, nil
}

// Listen implements sandbox.Instance. Every process of our user can connect.
func (i *instance) Listen(name string) (net.Listener, error) {
	return sandbox.ListenUnix(i.e.path(i.id, name))
}

// Resize implements sandbox.Instance. It only records the limits, because nothing
// enforces them.
func (i *instance) Resize(ctx context.Context, limits sandbox.Limits) error {
	if i.dead() {
		return fmt.Errorf("sandbox %s is dead: its limits cannot be changed", i.id)
	}
	return i.update(func(r *record) { r.Spec.Limits = limits })
}

// Outdated implements sandbox.Instance.
func (i *instance) Outdated(context.Context) (bool, error) {
	command, err := i.e.command(i.Spec().Lang)
	if err != nil {
		return false, err
	}
	today, err := recipe(i.Spec().Lang, command)
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.record.Recipe != today, err
}

// Pause implements sandbox.Instance.
func (i *instance) Pause(context.Context) error { return i.signal(syscall.SIGSTOP, "paused") }

// Resume implements sandbox.Instance.
func (i *instance) Resume(context.Context) error { return i.signal(syscall.SIGCONT, "resumed") }

// signal sends a signal to all processes of the living sandbox.
func (i *instance) signal(signal syscall.Signal, done string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.pid == 0 || i.dead() {
		return fmt.Errorf("sandbox %s is dead: it cannot be %s", i.id, done)
	}
	return syscall.Kill(-i.pid, signal)
}

// update changes the record, in memory and on disk.
func (i *instance) update(change func(*record)) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	next := i.record
	change(&next)
	text, err := json.Marshal(next)
	if err != nil {
		return err
	}
	path := i.e.path(i.id, recordFile)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	i.record = next
	return os.Rename(path+".new", path)
}

func (i *instance) dead() bool {
	select {
	case <-i.done:
		return true
	default:
		return false
	}
}

// check finds out whether the process still lives.
func (i *instance) check() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.pid == 0 || i.dead() {
		return
	}
	code := codeUnknown
	if i.own {
		var status syscall.WaitStatus
		switch pid, err := syscall.Wait4(i.pid, &status, syscall.WNOHANG, nil); {
		case pid == 0 && err == nil || err == syscall.EINTR:
			return
		case err == nil && status.Signaled():
			code = 128 + int(status.Signal())
		case err == nil:
			code = status.ExitStatus()
		}
		// Kill what it had started.
		syscall.Kill(-i.pid, syscall.SIGKILL)
	} else if alive, err := held(i.lock); alive || err != nil {
		return
	}
	if !i.exit.Removed {
		i.exit.Code = code
	}
	close(i.done)
}

// Exit implements sandbox.Instance. The status of a process that an earlier Engine
// started cannot be found out. Code is -1 then.
func (i *instance) Exit(ctx context.Context) (sandbox.Exit, error) {
	select {
	case <-i.done:
	case <-ctx.Done():
		return sandbox.Exit{}, ctx.Err()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.exit, nil
}

// Remove implements sandbox.Instance.
func (i *instance) Remove(ctx context.Context) error {
	if err := i.removing.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("removing sandbox %s: %w", i.id, err)
	}
	defer i.removing.Release(1)
	i.kill()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for !i.dead() {
		if i.check(); i.dead() {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the end of sandbox %s: %w", i.id, ctx.Err())
		case <-tick.C:
		}
	}
	for begin := time.Now(); ; {
		if held, err := locked(i.e.path(i.id, lockFile)); err != nil || !held {
			break
		}
		if time.Since(begin) > strayTime {
			i.e.log.Warn().Str("sandbox", i.id).Msg("a process that a function started in a session of its own is left over")
			break
		}
		<-tick.C
	}
	if i.log != nil {
		i.log.finish()
	}
	if err := i.e.clear(i.id); err != nil {
		return err
	}
	if i.lock != nil {
		i.lock.Close()
	}
	i.e.forget(i.id)
	return nil
}

// kill kills the living process and its process group.
func (i *instance) kill() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.dead() {
		return
	}
	i.exit = sandbox.Exit{Code: codeKilled, Removed: true}
	if i.pid == 0 { // it could not be started
		close(i.done)
		return
	}
	syscall.Kill(-i.pid, syscall.SIGKILL)
}

// clear removes a sandbox's folder, even if a function has taken away permissions in
// it.
func (e *Engine) clear(id string) error {
	err := os.RemoveAll(e.path(id))
	if errors.Is(err, fs.ErrPermission) {
		filepath.WalkDir(e.path(id), func(path string, entry fs.DirEntry, err error) error {
			if entry != nil && entry.IsDir() {
				return os.Chmod(path, 0o700)
			}
			return nil
		})
		err = os.RemoveAll(e.path(id))
	}
	if err != nil {
		return fmt.Errorf("clearing a sandbox's folder: %w", err)
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// fakeActive is the dispatcher that a takeover watches. The test has mu but
// while it sleeps.
type fakeActive struct {
	mu        sync.Mutex
	frozen    bool
	askErr    error // of a question, at once
	pid       int
	holderErr error
	findErr   error
	signalErr error
	killed    []int
	stuck     error
	log       strings.Builder
}

// fakeProcess is one that was pinned.
type fakeProcess struct {
	active *fakeActive
	pid    int
}

func (p fakeProcess) Signal(signal os.Signal) error {
	p.active.mu.Lock()
	defer p.active.mu.Unlock()
	if signal != syscall.SIGKILL {
		panic(signal)
	}
	if p.active.signalErr == nil {
		p.active.killed = append(p.active.killed, p.pid)
	}
	return p.active.signalErr
}

func (p fakeProcess) Release() error { return nil }

// ask is as of a dispatcher that answers only while it is not frozen.
func (f *fakeActive) ask(ctx context.Context) error {
	for {
		f.mu.Lock()
		frozen, err := f.frozen, f.askErr
		f.mu.Unlock()
		if !frozen {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (f *fakeActive) holder() (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pid, f.holderErr
}

func (f *fakeActive) find(pid int) (pinned, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fakeProcess{f, pid}, f.findErr
}

func (f *fakeActive) isStuck(why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stuck = why
}

// Write is of the log.
func (f *fakeActive) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.Write(p)
}

// after lets time pass, and all that comes of it.
func (f *fakeActive) after(d time.Duration) {
	f.mu.Unlock()
	time.Sleep(d)
	synctest.Wait()
	f.mu.Lock()
}

// watched runs a takeover with a patience of 10 s in a bubble of its own.
func watched(t *testing.T, during func(f *fakeActive)) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeActive{pid: 4711}
		takeover := &takeover{patience: 10 * time.Second, log: zerolog.New(f), ask: f.ask, holder: f.holder, find: f.find, stuck: f.isStuck}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		f.mu.Lock()
		go func() { takeover.watch(ctx); close(ended) }()
		during(f)
		f.mu.Unlock()
		cancel()
		<-ended
		if f.stuck != nil {
			t.Errorf("after the wait it is still said that %v", f.stuck)
		}
	})
}

func TestTakeoverEndsTheFrozen(t *testing.T) {
	for name, f := range map[string]*fakeActive{
		"no answer":      {frozen: true},
		"a full backlog": {askErr: syscall.EAGAIN},
	} {
		t.Run(name, func(t *testing.T) {
			watched(t, func(active *fakeActive) {
				active.after(time.Minute)
				active.frozen, active.askErr = f.frozen, f.askErr
				active.after(9900 * time.Millisecond)
				if len(active.killed) > 0 {
					t.Error("it was ended too soon")
				}
				active.after(1200 * time.Millisecond)
				if fmt.Sprint(active.killed) != "[4711]" && fmt.Sprint(active.killed) != "[4711 4711]" {
					t.Errorf("ended were %v", active.killed)
				}
				// The kernel is slow to end it.
				active.after(5 * time.Minute)
				if active.stuck == nil || !strings.Contains(active.stuck.Error(), "does not end") {
					t.Errorf("it is said that %v", active.stuck)
				}
				if n := strings.Count(active.log.String(), "was ended with SIGKILL"); n != 1 {
					t.Errorf("the log says %d times that it was ended", n)
				}
			})
		})
	}
}

func TestTakeoverSparesTheLiving(t *testing.T) {
	for name, during := range map[string]func(f *fakeActive){
		"one that answers": func(f *fakeActive) { f.after(10 * time.Minute) },
		"one that is frozen for a while, again and again": func(f *fakeActive) {
			for range 20 {
				f.frozen = true
				f.after(9900 * time.Millisecond)
				f.frozen = false
				f.after(600 * time.Millisecond)
			}
		},
		"one that listens late": func(f *fakeActive) {
			f.askErr = syscall.ECONNREFUSED
			f.after(9900 * time.Millisecond)
			f.askErr = nil
			f.after(time.Minute)
		},
		"each of many": func(f *fakeActive) {
			f.askErr = syscall.ECONNREFUSED
			for range 20 {
				f.pid++
				f.after(9900 * time.Millisecond)
			}
		},
		"this one itself": func(f *fakeActive) {
			f.askErr, f.pid = syscall.ECONNREFUSED, os.Getpid()
			f.after(10 * time.Minute)
		},
	} {
		t.Run(name, func(t *testing.T) {
			watched(t, func(f *fakeActive) {
				during(f)
				if len(f.killed) > 0 || f.stuck != nil || f.log.Len() > 0 {
					t.Errorf("ended were %v; %v; %s", f.killed, f.stuck, f.log.String())
				}
			})
		})
	}
}

// A holder that cannot be ended is told of, at most once a minute, until it
// gives a sign.
func TestTakeoverIsStuck(t *testing.T) {
	for name, c := range map[string]struct {
		change func(f *fakeActive)
		says   string
	}{
		"another PID namespace": {func(f *fakeActive) { f.pid = 0 }, "another PID namespace"},
		"no list of locks":      {func(f *fakeActive) { f.holderErr = os.ErrNotExist }, "file does not exist"},
		"an old kernel":         {func(f *fakeActive) { f.findErr = os.ErrNoHandle }, "Linux 5.4"},
		"another user":          {func(f *fakeActive) { f.signalErr = os.ErrPermission }, "4711 cannot be ended; end it by hand, or run both dispatchers as one user"},
		"a command":             {func(f *fakeActive) { f.frozen, f.askErr = false, syscall.ECONNREFUSED }, "4711 has the lock and does not listen"},
		"a 0.1.0":               {func(f *fakeActive) { f.frozen, f.askErr = false, os.ErrNotExist }, "a dispatcher older than 0.2.0"},
		"our own want":          {func(f *fakeActive) { f.frozen, f.askErr = false, unaskedError{syscall.EMFILE} }, "cannot be asked"},
	} {
		t.Run(name, func(t *testing.T) {
			watched(t, func(f *fakeActive) {
				f.frozen = true
				c.change(f)
				f.after(10 * time.Minute)
				if len(f.killed) > 0 || f.stuck == nil || !strings.Contains(f.stuck.Error(), c.says) {
					t.Errorf("ended were %v, and it is said that %v", f.killed, f.stuck)
				}
				if n := strings.Count(f.log.String(), "\n"); n < 9 || n > 10 || !strings.Contains(f.log.String(), c.says) {
					t.Errorf("the log has %d lines in 10 minutes: %s", n, f.log.String())
				}
				f.frozen, f.askErr = false, nil
				f.after(time.Second)
				if f.stuck != nil {
					t.Errorf("it answers, and is still said that %v", f.stuck)
				}
			})
		})
	}
	watched(t, func(f *fakeActive) { // dead, and nobody has the lock for a moment
		f.frozen, f.findErr = true, os.ErrProcessDone
		f.after(10 * time.Minute)
		if len(f.killed) > 0 || f.stuck != nil {
			t.Errorf("ended were %v; %v", f.killed, f.stuck)
		}
	})
}

// The holder of a lock is found, pinned, and ended, and then it is no other.
func TestLockHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wants := func(want int) {
		t.Helper()
		if got, err := lockHolder(path); err != nil || got != want {
			t.Errorf("the holder is %d (%v), want %d", got, err, want)
		}
	}
	wants(0)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	wants(os.Getpid())
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	other := exec.Command("python3", "-c", "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); time.sleep(600)", path)
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the other process has the lock", func() bool {
		pid, err := lockHolder(path)
		return err == nil && pid == other.Process.Pid
	})
	p, err := findProcess(other.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	other.Wait()
	wants(0)
	if err := p.Signal(syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("ending it again: %v", err)
	}
	if err := p.Release(); err != nil {
		t.Error(err)
	}
	if _, err := findProcess(other.Process.Pid); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("finding it again: %v", err)
	}
	if _, err := lockHolder(path + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the holder of no file: %v", err)
	}
}

// Silence is the other side's: whatever keeps us from asking is not.
func TestAskControl(t *testing.T) {
	data := shortDir(t)
	ask, done := askControl(data)
	defer done()
	unasked := unaskedError{}
	if err := ask(t.Context()); err == nil || errors.As(err, &unasked) {
		t.Errorf("without a socket: %v", err)
	}
	listener, err := listenControl(data)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := ask(ctx); err == nil || errors.As(err, &unasked) { // the kernel accepts, and nobody answers
		t.Errorf("without an answer: %v", err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func(conn net.Conn) {
				defer conn.Close()
				for {
					if _, err := conn.Read(make([]byte, 4096)); err != nil {
						return
					}
					conn.Write([]byte("HTTP/1.1 503 No\r\nContent-Length: 1\r\n\r\nx"))
				}
			}(conn)
		}
	}()
	for range 3 {
		if err := ask(t.Context()); err != nil {
			t.Errorf("with an answer: %v", err)
		}
	}
	listener.Close()
	done()
	if err := ask(t.Context()); err == nil || errors.As(err, &unasked) {
		t.Errorf("with a dead socket: %v", err)
	}
	path := filepath.Join(data, controlName)
	if err := errors.Join(os.Remove(path), os.Symlink(controlName, path)); err != nil {
		t.Fatal(err)
	}
	if err := ask(t.Context()); !errors.As(err, &unasked) { // ELOOP
		t.Errorf("with a path that leads nowhere: %v", err)
	}
}

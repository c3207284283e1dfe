package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/faas"
)

const (
	// minTakeoverAfter is the shortest patience: a busy machine keeps processes
	// waiting too.
	minTakeoverAfter = time.Second

	// patienceSteps is how many steps the patience has. In each the active
	// dispatcher is looked at once.
	patienceSteps = 20

	// complainEvery is how often the log is told the same at most.
	complainEvery = time.Minute
)

// takeover ends the dispatcher that has the lock of a data folder once it is
// frozen, on behalf of a standby that waits for that lock. A stopped process
// keeps the lock, and would write on as soon as it is continued; one that is
// killed does neither, whoever continues it.
type takeover struct {
	patience time.Duration
	log      zerolog.Logger

	ask    func(context.Context) error   // nil is a sign of life; may wait long
	holder func() (pid int, err error)   // who has the lock; 0 is nobody that is seen
	find   func(pid int) (pinned, error) // os.ErrProcessDone when there is none
	stuck  func(why error)               // told why a silent one is not ended, and nil when that is over

	// Of the present silence.
	silence   time.Duration
	looked    bool // for who has the lock
	pid       int
	process   pinned // pid's, unless findErr
	findErr   error
	killed    bool
	complains bool

	complained time.Time // when the log last heard of it
}

// pinned is a process that no other can be taken for, as *os.Process is when it
// has a handle.
type pinned interface {
	Signal(os.Signal) error
	Release() error
}

// unaskedError says that the active dispatcher could not even be asked, for a
// reason of our own.
type unaskedError struct{ error }

func (e unaskedError) Unwrap() error { return e.error }

// watch looks at the active dispatcher until ctx ends.
//
// Silence is counted in steps that this process was awake for, and each counts
// once however long it took: nothing follows from a clock that jumps, a machine
// that was suspended, or processors that we did not get ourselves. A question
// stays open until it is answered, so that one answer in all the patience is
// enough.
func (t *takeover) watch(ctx context.Context) {
	step := t.patience / patienceSteps
	answer := make(chan error, 1)
	ask := func() { answer <- t.ask(ctx) }
	go ask()
	for {
		select {
		case <-ctx.Done():
			<-answer
			t.forget()
			return
		case <-time.After(step):
		}
		select {
		case err := <-answer:
			if err == nil {
				t.forget()
			} else if unasked := (unaskedError{}); errors.As(err, &unasked) {
				t.complain(fmt.Errorf("it cannot be asked whether it lives: %w", err))
			} else {
				t.missed(step, err)
			}
			go ask()
		default:
			t.missed(step, nil)
		}
	}
}

// missed counts a step without a sign of life, and ends the holder after the
// last one that it is given, unless what came of the question, answer, is that it
// does not listen: then it is no dispatcher that serves. The silence is one
// process's: it begins anew when another has the lock.
func (t *takeover) missed(step time.Duration, answer error) {
	pid, err := t.holder()
	if err == nil && pid == os.Getpid() { // the wait is over
		t.forget()
		return
	}
	if err == nil && (pid != t.pid || !t.looked) {
		t.forget()
		t.pid, t.looked = pid, true
		if pid != 0 {
			t.process, t.findErr = t.find(pid)
		}
		if errors.Is(t.findErr, os.ErrProcessDone) {
			t.forget()
		}
		return
	}
	t.silence = min(t.silence, 2*t.patience) + step
	switch {
	case t.silence < t.patience:
	case err != nil:
		t.complain(err)
	case pid == 0:
		t.complain(errors.New("the process that has the lock is not seen from here: it is in another PID namespace, such as a container's; end it there, or run both dispatchers in one"))
	case t.findErr != nil:
		t.complain(fmt.Errorf("it cannot be pinned, which needs Linux 5.4; end it by hand: %w", t.findErr))
	case errors.Is(answer, fs.ErrNotExist) || errors.Is(answer, syscall.ECONNREFUSED):
		t.complain(fmt.Errorf("process %d has the lock and does not listen on %s: it is a command on the data folder, or a dispatcher before 0.2.0, and is let be; end it by hand if it should not go on", t.pid, controlName))
	default:
		t.end()
	}
}

// end kills the holder, and sees to it that it has gone.
func (t *takeover) end() {
	err := t.process.Signal(syscall.SIGKILL)
	switch {
	case errors.Is(err, os.ErrProcessDone):
		t.forget()
	case err != nil:
		t.complain(fmt.Errorf("process %d cannot be ended; end it by hand, or run both dispatchers as one user: %w", t.pid, err))
	case !t.killed:
		t.killed = true
		t.log.Warn().Int("pid", t.pid).Dur("takeover_after", t.patience).
			Msg("the active dispatcher gave no sign of life and was ended with SIGKILL: this one takes over")
	case t.silence >= 2*t.patience:
		t.complain(fmt.Errorf("process %d was sent SIGKILL and does not end: it waits for a disk, or its control group is frozen", t.pid))
	}
}

// complain says why a silent dispatcher is not ended.
func (t *takeover) complain(why error) {
	t.complains = true
	t.stuck(why)
	if now := time.Now(); t.complained.IsZero() || now.Sub(t.complained) >= complainEvery {
		t.complained = now
		t.log.Error().Err(why).Msg("the active dispatcher gives no sign of life, and this one cannot take over")
	}
}

// forget ends a silence.
func (t *takeover) forget() {
	if t.process != nil {
		t.process.Release() // fails for one that is released only
	}
	if t.complains {
		t.stuck(nil)
	}
	t.silence, t.looked, t.pid, t.process, t.findErr, t.killed, t.complains = 0, false, 0, nil, nil, false, false
}

// askControl returns what asks the dispatcher of a data folder over its control
// socket whether it lives. A frozen one's kernel still accepts, so it is the
// answer that counts. The connection is kept: one that has run out of file
// descriptors lives, too.
func askControl(data string) (ask func(context.Context) error, done func()) {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := dialControl(ctx, data)
		for _, silent := range []error{nil, fs.ErrNotExist, syscall.ECONNREFUSED, syscall.EAGAIN} { // not there; dead; backlog full
			if errors.Is(err, silent) {
				return conn, err
			}
		}
		return nil, unaskedError{err}
	}}
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://dispatcher/healthz", nil)
		if err != nil {
			return unaskedError{err}
		}
		answer, err := transport.RoundTrip(request)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, answer.Body)
		return errors.Join(err, answer.Body.Close())
	}, transport.CloseIdleConnections
}

// watchActive has a frozen active dispatcher ended while this one is on
// standby. The caller calls stop once the lock is had, or not waited for.
func (p *Program) watchActive(ctx context.Context) (stop func()) {
	ask, done := askControl(p.cfg.Data)
	t := &takeover{
		patience: p.cfg.TakeoverAfter,
		log:      p.log,
		ask:      ask,
		holder:   func() (int, error) { return lockHolder(filepath.Join(p.cfg.Data, databaseName)) },
		find:     findProcess,
		stuck:    p.onStandby,
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		t.watch(ctx)
	}()
	return func() {
		cancel()
		<-ended
		done()
	}
}

// onStandby has /readyz answer that this dispatcher waits, and, unless stuck is
// nil, that it waits in vain.
func (p *Program) onStandby(stuck error) {
	detail := "this dispatcher is on standby: another one serves"
	if stuck != nil {
		detail = "this dispatcher is on standby: the active one gives no sign of life and cannot be ended from here; the log says why, and what to do"
	}
	p.api.Unready(faas.Errorf(faas.CodeStandby, "%s", detail).After(time.Second))
}

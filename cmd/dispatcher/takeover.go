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
	// minTakeoverAfter is the shortest patience. On a busy machine a healthy process
	// may have to wait, too.
	minTakeoverAfter = time.Second

	// patienceSteps is how many steps the patience is divided into. The active
	// dispatcher is asked once in each.
	patienceSteps = 20

	// complainEvery is the shortest time between two log lines that say the same.
	complainEvery = time.Minute
)

// takeover ends a frozen dispatcher on behalf of a standby that waits for its lock. A
// stopped process keeps the lock of the data folder, and would go on writing as soon as
// somebody continues it. A killed one does neither.
type takeover struct {
	patience time.Duration
	log      zerolog.Logger

	ask    func(context.Context) error   // nil is a sign of life; may take long
	holder func() (pid int, err error)   // who holds the lock; 0 if no holder can be seen
	find   func(pid int) (pinned, error) // os.ErrProcessDone if there is no such process
	stuck  func(why error)               // called with why a silent dispatcher is not ended, and with nil when that is over

	// About the present silence.
	silence   time.Duration
	looked    bool // the holder of the lock was looked up
	pid       int
	process   pinned // the process pid, unless findErr
	findErr   error
	killed    bool
	complains bool

	complained time.Time // when the last complaint was logged
}

// pinned is a process whose ID cannot be taken over by another one. An *os.Process with
// a handle is one.
type pinned interface {
	Signal(os.Signal) error
	Release() error
}

// unaskedError says that the active dispatcher could not be asked, for a reason on our
// side.
type unaskedError struct{ error }

func (e unaskedError) Unwrap() error { return e.error }

// watch asks the active dispatcher for a sign of life until ctx ends.
//
// It measures silence in steps during which this process was awake. Each step counts
// once, however long it took: a clock that jumps, a suspended machine, or a lack of
// processor time on our side prove nothing. A question stays open until it is answered,
// so one answer within the patience is enough.
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

// missed counts a step without a sign of life, and ends the holder of the lock after
// the last step. It does not end a holder when answer says that nobody listens: that is
// no dispatcher that serves. The count starts again when another process holds the
// lock.
func (t *takeover) missed(step time.Duration, answer error) {
	pid, err := t.holder()
	if err == nil && pid == os.Getpid() { // we hold the lock ourselves: the wait is over
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
		t.complain(errors.New("the process that has the lock cannot be seen from here: it is in another PID namespace, such as a container's; end it there, or run both dispatchers in one"))
	case t.findErr != nil:
		t.complain(fmt.Errorf("it cannot be pinned, which needs Linux 5.4; end it by hand: %w", t.findErr))
	case errors.Is(answer, fs.ErrNotExist) || errors.Is(answer, syscall.ECONNREFUSED):
		t.complain(fmt.Errorf("process %d has the lock and does not listen on %s: it is a command on the data folder, or a dispatcher older than 0.2.0, and is left alone; end it by hand if it should not go on", t.pid, controlName))
	default:
		t.end()
	}
}

// end kills the holder and waits until it is gone.
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

// complain logs why a silent dispatcher is not ended.
func (t *takeover) complain(why error) {
	t.complains = true
	t.stuck(why)
	if now := time.Now(); t.complained.IsZero() || now.Sub(t.complained) >= complainEvery {
		t.complained = now
		t.log.Error().Err(why).Msg("the active dispatcher gives no sign of life, and this one cannot take over")
	}
}

// forget starts a new count, because there was a sign of life.
func (t *takeover) forget() {
	if t.process != nil {
		t.process.Release() // fails only if it was released already
	}
	if t.complains {
		t.stuck(nil)
	}
	t.silence, t.looked, t.pid, t.process, t.findErr, t.killed, t.complains = 0, false, 0, nil, nil, false, false
}

// askControl returns a function that asks the dispatcher of a data folder over its
// control socket whether it lives. The kernel accepts connections for a frozen process,
// so only an answer counts. The connection is kept: a dispatcher that has run out of
// file descriptors lives, too.
func askControl(data string) (ask func(context.Context) error, done func()) {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := dialControl(ctx, data)
		for _, silent := range []error{nil, fs.ErrNotExist, syscall.ECONNREFUSED, syscall.EAGAIN} { // no socket; dead; backlog full
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

// watchActive watches for a frozen active dispatcher while this one is on standby, and
// ends it. The caller calls stop when it holds the lock or no longer waits for it.
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

// onStandby has /readyz answer that this dispatcher waits, and why it waits in vain if
// stuck is not nil.
func (p *Program) onStandby(stuck error) {
	detail := "this dispatcher is on standby: another one serves"
	if stuck != nil {
		detail = "this dispatcher is on standby: the active one gives no sign of life and cannot be ended from here; the log says why, and what to do"
	}
	p.api.Unready(faas.Errorf(faas.CodeStandby, "%s", detail).After(time.Second))
}

package dispatch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

const (
	// maxLogConns is how many connections for its log a sandbox may have at a time. Each
	// process of a function may have one.
	maxLogConns = 16

	// logPace is how many bytes of log are read of a sandbox in a second, and logBurst how
	// many at once. Each line counts as lineCost bytes more than it has. What is too much
	// stays in the sandbox, where the driver drops it and counts it.
	logPace  = 4 << 20
	logBurst = 8 << 20
	lineCost = 400

	// logLinger is how long the log of a sandbox is still read that is being removed. It
	// ends sooner, with the sandbox.
	logLinger = 30 * time.Second

	// logFarewell is how long logs are still read when the dispatcher closes.
	logFarewell = 50 * time.Millisecond

	// A line was written that long before it came at most, or after it, for clocks differ
	// a little.
	oldestLine, latestLine = 10 * time.Minute, time.Second
)

// openLog begins to take the log of a bird, before the code is loaded. Without it the
// bird works all the same.
func (b *bird) openLog(h *hatchery, v *faas.Version) {
	if h.cfg.Logs == nil {
		return
	}
	log := h.log.With().Str("sandbox", b.inst.ID()).Str("function", v.FunctionID).Int("version", v.Number).Logger()
	listener, err := b.inst.Listen(sandbox.LogName)
	if err != nil {
		log.Warn().Err(err).Msg("the lines that a sandbox's function prints are not kept")
		return
	}
	l := &logListener{
		lifetime: h.lifetime, listener: listener, to: h.cfg.Logs, log: log,
		from:  faas.LogLine{Function: v.FunctionID, Version: v.Number, Sandbox: b.inst.ID()},
		conns: map[net.Conn]struct{}{}, pace: pace{left: logBurst, since: time.Now()},
	}
	if !h.background(l.run) {
		listener.Close()
		return
	}
	b.log = l
}

// logListener takes the lines that come from a sandbox. It trusts the sandbox for their
// texts alone.
type logListener struct {
	*lifetime
	listener net.Listener
	to       faas.LogWriter
	log      zerolog.Logger
	from     faas.LogLine // what all lines have
	told     sync.Once    // that the sandbox sends what is malformed

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
	pace   pace

	came    time.Time // when the last line came
	written time.Time // the latest time at which a line was written

	failures     []failure // that are not in the log yet
	failureBytes int       // what they cost
	missed       int       // lines of failures that had no room
}

// run accepts connections until close.
func (l *logListener) run() {
	defer context.AfterFunc(l.ctx, l.close)()
	for pause := 5 * time.Millisecond; ; {
		conn, err := l.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // too many open files, for example
			if !l.sleep(pause) {
				return
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		if !l.admit(conn) || !l.background(func() { l.read(conn) }) {
			conn.Close()
		}
	}
}

// admit reports whether a connection may be one more.
func (l *logListener) admit(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.conns) == maxLogConns {
		return false
	}
	l.conns[conn] = struct{}{}
	return true
}

// close ends the listening. What the sandbox has sent is still read.
func (l *logListener) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	linger := logLinger
	if l.ctx.Err() != nil {
		linger = logFarewell
	}
	for conn := range l.conns {
		conn.SetReadDeadline(time.Now().Add(linger))
	}
	if !l.closed {
		l.closed = true
		l.listener.Close()
		l.pace.left = logBurst // what it has sent already is read at once
	}
}

// read reads the lines that come on a connection, until it ends.
func (l *logListener) read(conn net.Conn) {
	defer func() {
		conn.Close()
		l.mu.Lock()
		delete(l.conns, conn)
		l.mu.Unlock()
	}()
	defer context.AfterFunc(l.ctx, l.close)() // once the listening has ended, nobody else would
	for in := sandbox.NewLogReader(conn); ; {
		f, err := in.Next()
		if errors.Is(err, sandbox.ErrBadFrame) {
			l.told.Do(func() {
				l.log.Warn().Err(err).Msg("something in a sandbox sends what is no log: its connection is closed")
			})
		}
		if err != nil {
			return
		}
		line, now := l.from, time.Now()
		line.Call, line.Level, line.More, line.Time, line.Text = f.Call, f.Level, f.More, f.Time, f.Text
		if f.Dropped > 0 {
			line.Level, line.Dropped = "warn", f.Dropped
			line.Text = fmt.Appendf(nil, "%d lines are missing here: the function wrote more than was taken", f.Dropped)
		}
		if line.Time.Before(now.Add(-oldestLine)) || line.Time.After(now.Add(latestLine)) {
			line.Time = now
		}
		l.to.Write(line)
		l.mu.Lock()
		l.came = now
		if line.Time.After(l.written) {
			l.written = line.Time
		}
		l.mu.Unlock()
		l.spend(len(f.Text) + lineCost)
	}
}

// spend waits until as much may be taken as was.
func (l *logListener) spend(bytes int) {
	l.mu.Lock()
	wait := l.pace.spend(bytes, time.Now())
	l.mu.Unlock()
	time.Sleep(wait) // some milliseconds at most
}

// pace says how fast bytes may be read.
type pace struct {
	left  float64 // bytes that may be read at once; negative if too many were
	since time.Time
}

// spend takes bytes that were read, and returns how long to wait before the next.
func (p *pace) spend(bytes int, now time.Time) time.Duration {
	p.left = min(p.left+max(now.Sub(p.since).Seconds(), 0)*logPace, logBurst) - float64(bytes)
	p.since = now
	if p.left >= 0 {
		return 0
	}
	return time.Duration(-p.left / logPace * float64(time.Second))
}

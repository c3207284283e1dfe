package sandbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// maxLogID is how long a call's ID may be in a frame, as in faas.LogID.
const maxLogID = 64

// LogFrame is a frame of a function's log: a line or a piece of one, or how many lines
// the driver dropped.
type LogFrame struct {
	Call    string // as Request.ID has it; empty for a line that belongs to no call
	Level   string // one of LogLevels
	More    bool   // the line goes on in a later frame
	Time    time.Time
	Text    []byte // any bytes; valid until the next frame is read
	Dropped int    // if it is not 0, only Time is set beside it
}

// LogLevels are the levels of lines.
var LogLevels = []string{"stdout", "stderr", "debug", "info", "warn", "error"}

const (
	maxLogText   = 64 << 10
	maxFrameHead = 128
)

// ErrBadFrame is wrapped by errors that say that a frame is malformed.
var ErrBadFrame = errors.New("malformed frame of the log")

// LogReader reads the frames that come from a sandbox. Strangers' code can write them,
// so it trusts nothing in them.
type LogReader struct {
	in   *bufio.Reader
	text []byte // reused
	call string // of the last frame, because many have the same
}

// NewLogReader returns a reader of in.
func NewLogReader(in io.Reader) *LogReader {
	return &LogReader{in: bufio.NewReaderSize(in, 4<<10)}
}

// Buffered returns how many bytes have been read that are of no frame yet.
func (r *LogReader) Buffered() int { return r.in.Buffered() }

// Next returns the next frame. After an error there are no more.
func (r *LogReader) Next() (f LogFrame, err error) {
	head, err := r.in.ReadSlice('\n')
	switch {
	case err == io.EOF && len(head) > 0:
		return f, io.ErrUnexpectedEOF
	case err != nil && err != bufio.ErrBufferFull:
		return f, err
	case err != nil || len(head) > maxFrameHead:
		return f, fmt.Errorf("%w: its first line is too long", ErrBadFrame)
	}
	var parts [4][]byte
	rest, more := head[:len(head)-1], true
	for i := range parts {
		if !more {
			return f, fmt.Errorf("%w: it begins with %q", ErrBadFrame, head)
		}
		parts[i], rest, more = bytes.Cut(rest, []byte(" "))
	}
	at, ok := number(parts[2])
	length, fits := number(parts[3])
	dropped := string(parts[1]) == "dropped"
	if !ok || !fits || more || length > maxLogText || !r.setCall(&f, parts[0]) || !dropped && !setLevel(&f, parts[1]) || dropped && f.Call != "" {
		return LogFrame{}, fmt.Errorf("%w: it begins with %q", ErrBadFrame, head)
	}
	f.Time = time.UnixMicro(at)
	if cap(r.text) < int(length) {
		r.text = make([]byte, length)
	}
	f.Text = r.text[:length]
	if _, err := io.ReadFull(r.in, f.Text); err != nil {
		return LogFrame{}, fmt.Errorf("reading a frame: %w", err)
	}
	if length > 4<<10 {
		r.text = nil // a connection that is idle must not keep it
	}
	if dropped {
		n, ok := number(f.Text)
		if f.Text = nil; !ok || n == 0 {
			return LogFrame{}, fmt.Errorf("%w: it does not say how many lines were dropped", ErrBadFrame)
		}
		f.Dropped = int(n)
	}
	return f, nil
}

// setCall sets a frame's call, and reports whether it can be one.
func (r *LogReader) setCall(f *LogFrame, call []byte) bool {
	if string(call) == "-" {
		return true
	}
	if string(call) == r.call && r.call != "" {
		f.Call = r.call
		return true
	}
	if len(call) == 0 || len(call) > maxLogID {
		return false
	}
	for _, c := range call {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	r.call = string(call)
	f.Call = r.call
	return true
}

func setLevel(f *LogFrame, level []byte) bool {
	level, f.More = bytes.CutSuffix(level, []byte("+"))
	for _, known := range LogLevels {
		if string(level) == known {
			f.Level = known
			return true
		}
	}
	return false
}

// number reads a decimal number of at most 18 digits, without a sign.
func number(text []byte) (int64, bool) {
	if len(text) == 0 || len(text) > 18 || text[0] < '0' || text[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseInt(string(text), 10, 64)
	return n, err == nil
}

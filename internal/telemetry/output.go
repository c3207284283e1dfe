package telemetry

import (
	"io"
	"os"
	"sync"
	"time"
)

const (
	// maxPending is how many bytes wait for a log's reader at most.
	maxPending = 1 << 20

	// lastWords is how long Close waits for the log's reader.
	lastWords = time.Second
)

// Output writes a log to a file that may not take it: a pipe whose reader does not
// read or has gone, a terminal that is stopped or closed. Who logs never waits, and
// never fails: lines wait here, and those that find no room are dropped and
// counted. It is safe for concurrent use.
type Output struct {
	file *os.File
	wake chan struct{}
	done chan struct{} // closed when the last line is written

	mu      sync.Mutex
	pending []byte
	lines   int // in pending
	missing int // dropped lines that the log does not tell of yet
	dropped int // in all
	closed  bool
	tell    func(missing int) // writes a line about them
}

// NewOutput returns an Output to a file. Close must be called.
func NewOutput(file *os.File) *Output {
	o := &Output{file: file, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go o.run()
	return o
}

// Fd is the file's.
func (o *Output) Fd() uintptr { return o.file.Fd() }

// Dropped is how many lines were dropped so far.
func (o *Output) Dropped() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dropped
}

// Write implements io.Writer. What it is given is one line.
func (o *Output) Write(line []byte) (int, error) {
	o.mu.Lock()
	if o.closed || len(o.pending)+len(line) > maxPending {
		o.drop(1)
	} else {
		o.pending = append(o.pending, line...)
		o.lines++
	}
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default: // it is awake
	}
	return len(line), nil
}

// drop counts lines. The caller has the lock.
func (o *Output) drop(lines int) {
	o.missing += lines
	o.dropped += lines
}

// run writes what is pending until Close.
func (o *Output) run() {
	defer close(o.done)
	var spare []byte
	for range o.wake {
		o.mu.Lock()
		batch, lines, closed := o.pending, o.lines, o.closed
		o.pending, o.lines = spare[:0], 0
		o.mu.Unlock()
		spare = batch
		if len(batch) > 0 {
			o.write(batch, lines)
		}
		if closed {
			return
		}
	}
}

// write writes lines, and has the log tell of those that are missing before them,
// unless it still cannot be written.
func (o *Output) write(batch []byte, lines int) {
	_, err := o.file.Write(batch)
	o.mu.Lock()
	if err != nil { // also EPIPE and EIO: there may be a reader again
		o.drop(lines)
	}
	missing, tell := o.missing, o.tell
	if err != nil || tell == nil {
		missing = 0
	}
	o.missing -= missing
	o.mu.Unlock()
	if missing > 0 {
		tell(missing)
	}
}

// Close writes what is pending, if the file takes it soon, and ends.
func (o *Output) Close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
	select {
	case <-o.done:
	case <-time.After(lastWords):
	}
}

// destination is where a log goes.
type destination interface {
	io.Writer
	Fd() uintptr
}

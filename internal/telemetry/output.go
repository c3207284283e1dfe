package telemetry

import (
	"io"
	"os"
	"sync"
	"time"
)

const (
	// maxPending is how many bytes may wait for the log's reader.
	maxPending = 1 << 20

	// lastWords is how long Close waits for the log's reader.
	lastWords = time.Second
)

// Output writes a log to a file that may block or fail: a pipe whose reader is slow or
// gone, or a terminal that is stopped or closed. Logging itself never blocks and never
// fails. Lines wait in memory; those that find no room are dropped and counted. Its
// methods may be called concurrently.
type Output struct {
	file *os.File
	wake chan struct{}
	done chan struct{} // closed when the last line has been written

	mu      sync.Mutex
	pending []byte
	lines   int // in pending
	missing int // dropped lines that the log has not reported yet
	dropped int // altogether
	closed  bool
	tell    func(missing int) // writes a line that reports them
}

// NewOutput returns an Output that writes to file. The caller must call Close.
func NewOutput(file *os.File) *Output {
	o := &Output{file: file, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go o.run()
	return o
}

// Fd returns the file's descriptor.
func (o *Output) Fd() uintptr { return o.file.Fd() }

// Dropped returns how many lines have been dropped.
func (o *Output) Dropped() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dropped
}

// Write implements io.Writer. line must be one line.
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
	default: // run has been woken already
	}
	return len(line), nil
}

// drop counts dropped lines. The caller holds mu.
func (o *Output) drop(lines int) {
	o.missing += lines
	o.dropped += lines
}

// run writes pending lines until Close.
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

// write writes lines. If that succeeds, it has the log report the lines that are missing.
// If it fails, these lines are missing, too.
func (o *Output) write(batch []byte, lines int) {
	_, err := o.file.Write(batch)
	o.mu.Lock()
	if err != nil { // even EPIPE and EIO may pass: there may be a new reader
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

// Close writes what is pending, if the file takes it soon, and stops.
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

// destination is what a log can be written to.
type destination interface {
	io.Writer
	Fd() uintptr
}

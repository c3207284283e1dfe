package process

import (
	"bufio"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// How much of a driver's output is kept.
const (
	lineLimit = 8 << 10 // bytes of a line that are logged
	tailLines = 20      // lines that an error quotes
)

// logReader logs what a driver prints, and remembers the last lines.
type logReader struct {
	log zerolog.Logger
	end chan struct{}

	mu   sync.Mutex
	pipe *os.File // our end; nil before open
	last []string
}

func newLogReader(log zerolog.Logger) *logReader {
	return &logReader{log: log, end: make(chan struct{})}
}

// open begins to read, and returns the end to write to.
func (r *logReader) open() (*os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.pipe = read
	r.mu.Unlock()
	go r.read(read)
	return write, nil
}

func (r *logReader) read(pipe *os.File) {
	defer close(r.end)
	lines := bufio.NewReaderSize(pipe, lineLimit)
	for rest := false; ; {
		line, more, err := lines.ReadLine()
		if err != nil {
			return
		}
		if !rest { // drop the rest of a line that is too long
			r.line(string(line), more)
		}
		rest = more
	}
}

func (r *logReader) line(line string, cut bool) {
	if cut {
		line += "…"
	}
	r.log.Info().Msg(line) // nothing else shows it while one tries things out
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.last) == tailLines {
		r.last = slices.Delete(r.last, 0, 1)
	}
	r.last = append(r.last, line)
}

// drain waits until everything is read that a dead driver has printed. It does not wait
// long, because a process that the driver started may keep the pipe open.
func (r *logReader) drain() {
	select {
	case <-r.end:
	case <-time.After(strayTime):
	}
}

// finish reads the rest of a dead driver's output and stops.
func (r *logReader) finish() {
	r.mu.Lock()
	opened := r.pipe != nil
	r.mu.Unlock()
	if opened {
		r.drain()
		r.stop()
	}
}

// stop ends the reading.
func (r *logReader) stop() {
	r.mu.Lock()
	pipe := r.pipe
	r.mu.Unlock()
	if pipe != nil {
		pipe.Close()
		<-r.end
	}
}

// tail returns the last lines, joined to one.
func (r *logReader) tail() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.last, " | ")
}

package main

import (
	"bufio"
	"encoding/json"
	"os"
	"sync"
	"time"
)

// history records what happens in a row as lines of JSON: what was asked, answered,
// killed and found.
type history struct {
	mu    sync.Mutex
	begun time.Time
	file  *os.File
	out   *bufio.Writer
}

func newHistory(path string) (*history, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &history{begun: time.Now(), file: file, out: bufio.NewWriter(file)}, nil
}

// note adds a line: an event, and names with values.
func (h *history) note(event string, pairs ...any) {
	line := map[string]any{"ms": time.Since(h.begun).Milliseconds(), "event": event}
	for i := 0; i+1 < len(pairs); i += 2 {
		if err, is := pairs[i+1].(error); is {
			pairs[i+1] = err.Error()
		}
		line[pairs[i].(string)] = pairs[i+1]
	}
	text, err := json.Marshal(line)
	if err != nil {
		panic(err) // cannot happen with our own values
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.out.Write(append(text, '\n'))
}

// close writes the rest and returns the file's name. If keep is false, it removes the
// file.
func (h *history) close(keep bool) string {
	h.out.Flush()
	h.file.Close()
	if !keep {
		os.Remove(h.file.Name())
		return ""
	}
	return h.file.Name()
}

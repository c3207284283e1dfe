package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// logSource serves GET /api/logs as the contract has it, with lines that a test adds.
type logSource struct {
	mu        sync.Mutex
	lines     []string // as JSON
	followers map[chan string]bool
	asked     []string // queries
}

// add adds a line, whose members but for its number are JSON.
func (s *logSource) add(members string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	line := fmt.Sprintf(`{"number": %d, "function": "f", "version": 1, "sandbox": "s", "time": "2026-01-31T12:00:00Z", %s}`, len(s.lines)+1, members)
	s.lines = append(s.lines, line)
	for f := range s.followers {
		f <- line
	}
}

// tell sends those who follow what is no line.
func (s *logSource) tell(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.followers {
		f <- what
	}
}

// cut ends all streams, and adds a line before anybody can come back.
func (s *logSource) cut(members string) {
	s.mu.Lock()
	for f := range s.followers {
		close(f)
		delete(s.followers, f)
	}
	s.mu.Unlock()
	s.add(members)
}

func (s *logSource) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	s.mu.Lock()
	s.asked = append(s.asked, r.URL.RawQuery+" "+r.Header.Get("Accept"))
	if query.Get("follow") != "true" {
		defer s.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"logs": [%s], "next": null}`, strings.Join(s.lines, ", "))
		return
	}
	mine := make(chan string, 1000)
	s.followers[mine] = true
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.(http.Flusher).Flush()
	for {
		select {
		case line, ok := <-mine:
			if !ok {
				return
			}
			io.WriteString(w, line+"\n")
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			s.mu.Lock()
			delete(s.followers, mine)
			s.mu.Unlock()
			return
		}
	}
}

// TestPageLog watches lines arrive: each once and in order, whatever is in them, and also
// those that came while the stream was broken.
func TestPageLog(t *testing.T) {
	t.Parallel()
	p := boot(t)
	p.do("PUT", "/api/functions/shop", "def callme(): return 1")
	source := &logSource{followers: make(map[chan string]bool)}
	front := inFront(t, p, map[string]http.HandlerFunc{"/api/logs": source.ServeHTTP})
	source.add(`"call": "call-1", "level": "stdout", "text": "the first line"`)
	v := newTabs(t).openView(front.URL + "/#/f/shop/logs")
	v.shows("the first line")
	for _, members := range []string{
		`"call": "call-1", "level": "warn", "json": {"order": 7}`,
		`"call": "", "level": "stderr", "text": "\u001b[31m<b>red</b>\u0000"`,
		`"call": "call-2", "level": "error", "text": "a long line", "more": true`,
		`"level": "warn", "dropped": 12`,
	} {
		source.add(members)
	}
	v.shows("12 lines dropped here")
	source.cut(`"call": "call-3", "level": "info", "text": "while nobody listened"`)
	v.shows("while nobody listened")
	source.add(`"call": "call-3", "level": "info", "text": "and after that"`)
	v.shows("and after that")
	source.tell(`{"omitted": 3}`)
	v.shows("3 lines came too fast to be shown here")
	var got []string
	json.Unmarshal([]byte(v.run("[...document.querySelectorAll('.logline:not(.faint)')].map((l) => l.className.slice(8) + ' ' + l.querySelector('.text').textContent)")), &got)
	want := []string{
		"stdout the first line", `warn {"order":7}`, "stderr ␛[31m<b>red</b>␀", "error a long line…",
		"warn 12 lines dropped here", "info while nobody listened", "info and after that",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the lines are\n%q, want\n%q", got, want)
	}
	v.write("input[type=search]", "order:7")
	v.until("the search is asked for", "document.querySelector('.logline')")
	v.run("(() => { const s = document.querySelector('.tools select'); s.value = 'warn'; s.dispatchEvent(new Event('change', {bubbles: true})); })()")
	eventually(t, time.Minute, "text and level are asked for, in both ways", func() bool {
		source.mu.Lock()
		defer source.mu.Unlock()
		all := strings.Join(source.asked, "\n")
		return strings.Contains(all, "text=order%3A7&level=warn&limit=500 application/json") && strings.Contains(all, "text=order%3A7&level=warn&follow=true application/x-ndjson")
	})
	v.click(".logline a", ":")
	v.until("the line leads to its call", "location.hash === '#/call/call-1'")
	v.well(strings.TrimPrefix(front.URL, "http://"))
}

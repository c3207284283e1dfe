package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/flockofbirds/fob/internal/client"
)

// steady calls a function at a steady rate and counts the answers.
type steady struct {
	d    *dispatcher
	path string
	quit chan struct{}
	all  sync.WaitGroup

	mu      sync.Mutex
	answers map[string]int
}

// steadily begins to call. Each answer that is not fine is counted by its text.
func (d *dispatcher) steadily(path string, every time.Duration, fine func(a client.Answer, err error) bool) *steady {
	s := &steady{d: d, path: path, quit: make(chan struct{}), answers: map[string]int{}}
	s.all.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-s.quit:
				return
			case <-ticker.C:
			}
			s.all.Go(func() {
				a, err := d.Do("GET", path, "")
				outcome := "fine"
				if !fine(a, err) {
					outcome = fmt.Sprintf("%d %.300s %v", a.Status, a.Body, err)
				}
				s.mu.Lock()
				s.answers[outcome]++
				s.mu.Unlock()
			})
		}
	})
	return s
}

// stop ends the calls, records what was not fine as violations, and returns how many
// there were.
func (s *steady) stop(what string) int {
	close(s.quit)
	s.all.Wait()
	total := 0
	for outcome, n := range s.answers {
		total += n
		if outcome != "fine" {
			s.d.t.violate("%s: %d calls of %s: %s", what, n, s.path, outcome)
		}
	}
	return total
}

// ok reports whether a call succeeded.
func ok(a client.Answer, err error) bool { return err == nil && a.Status == 200 }

// refused reports whether the answer is a 503 with a Retry-After.
func refused(a client.Answer, err error) bool {
	return err == nil && a.Status == 503 && a.Header.Get("Retry-After") != ""
}

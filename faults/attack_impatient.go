package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// impatient runs two loops that call a public function and wait only 200 µs. That may
// occupy the function's slots for a while, but must not cost it a sandbox.
func impatient(s *siege) error {
	const sandboxes = 2
	path := fmt.Sprintf("/api/functions/awaited?public=true&max_scale=%d&queue=4&timeout=5s", sandboxes)
	if _, err := s.d.Ask("PUT", path, "import time\ndef callme():\n    time.sleep(0.02)\n    return 'done'"); err != nil {
		return err
	}
	before, err := s.coldStarts()
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 2}}
	defer client.CloseIdleConnections()
	var late, other atomic.Int64
	end := time.Now().Add(s.duration())
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for time.Now().Before(end) {
				switch problem, err := callAwaited(client, s.d.URL, "200us"); {
				case err != nil:
					other.Add(1)
					s.violate("impatient: %v", err)
					return
				case problem.Status == http.StatusGatewayTimeout:
					late.Add(1)
					if problem.Retryable || !strings.Contains(problem.Detail, "Fob-Timeout") {
						s.violate("impatient: a call is answered %+v", problem)
					}
				default:
					other.Add(1)
				}
			}
		})
	}
	all.Wait()
	after, err := s.coldStarts()
	if err != nil {
		return err
	}
	s.history.note("impatient", "late", late.Load(), "other answers", other.Load(), "sandboxes started", after-before)
	if late.Load() == 0 {
		return fmt.Errorf("of %d calls none was late", other.Load())
	}
	// The function may have got its second sandbox by now, and the pool another blank
	// one.
	if n := after - before; n > sandboxes {
		s.violate("impatient: %d calls had %v sandboxes started", late.Load(), n)
	}
	if problem, err := callAwaited(client, s.d.URL, "10s"); err != nil || problem.Status != http.StatusOK {
		s.violate("impatient: afterwards a call is answered %+v, %v", problem, err)
	}
	err = s.d.Delete("awaited")
	return err
}

// told is the outcome of a call, as far as it matters here.
type told struct {
	Status    int
	Detail    string
	Retryable bool
}

func callAwaited(client *http.Client, url, wait string) (told, error) {
	request, err := http.NewRequest(http.MethodGet, url+"/api/call/awaited", nil)
	if err != nil {
		return told{}, err
	}
	request.Header.Set("Fob-Timeout", wait)
	response, err := client.Do(request)
	if err != nil {
		return told{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return told{}, err
	}
	t := told{}
	err = json.Unmarshal(body, &t)
	t.Status = response.StatusCode
	return t, err
}

// coldStarts returns how many sandboxes came to take calls.
func (s *siege) coldStarts() (total float64, err error) {
	values, err := s.d.Metrics()
	for name, value := range values {
		if strings.HasPrefix(name, "fob_cold_starts_total{") {
			total += value
		}
	}
	return total, err
}

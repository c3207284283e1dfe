package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// documents has clients send JSON documents with 480,000 unknown members to every route
// that reads a document. Each must be refused at the first member.
func documents(s *siege) error {
	var all strings.Builder
	all.WriteString("{")
	for i := range 480_000 {
		fmt.Fprintf(&all, `"a%d":0,`, i)
	}
	all.WriteString(`"z":0}`)
	document := all.String()
	to := []struct{ method, path string }{
		{"PUT", "/api/functions/neighbour"}, {"PATCH", "/api/functions/neighbour"}, {"POST", "/api/gen"}, {"POST", "/api/tokens"},
	}
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: len(to)}}
	defer client.CloseIdleConnections()
	before, err := processorTime(s.d.PID())
	if err != nil {
		return err
	}
	var refused, busy atomic.Int64
	end := time.Now().Add(s.duration())
	var clients sync.WaitGroup
	for _, way := range to {
		clients.Go(func() {
			for time.Now().Before(end) {
				request, err := http.NewRequest(way.method, s.d.URL+way.path, strings.NewReader(document))
				if err != nil {
					s.violate("documents: %v", err)
					return
				}
				response, err := client.Do(request)
				if err != nil { // it was refused while it was still being sent
					busy.Add(1)
					continue
				}
				body, _ := io.ReadAll(io.LimitReader(response.Body, 1000))
				response.Body.Close()
				switch {
				case response.StatusCode == http.StatusBadRequest && strings.Contains(string(body), `a0`):
					refused.Add(1)
				case response.StatusCode == http.StatusServiceUnavailable: // the byte budget is used up
					busy.Add(1)
				default:
					s.violate("documents: %s %s is answered %s %s", way.method, way.path, response.Status, body)
				}
			}
		})
	}
	clients.Wait()
	after, err := processorTime(s.d.PID())
	if err != nil {
		return err
	}
	n := refused.Load()
	if n == 0 {
		return fmt.Errorf("no document was refused, and %d not taken", busy.Load())
	}
	// This includes reading 5 MB, and answering the neighbour.
	each := (after - before) / time.Duration(n)
	s.figure("documents of 480,000 members: %d refused with %.0f ms of processor each", n, millis(each))
	if each > 500*time.Millisecond {
		s.violate("documents: a refusal takes %v of processor", each)
	}
	return nil
}

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// largest is the largest body that is held, in bytes.
const largest = 6 << 20

// bodies has 200 clients send the largest body to a function, again and again. Each
// answer must be 200 or one of the allowed refusals.
func bodies(settings string, allowed ...int) func(s *siege) error {
	return func(s *siege) error {
		if err := s.d.Put("taker?public=true&memory=256MB&concurrency=4&"+settings, "def callme(request): return len(request.body)"); err != nil {
			return err
		}
		const clients = 200
		body := strings.Repeat("x", largest)
		client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
		defer client.CloseIdleConnections()
		var answers [600]atomic.Int64
		var broken atomic.Int64
		end := time.Now().Add(s.duration())
		var all sync.WaitGroup
		for range clients {
			all.Go(func() {
				for time.Now().Before(end) {
					response, err := client.Post(s.d.URL+"/api/call/taker", "application/octet-stream", strings.NewReader(body))
					if err != nil { // the connection was closed while it was still sending
						broken.Add(1)
						continue
					}
					io.Copy(io.Discard, response.Body)
					response.Body.Close()
					answers[response.StatusCode].Add(1)
				}
			})
		}
		all.Wait()
		told := ""
		for status := range answers {
			n := answers[status].Load()
			if n == 0 {
				continue
			}
			told += fmt.Sprintf(" %d × %d", n, status)
			fine := false
			for _, other := range allowed {
				fine = fine || status == other
			}
			if !fine {
				s.violate("bodies %s: %d are answered %d", settings, n, status)
			}
		}
		s.history.note("bodies", "settings", settings, "answers", told, "broken", broken.Load())
		if told == "" {
			return errors.New("nobody was answered")
		}
		return nil
	}
}

// halfBodies opens 2,000 connections that send half of a body of 64 KB and then wait.
func halfBodies(s *siege) error {
	if err := s.d.Put("taker?public=true", "def callme(request): return len(request.body)"); err != nil {
		return err
	}
	const connections, length = 2000, 64 << 10
	head := fmt.Sprintf("POST /api/call/taker HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n", length)
	half := head + strings.Repeat("x", length/2)
	var open []net.Conn
	defer func() {
		for _, nc := range open {
			nc.Close()
		}
	}()
	for range connections {
		nc, err := net.Dial("tcp", strings.TrimPrefix(s.d.URL, "http://"))
		if err != nil {
			return err
		}
		open = append(open, nc)
		nc.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(nc, half); err != nil {
			s.history.note("half body", "error", err.Error()) // it was refused
		}
	}
	time.Sleep(s.duration() / 4)
	return nil
}

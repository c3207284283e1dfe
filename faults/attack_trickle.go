package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// trickle has functions with a tenth of a processor stream single bytes.
func trickle(s *siege) error {
	code := "def callme():\n    while True:\n        yield b'x'"
	if err := s.d.Put("trickle?public=true&cpus=0.1&max_scale=1&timeout=60s", code); err != nil {
		return err
	}
	response, err := http.Get(s.d.URL + "/api/call/trickle")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	enough := time.AfterFunc(s.duration(), func() { response.Body.Close() })
	defer enough.Stop()
	n, _ := io.Copy(io.Discard, response.Body)
	if n < 100 {
		return fmt.Errorf("only %d bytes came", n)
	}
	s.figure("a stream of single bytes: %d of them", n)
	return nil
}

// trickleIn has a client stream a body in single bytes.
func trickleIn(s *siege) error {
	code := "def callme(request):\n    return sum(len(piece) for piece in request.stream())"
	if err := s.d.Put("sink?public=true&max_scale=1&timeout=60s", code); err != nil {
		return err
	}
	nc, err := net.Dial("tcp", strings.TrimPrefix(s.d.URL, "http://"))
	if err != nil {
		return err
	}
	defer nc.Close()
	// It is longer than what is held, so it streams.
	first := largest + 1
	fmt.Fprintf(nc, "POST /api/call/sink HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", first, strings.Repeat("x", first))
	nc.(*net.TCPConn).SetNoDelay(true)
	n := 0
	for end := time.Now().Add(s.duration()); time.Now().Before(end); n++ {
		if _, err := io.WriteString(nc, "1\r\nx\r\n"); err != nil {
			return fmt.Errorf("after %d single bytes: %w", n, err)
		}
		time.Sleep(20 * time.Microsecond)
	}
	s.figure("a body of single bytes: %d of them", n)
	return nil
}

package dispatch

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// duplex is an end of a connection that can be shut down on one side, as a
// net.Pipe cannot.
type duplex struct {
	net.Conn // that it reads from
	out      net.Conn
}

func newDuplex() (a, b *duplex) {
	aIn, bOut := net.Pipe()
	bIn, aOut := net.Pipe()
	return &duplex{aIn, aOut}, &duplex{bIn, bOut}
}

func (d *duplex) Write(p []byte) (int, error) { return d.out.Write(p) }
func (d *duplex) CloseWrite() error           { return d.out.Close() }

func (d *duplex) Close() error {
	d.out.Close()
	return d.Conn.Close()
}

func (d *duplex) SetDeadline(t time.Time) error {
	d.out.SetDeadline(t)
	return d.Conn.SetDeadline(t)
}

func (d *duplex) SetWriteDeadline(t time.Time) error { return d.out.SetWriteDeadline(t) }

// streams returns what answers a request by a stream, or nil.
func (s *fakeSandbox) streams(r *http.Request) func(*fakeSandbox, net.Conn, *http.Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method != http.MethodPost {
		return nil
	}
	stream := s.e.streams[s.loaded.Code]
	if stream != nil {
		s.served++
	}
	return stream
}

const (
	streamHead = "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
	lastChunk  = "0\r\n\r\n"
)

func chunk(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }

// broken ends a stream with a trailer.
func broken(code string) string { return "0\r\nFob-Error: " + code + "\r\n\r\n" }

// generator is a function that streams what a test sends it: chunks, and how it
// ends. When its caller takes no more it ends as soon as the gate lets it.
func generator(items <-chan string) func(*fakeSandbox, net.Conn, *http.Request) bool {
	return func(s *fakeSandbox, c net.Conn, _ *http.Request) bool {
		gone := make(chan struct{})
		go func() {
			io.Copy(io.Discard, c)
			close(gone)
		}()
		io.WriteString(c, streamHead)
		for {
			select {
			case item := <-items:
				if _, err := io.WriteString(c, item); err != nil || item[0] == '0' {
					return false
				}
			case <-gone:
				select {
				case <-s.e.gate:
					io.WriteString(c, broken("cancelled"))
				case <-s.done:
				}
				return false
			case <-s.done:
				return false
			}
		}
	}
}

// echo is a function that streams its body back.
func echo(_ *fakeSandbox, c net.Conn, r *http.Request) bool {
	io.WriteString(c, streamHead)
	for buffer := make([]byte, 4096); ; {
		n, err := r.Body.Read(buffer)
		if n > 0 {
			if _, err := io.WriteString(c, chunk(string(buffer[:n]))); err != nil {
				return false
			}
		}
		switch err {
		case nil:
		case io.EOF:
			io.WriteString(c, lastChunk)
			return false
		default:
			io.WriteString(c, broken("raised"))
			return false
		}
	}
}

// takesRequest has code load as a function that takes the request.
func (e *fakeEngine) takesRequest(code string) {
	e.loads[code] = func(s *fakeSandbox) string {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.state.TakesRequest = true
		return ""
	}
}

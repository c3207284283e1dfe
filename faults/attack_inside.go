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

// wireTaker is Python code that answers its own call past the driver, with the driver's
// token.
const wireTaker = `
import sys, time

def answer(status, rest):
    frame = sys._getframe()
    while frame is not None:
        for value in frame.f_locals.values():
            if type(value).__name__ == "Connection":
                value.sock.setblocking(True)
                value.sock.sendall(b"HTTP/1.1 " + status + b"\r\n" + getattr(value, "mark", b"") + rest)
                return
        frame = frame.f_back
    raise RuntimeError("there is no connection")
`

// fromInside has clients call a function whose code attacks the dispatcher. An answer,
// if there is one, must not be longer than longest bytes.
func fromInside(name, code, settings string, clients, longest int) func(s *siege) error {
	return func(s *siege) error {
		path := "/api/functions/" + name + "?public=true&max_scale=4&timeout=2s&" + settings
		if _, err := s.d.Ask("PUT", path, wireTaker+code); err != nil {
			return err
		}
		client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
		defer client.CloseIdleConnections()
		var answered, broken, most atomic.Int64
		end := time.Now().Add(s.duration())
		var all sync.WaitGroup
		for range clients {
			all.Go(func() {
				for time.Now().Before(end) {
					response, err := client.Get(s.d.URL + "/api/call/" + name)
					if err != nil {
						broken.Add(1)
						continue
					}
					n, _ := io.Copy(io.Discard, response.Body)
					response.Body.Close()
					answered.Add(1)
					for {
						m := most.Load()
						if n <= m || most.CompareAndSwap(m, n) {
							break
						}
					}
				}
			})
		}
		all.Wait()
		s.history.note("from inside", "function", name, "answered", answered.Load(), "broken", broken.Load(), "longest", most.Load())
		if answered.Load() == 0 {
			return fmt.Errorf("nobody was answered, and %d connections broke", broken.Load())
		}
		if n := most.Load(); n > int64(longest) {
			s.violate("%s: an answer has %d bytes", name, n)
		}
		err := s.d.Delete(name)
		return err
	}
}

// oneByteShort sends the largest answer except its last byte, and waits.
var oneByteShort = fmt.Sprintf(`
def callme():
    answer(b"200 OK", b"Content-Length: %[1]d\r\n\r\n" + bytes(%[1]d - 1))
    time.sleep(60)
`, largest)

// manyFields sends a head of 6,500 fields, and waits.
const manyFields = `
def callme():
    answer(b"200 OK", b"".join(b"X%d: y\r\n" % n for n in range(6500)) + b"Content-Length: 1\r\n\r\n")
    time.sleep(60)
`

// longHead sends as long a head as is taken, and waits.
const longHead = `
def callme():
    answer(b"200 OK", b"".join(b"X-%d: %b\r\n" % (n, b"y" * 600) for n in range(95)) + b"Content-Length: 1\r\n\r\n")
    time.sleep(60)
`

// hostileError sends an error document that is not text.
var hostileError = fmt.Sprintf(`
def callme():
    document = b'{"error": {"code": "raised", "message": "%%b"}}' %% (b"\xff" * (%d - 100))
    answer(b"500 Error", b"Fob-Error: raised\r\nContent-Length: %%d\r\n\r\n%%b" %% (len(document), document))
    time.sleep(60)
`, largest)

// hostileErrors sends such documents that are just short enough to be read.
var hostileErrors = strings.Replace(hostileError, fmt.Sprint(largest), fmt.Sprint(128<<10), 1)

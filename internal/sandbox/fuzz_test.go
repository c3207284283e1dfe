package sandbox

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"testing"
)

// FuzzAnswer: whatever comes out of a sandbox is an answer within bounds that
// net/http reads the same way, or an error, and never both.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nContent-Type: application/json\r\n\r\n{\"result\": 1}", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 599\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nFob-Error: raised\r\n\r\n",
		"HTTP/1.1 500 x\r\nFob-Error: raised\r\nContent-Length: 41\r\n\r\n{\"error\":{\"code\":\"raised\",\"message\":\"x\"}}", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
		"HTTP/1.1 200 OK\nContent-Length: 1\nX-A:b\n\nx", "HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.0 200 OK\r\n\r\nx", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nConnection: close\r\nSet-Cookie: a\r\nset-cookie: b\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	const maxAnswer = 1 << 10
	f.Fuzz(func(t *testing.T, raw []byte) {
		if line, rest, ok := bytes.Cut(raw, []byte("\n")); ok {
			raw = slices.Concat(line, []byte("\nFob-Call: 0123456789abcdef\r\n"), rest)
		}
		nc, other := net.Pipe()
		defer nc.Close()
		defer other.Close()
		w := &wire{nc: nc, in: bufio.NewReader(bytes.NewReader(raw)), token: newToken(0x123456789abcdef)}
		response, err := w.receive(maxAnswer)
		if (response == nil) != (err != nil) {
			t.Fatalf("%+v with %v", response, err)
		}
		if err != nil {
			if e, ok := errors.AsType[*DriverError](err); ok && (e.Code == "" || e.Status < 200 || e.Status > 599) {
				t.Fatalf("the driver's error is %+v", e)
			}
			return
		}
		if response.Status < 200 || response.Status > 599 || int64(len(response.Body)) > maxAnswer || response.Body != nil && response.Stream != nil {
			t.Fatalf("got %+v", response)
		}
		size := len(response.ContentType)
		for name, values := range response.Header {
			for _, value := range values {
				if size += len(name) + len(value); !validName([]byte(name)) || !validValue([]byte(value)) || !EndToEnd(name) || textproto.CanonicalMIMEHeaderKey(name) != name {
					t.Fatalf("it has the header %q: %q", name, value)
				}
			}
		}
		if size > maxHeader || !validValue([]byte(response.ContentType)) {
			t.Fatalf("it has %d bytes of header, and the type %q", size, response.ContentType)
		}
		body := response.Body
		if response.Stream != nil {
			response.Stream.conn = &Conn{}
			if body, err = io.ReadAll(response.Stream); err != nil {
				return // it broke off, and says so
			}
		}
		theirs, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw)), &http.Request{Method: "POST"})
		if err != nil {
			t.Fatalf("taken as %d %q, and net/http says %v", response.Status, body, err)
		}
		want, err := io.ReadAll(theirs.Body)
		if err != nil && strings.Contains(err.Error(), "trailer") {
			err = nil // which it reads no further than it wants to; the body is whole by then
		}
		if err != nil || theirs.StatusCode != response.Status || !bytes.Equal(body, want) {
			t.Fatalf("taken as %d %q, and for net/http it is %d %q, %v", response.Status, body, theirs.StatusCode, want, err)
		}
	})
}

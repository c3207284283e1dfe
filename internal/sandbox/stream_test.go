package sandbox_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/sandbox"
)

// stream makes a call that is answered by a stream.
func stream(t *testing.T, c *sandbox.Conn, deadline time.Time, r *sandbox.Request) *sandbox.Stream {
	t.Helper()
	response, err := c.Call(deadline, r)
	if err != nil || response.Stream == nil {
		t.Fatalf("got %+v, %v, and no stream", response, err)
	}
	return response.Stream
}

func chunk(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }

const lastChunk = "0\r\n\r\n"

// TestStreamComesAsItIsSent: each chunk can be read before the next one is made.
func TestStreamComesAsItIsSent(t *testing.T) {
	next := make(chan string)
	c, d := connect(t, func(nc net.Conn, _ *http.Request, _ []byte) bool {
		io.WriteString(nc, strings.Replace(chunked, "\r\n\r\n", "\r\nContent-Type: text/event-stream\r\nX-A: b\r\n\r\n", 1))
		for text := <-next; text != ""; text = <-next {
			io.WriteString(nc, chunk(text))
		}
		_, err := io.WriteString(nc, lastChunk)
		return err == nil
	})
	for range 2 {
		response, err := c.Call(soon(), &sandbox.Request{})
		if err != nil || response.Status != 200 || response.ContentType != "text/event-stream" || response.Header.Get("X-A") != "b" || response.Body != nil {
			t.Fatalf("got %+v, %v", response, err)
		}
		buffer := make([]byte, 100)
		for i := range 3 {
			text := fmt.Sprintf("data: %d\n\n", i)
			next <- text
			if n, err := response.Stream.Read(buffer); err != nil || string(buffer[:n]) != text {
				t.Fatalf("read %q, %v; want %q", buffer[:n], err, text)
			}
		}
		next <- ""
		for range 2 {
			if n, err := response.Stream.Read(buffer); n > 0 || err != io.EOF {
				t.Errorf("the end: read %q, %v", buffer[:n], err)
			}
		}
		response.Stream.Close()
	}
	if n := d.accepted.Load(); n != 2 { // no call follows a stream
		t.Errorf("2 streams took %d connections", n)
	}
}

// TestStreamOfAnyLength: the limit is one of what is held whole.
func TestStreamOfAnyLength(t *testing.T) {
	const chunks = 5
	c, _ := connect(t, func(nc net.Conn, _ *http.Request, _ []byte) bool {
		io.WriteString(nc, chunked)
		for range chunks {
			io.WriteString(nc, chunk(strings.Repeat("x", maxAnswer)))
		}
		_, err := io.WriteString(nc, lastChunk)
		return err == nil
	})
	if n, err := io.Copy(io.Discard, stream(t, c, soon(), &sandbox.Request{})); n != chunks*maxAnswer || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// TestStreamThatFails: what the driver says behind the last chunk is how it
// ended.
func TestStreamThatFails(t *testing.T) {
	c, d := connect(t, raw(chunked+chunk("abc")+"0\r\nfob-error: raised\r\n\r\n"))
	for range 2 {
		body, err := io.ReadAll(stream(t, c, soon(), &sandbox.Request{}))
		if e, ok := errors.AsType[*sandbox.DriverError](err); !ok || e.Code != "raised" || string(body) != "abc" {
			t.Errorf("read %q, %v", body, err)
		}
	}
	if n := d.accepted.Load(); n != 2 { // no call follows a stream
		t.Errorf("2 streams took %d connections", n)
	}
}

func TestStreamCancel(t *testing.T) {
	c, d := connect(t, func(nc net.Conn, _ *http.Request, _ []byte) bool {
		io.WriteString(nc, chunked+chunk("a"))
		io.Copy(io.Discard, nc) // until the caller shuts its side down
		io.WriteString(nc, chunk("b")+"0\r\nFob-Error: cancelled\r\n\r\n")
		return false
	})
	s := stream(t, c, soon(), &sandbox.Request{})
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	s.Cancel()
	rest, err := io.ReadAll(s)
	if e, ok := errors.AsType[*sandbox.DriverError](err); !ok || e.Code != "cancelled" || string(rest) != "b" {
		t.Errorf("read %q, %v", rest, err)
	}
	s.Cancel() // again, and late
	eventually(t, "the connection is closed", func() bool { return d.open.Load() == 0 })
}

// TestStreamClose: closing ends a Read that waits.
func TestStreamClose(t *testing.T) {
	c, d := connect(t, func(nc net.Conn, _ *http.Request, _ []byte) bool {
		io.WriteString(nc, chunked+chunk("a"))
		io.Copy(io.Discard, nc)
		return false
	})
	s := stream(t, c, soon(), &sandbox.Request{})
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	go s.Close()
	if n, err := s.Read(make([]byte, 1)); n > 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	s.Close()
	s.Cancel()
	eventually(t, "the connection is closed", func() bool { return d.open.Load() == 0 })
}

// bodyOf makes a reader that can be closed of one that does not wait.
func bodyOf(r io.Reader) io.ReadCloser { return io.NopCloser(r) }

// echo sends a body back as it comes.
func echo(nc net.Conn, r *http.Request, _ []byte) bool {
	io.WriteString(nc, chunked)
	buffer := make([]byte, 8<<10)
	for {
		n, err := r.Body.Read(buffer)
		if n > 0 {
			if _, err := io.WriteString(nc, chunk(string(buffer[:n]))); err != nil {
				return false
			}
		}
		if err == io.EOF {
			_, err := io.WriteString(nc, lastChunk)
			return err == nil
		}
		if err != nil {
			return false
		}
	}
}

// TestEcho: a body goes in while the answer comes out, on one connection.
func TestEcho(t *testing.T) {
	c, _ := connect(t, echo)
	for _, size := range []int{0, 1, 100_000, 20 << 20} {
		want := bytes.Repeat([]byte("0123456789abcdef\x00\xff\r\n"), size/20+1)[:size]
		begin := min(size, 70_000)
		s := stream(t, c, soon(), &sandbox.Request{Method: "POST", Target: "/", Body: want[:begin], Stream: bodyOf(bytes.NewReader(want[begin:]))})
		got, err := io.ReadAll(s)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes came back as %d, %v", size, len(got), err)
		}
	}
}

func TestStreamedRequestSays(t *testing.T) {
	got := make(chan *http.Request, 1)
	c, _ := connect(t, func(nc net.Conn, r *http.Request, _ []byte) bool {
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != "begin and end" {
			t.Errorf("the driver saw %q, %v", body, err)
		}
		got <- r
		_, err = io.WriteString(nc, answer(200, "", "x"))
		return err == nil
	})
	r, err := c.Call(soon(), &sandbox.Request{Method: "POST", Target: "/t", Header: http.Header{"Content-Length": {"9"}}, Body: []byte("begin "), Stream: bodyOf(strings.NewReader("and end"))})
	if err != nil || string(r.Body) != "x" {
		t.Fatalf("got %+v, %v", r, err)
	}
	if r := <-got; r.Header.Get("Fob-Stream") != "request" || r.Header.Get("Fob-Target") != "/t" || r.ContentLength != -1 {
		t.Errorf("the driver saw %+v", r)
	}
}

// endless is a body that goes on until it is closed.
type endless struct {
	waits  bool // for what never comes
	closed chan struct{}
	once   sync.Once
}

func (e *endless) Read(p []byte) (int, error) {
	if e.waits {
		<-e.closed
	}
	select {
	case <-e.closed:
		return 0, net.ErrClosed
	default:
		return len(p), nil
	}
}

func (e *endless) Close() error {
	e.once.Do(func() { close(e.closed) })
	return nil
}

// TestAnswerBeforeTheBody: a driver may answer without having read all, or
// anything. The connection is not used again.
func TestAnswerBeforeTheBody(t *testing.T) {
	for _, waits := range []bool{false, true} {
		for what, early := range map[string]string{
			"whole":    answer(403, "Connection: close\r\n", "no"),
			"careless": answer(403, "", "no"),
			"a stream": strings.Replace(chunked, "200", "403", 1) + chunk("no") + lastChunk,
		} {
			c, d := connect(t, raw(early))
			for range 2 {
				body := &endless{waits: waits, closed: make(chan struct{})}
				r, text, err := callWhole(c, soon(), &sandbox.Request{Method: "POST", Stream: body})
				if err != nil || r.Status != 403 || string(text) != "no" {
					t.Errorf("%s: got %+v, %q, %v", what, r, text, err)
				}
				<-body.closed // or the sending would go on
			}
			if n := d.accepted.Load(); n != 2 {
				t.Errorf("%s: 2 calls took %d connections", what, n)
			}
		}
	}
}

// TestBodyThatBreaksOff: half a body does not look whole to the driver, nor does
// what it makes of it to the caller.
func TestBodyThatBreaksOff(t *testing.T) {
	lost := errors.New("lost")
	for what, reply := range map[string]reply{
		"the driver answers": func(nc net.Conn, r *http.Request, _ []byte) bool {
			if body, err := io.ReadAll(r.Body); err != io.ErrUnexpectedEOF || string(body) != "half" {
				t.Errorf("the driver saw %q, %v", body, err)
			}
			io.WriteString(nc, answer(200, "", "x"))
			return false
		},
		"with an error": func(nc net.Conn, r *http.Request, _ []byte) bool {
			io.Copy(io.Discard, r.Body)
			io.WriteString(nc, answer(500, "Fob-Error: raised\r\n", `{"error": {"code": "raised"}}`))
			return false
		},
		"with a stream": func(nc net.Conn, r *http.Request, _ []byte) bool {
			io.WriteString(nc, chunked)
			io.Copy(io.Discard, r.Body)
			io.WriteString(nc, chunk("x")+"0\r\nFob-Error: cancelled\r\n\r\n")
			return false
		},
	} {
		c, d := connect(t, reply)
		_, _, err := callWhole(c, soon(), &sandbox.Request{Method: "POST", Body: []byte("ha"), Stream: bodyOf(io.MultiReader(strings.NewReader("lf"), failing{lost}))})
		if !errors.Is(err, sandbox.ErrBody) || !errors.Is(err, lost) {
			t.Errorf("%s: got %v", what, err)
		}
		eventually(t, "the connection is closed", func() bool { return d.open.Load() == 0 })
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestDeadlineOfAStream: it holds until the last byte, in both directions.
func TestDeadlineOfAStream(t *testing.T) {
	silent := func(nc net.Conn, _ *http.Request, _ []byte) bool {
		io.WriteString(nc, chunked+chunk("a"))
		buffer := make([]byte, 4<<10)
		for { // reads slowly, until the caller closes
			if _, err := nc.Read(buffer); err != nil {
				return false
			}
			time.Sleep(time.Millisecond)
		}
	}
	for _, waits := range []bool{false, true} {
		c, d := connect(t, silent)
		body := &endless{waits: waits, closed: make(chan struct{})}
		s := stream(t, c, time.Now().Add(100*time.Millisecond), &sandbox.Request{Method: "POST", Stream: body})
		if text, err := io.ReadAll(s); !errors.Is(err, os.ErrDeadlineExceeded) || string(text) != "a" {
			t.Errorf("read %q, %v", text, err)
		}
		<-body.closed
		eventually(t, "the connection is closed", func() bool { return d.open.Load() == 0 })
	}
}

// TestNothingSentOfAStream: such a call can be made again with the same body.
func TestNothingSentOfAStream(t *testing.T) {
	c, _ := connect(t, echo)
	body := bodyOf(strings.NewReader("b"))
	_, err := c.Call(time.Unix(1, 0), &sandbox.Request{Body: []byte("a"), Stream: body})
	if !errors.Is(err, sandbox.ErrNotSent) {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(stream(t, c, soon(), &sandbox.Request{Body: []byte("a"), Stream: body})); string(text) != "ab" || err != nil {
		t.Errorf("read %q, %v", text, err)
	}
}

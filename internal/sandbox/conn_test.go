package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/sandbox"
	"github.com/flockofbirds/fob/internal/sandbox/sandboxtest"
)

func TestCallKeepsItsConnection(t *testing.T) {
	c, d := connect(t, raw(answer(200, "Content-Type: application/json\r\n", `{"result": 1}`)))
	for range 3 {
		r, err := c.Call(soon(), &sandbox.Request{})
		if err != nil || r.Status != 200 || r.ContentType != "application/json" || string(r.Body) != `{"result": 1}` || r.Header != nil {
			t.Fatalf("got %+v, %v", r, err)
		}
	}
	if n := d.accepted.Load(); n != 1 {
		t.Errorf("3 calls took %d connections", n)
	}
}

func TestCallDropsConnections(t *testing.T) {
	for what, reply := range map[string]reply{
		"the driver closes":        raw(answer(200, "Connection: close\r\n", "x")),
		"the driver closes, LOUD":  raw(answer(200, "CONNECTION: Close\r\n", "x")),
		"there is a second answer": raw(answer(200, "", "x") + answer(200, "", "forged")),
	} {
		c, d := connect(t, reply)
		for range 2 {
			if r, err := c.Call(soon(), &sandbox.Request{}); err != nil || string(r.Body) != "x" {
				t.Fatalf("%s: got %+v, %v", what, r, err)
			}
		}
		if n := d.accepted.Load(); n != 2 {
			t.Errorf("%s: 2 calls took %d connections", what, n)
		}
	}
}

// received is what a driver saw of a request.
type received struct {
	*http.Request
	body []byte
}

// recorder replies 204 and keeps what it was asked.
func recorder(requests chan<- received) reply {
	return func(nc net.Conn, r *http.Request, body []byte) bool {
		requests <- received{r, body}
		_, err := io.WriteString(nc, "HTTP/1.1 204 No Content\r\n\r\n")
		return err == nil
	}
}

func TestCallSends(t *testing.T) {
	requests := make(chan received, 1)
	c, _ := connect(t, recorder(requests))
	send := func(r sandbox.Request) received {
		t.Helper()
		if answer, err := c.Call(soon(), &r); err != nil || answer.Status != 204 || len(answer.Body) > 0 {
			t.Fatalf("got %+v, %v", answer, err)
		}
		return <-requests
	}

	got := send(sandbox.Request{})
	if got.Method != "POST" || got.RequestURI != "/" || got.Host != "fob" || got.ContentLength != 0 || len(got.Header) != 2 || len(got.Header.Get("Fob-Call")) != 16 {
		t.Errorf("nothing: the driver saw %+v", got.Request)
	}
	got = send(sandbox.Request{Args: []byte(`{"a":"\u00e4"}`), Body: []byte(`{"b": 1}`), Target: "/x", Host: "h", Header: http.Header{"X-Mine": {"1"}}})
	if got.Header.Get("Fob-Args") != `{"a":"\u00e4"}` || string(got.body) != `{"b": 1}` || got.Header.Get("X-Mine") != "" || got.Header.Get("Fob-Target") != "" || got.Host != "fob" {
		t.Errorf("arguments: the driver saw %+v", got.Request)
	}
	if got := send(sandbox.Request{Body: []byte("a=1"), Form: "multipart/form-data; boundary=x"}); got.Header.Get("Fob-Content-Type") != "multipart/form-data; boundary=x" {
		t.Errorf("a form: the driver saw %+v", got.Header)
	}

	// A function that takes the request gets the caller's headers, but none
	// that could pass for ours or concern the connection.
	got = send(sandbox.Request{
		Args: []byte("{}"), Body: []byte("raw\x00"), Method: "PATCH", Target: "/api/call/x?a=%20", Root: "/api/call/x", Host: "example.com:80", TraceParent: "ours", TraceState: "a=1,b=2",
		Header: http.Header{
			"Accept": {"a", "b"}, "Cookie": {"c=1"}, "Authorization": {"secret"}, "Content-Type": {"text/plain"}, "Traceparent": {"theirs"}, "Tracestate": {"forged"},
			"Connection": {"close, X-Hop, traceparent, tracestate"}, "X-Hop": {"1"}, "Keep-Alive": {"5"}, "Transfer-Encoding": {"chunked"}, "Content-Length": {"999"}, "Upgrade": {"h2c"},
			"Te": {"x"}, "Trailer": {"x"}, "Expect": {"100-continue"}, "Proxy-Connection": {"x"}, "Proxy-Authorization": {"x"},
			"Fob-Args": {`{"forged":"1"}`}, "Fob-Call": {"0123456789abcdef"}, "Fob-Method": {"forged"}, "Fob-Error": {"forged"}, "Host": {"forged"},
		},
	})
	want := http.Header{
		"Accept": {"a", "b"}, "Cookie": {"c=1"}, "Authorization": {"secret"}, "Content-Type": {"text/plain"}, "Traceparent": {"ours"}, "Tracestate": {"a=1,b=2"},
		"Fob-Args": {"{}"}, "Fob-Method": {"PATCH"}, "Fob-Target": {"/api/call/x?a=%20"}, "Fob-Root": {"/api/call/x"}, "Content-Length": {"4"},
	}
	got.Header.Del("Fob-Call") // TestTokens
	if !maps.EqualFunc(got.Header, want, func(a, b []string) bool { return strings.Join(a, "|") == strings.Join(b, "|") }) || got.Host != "example.com:80" || string(got.body) != "raw\x00" {
		t.Errorf("request: the driver saw %+v of %s with %v", got.Header, got.Host, got.body)
	}
}

func TestCallSendsAnyBody(t *testing.T) {
	requests := make(chan received, 1)
	c, d := connect(t, recorder(requests))
	for _, size := range []int{1, 16<<10 - 1, 16 << 10, 16<<10 + 1, 100_000, 5 << 20} {
		body := bytes.Repeat([]byte("0123456789abcdef\x00\xff\r\n"), size/20+1)[:size]
		args := fmt.Appendf(nil, `{"a":"%s"}`, strings.Repeat("x", size/20))
		if _, err := c.Call(soon(), &sandbox.Request{Args: args, Body: body}); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if got := <-requests; !bytes.Equal(got.body, body) || got.Header.Get("Fob-Args") != string(args) {
			t.Errorf("%d bytes: the driver saw %d others", size, len(got.body))
		}
	}
	if n := d.accepted.Load(); n != 1 {
		t.Errorf("it took %d connections", n)
	}
}

func TestCallsAtOnce(t *testing.T) {
	c, d := connect(t, func(nc net.Conn, r *http.Request, body []byte) bool {
		_, err := io.WriteString(nc, answer(200, "X-Args: "+r.Header.Get("Fob-Args")+"\r\n", string(body)))
		return err == nil
	})
	const callers = 16
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			for j := range 50 {
				text := fmt.Sprintf(`{"%d":"%d"}`, i, j)
				r, err := c.Call(soon(), &sandbox.Request{Args: []byte(text), Body: []byte(text)})
				if err != nil || string(r.Body) != text || r.Header.Get("X-Args") != text {
					t.Errorf("%s: got %+v, %v", text, r, err)
					return
				}
			}
		})
	}
	all.Wait()
	if n := d.accepted.Load(); n > callers {
		t.Errorf("%d callers took %d connections", callers, n)
	}
}

func TestNothingSent(t *testing.T) {
	wantNotSent := func(what string, err, cause error) {
		t.Helper()
		if !errors.Is(err, sandbox.ErrNotSent) || !errors.Is(err, cause) || errors.Is(err, sandbox.ErrBadAnswer) {
			t.Errorf("%s: %v", what, err)
		}
	}
	nowhere := sandbox.NewConn(&driver{path: "/nonexistent/fob.sock"}, maxAnswer, nil)
	_, err := nowhere.Call(soon(), &sandbox.Request{})
	wantNotSent("no socket", err, os.ErrNotExist)

	for what, body := range map[string][]byte{"a small body": nil, "a large body": make([]byte, 1<<20)} {
		near, far := net.Pipe() // at which nobody looks before it is used
		c := sandbox.NewConn(pipe{nc: near}, maxAnswer, nil)
		far.Close()
		_, err = c.Call(soon(), &sandbox.Request{Body: body})
		wantNotSent("a connection that the driver has closed, "+what, err, io.ErrClosedPipe)
	}

	c, _ := connect(t, raw(answer(200, "", "x")))
	_, err = c.Call(time.Unix(1, 0), &sandbox.Request{})
	wantNotSent("a deadline that is over", err, os.ErrDeadlineExceeded)
}

// TestDriverDies: once a byte was sent, the driver may have seen the call.
func TestDriverDies(t *testing.T) {
	for what, reply := range map[string]reply{
		"before it answers":  hangUp(""),
		"in the status line": hangUp("HTTP/1.1 20"),
		"in the header":      hangUp("HTTP/1.1 200 OK\r\nContent-Le"),
		"behind the header":  hangUp("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
		"in the body":        hangUp("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"),
		"in a chunk":         hangUp("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"),
		"in the trailer":     hangUp("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nFob-Er"),
		"before the trailer": hangUp("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n"),
		"between chunks":     hangUp("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"),
	} {
		c, _ := connect(t, reply)
		r, _, err := callWhole(c, soon(), &sandbox.Request{})
		if err == nil || err == io.EOF || errors.Is(err, sandbox.ErrNotSent) || errors.Is(err, sandbox.ErrBadAnswer) || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: got %+v, %v", what, r, err)
		}
	}
}

func TestDeadline(t *testing.T) {
	hold := func(answer string) reply {
		return func(nc net.Conn, _ *http.Request, _ []byte) bool {
			io.WriteString(nc, answer)
			io.Copy(io.Discard, nc) // until the caller closes
			return false
		}
	}
	for what, answer := range map[string]string{
		"no answer":     "",
		"half a header": "HTTP/1.1 200 OK\r\n",
		"half a body":   "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
		"half a chunk":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
		"no last chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
	} {
		c, d := connect(t, hold(answer))
		_, _, err := callWhole(c, time.Now().Add(50*time.Millisecond), &sandbox.Request{})
		if !errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, sandbox.ErrBadAnswer) {
			t.Errorf("%s: %v", what, err)
		}
		eventually(t, "the connection is closed", func() bool { return d.open.Load() == 0 })
	}
}

// TestDeadlineWhileSending: a driver that does not read holds up a large body.
func TestDeadlineWhileSending(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	c := sandbox.NewConn(pipe{nc: near}, maxAnswer, nil)
	defer c.Close()
	go io.CopyN(io.Discard, far, 10)
	_, err := c.Call(time.Now().Add(50*time.Millisecond), &sandbox.Request{Body: make([]byte, 1<<20)})
	if !errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, sandbox.ErrNotSent) {
		t.Errorf("got %v", err)
	}
}

// pipe is an Instance with one connection.
type pipe struct {
	sandbox.Instance
	nc net.Conn
}

// Dial implements sandbox.Instance.
func (p pipe) Dial(context.Context) (net.Conn, error) { return p.nc, nil }

// TestDeadlineOfTheLastCall: a connection that is used again has forgotten it.
func TestDeadlineOfTheLastCall(t *testing.T) {
	c, d := connect(t, raw(answer(200, "", `{"state": "loaded"}`)))
	var deadline time.Time
	for patience := 50 * time.Millisecond; ; patience *= 2 { // this machine may be slow
		deadline = time.Now().Add(patience)
		_, err := c.Call(deadline, &sandbox.Request{})
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	connections := d.accepted.Load()
	eventually(t, "the deadline is over", func() bool { return time.Now().After(deadline) })
	if h, err := c.Health(t.Context()); err != nil || h.State != "loaded" {
		t.Errorf("health: got %+v, %v", h, err)
	}
	if _, err := c.Call(soon(), &sandbox.Request{}); err != nil {
		t.Error(err)
	}
	if n := d.accepted.Load(); n != connections {
		t.Errorf("%d connections became %d", connections, n)
	}
}

func TestClose(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	c, d := connect(t, func(nc net.Conn, r *http.Request, _ []byte) bool {
		if r.Header.Get("Fob-Args") != "" {
			entered <- struct{}{}
			<-leave
		}
		_, err := io.WriteString(nc, answer(200, "", "x"))
		return err == nil
	})
	var held sync.WaitGroup
	held.Go(func() {
		if r, err := c.Call(soon(), &sandbox.Request{Args: []byte("{}")}); err != nil || string(r.Body) != "x" {
			t.Errorf("the call in flight: got %+v, %v", r, err)
		}
	})
	<-entered
	if _, err := c.Call(soon(), &sandbox.Request{}); err != nil {
		t.Fatal(err)
	}
	c.Close()
	eventually(t, "the idle connection is closed, and the other one not", func() bool { return d.open.Load() == 1 })
	close(leave)
	held.Wait()
	eventually(t, "the connection that was in use is closed", func() bool { return d.open.Load() == 0 })
	c.Close() // again, for good measure
}

func TestHealthAndLoad(t *testing.T) {
	requests := make(chan received, 1)
	c, d := connect(t, func(nc net.Conn, r *http.Request, body []byte) bool {
		requests <- received{r, body}
		_, err := io.WriteString(nc, answer(200, "Content-Type: application/json\r\n",
			`{"state": "loaded", "lang": "python", "runtime": "3.13.5", "contract": 1, "in_flight": 2, "function": "f", "version": 3, "takes_request": true, "port": null, "more": []}`))
		return err == nil
	})
	want := sandbox.Health{State: "loaded", Lang: "python", Runtime: "3.13.5", Contract: 1, InFlight: 2, Function: "f", Version: 3, TakesRequest: true}
	h, err := c.Health(t.Context())
	if err != nil || h != want {
		t.Errorf("health: got %+v, %v", h, err)
	}
	if r := <-requests; r.Method != "GET" || r.RequestURI != "/_fob/health" || len(r.body) > 0 {
		t.Errorf("health: the driver saw %+v", r.Request)
	}
	h, err = c.Load(t.Context(), sandbox.Load{Code: "x = '\u2028<>'\n", Function: "f", Version: 3, Concurrency: 4, MaxBody: 5})
	if err != nil || h != want {
		t.Errorf("load: got %+v, %v", h, err)
	}
	r := <-requests
	if r.Method != "PUT" || r.RequestURI != "/_fob/function" || string(r.body) != `{"code":"x = '\u2028\u003c\u003e'\n","function":"f","version":3,"concurrency":4,"max_body":5}` {
		t.Errorf("load: the driver saw %+v %s", r.Request, r.body)
	}
	if n := d.accepted.Load(); n != 1 {
		t.Errorf("it took %d connections", n)
	}
}

func TestControlIsInterrupted(t *testing.T) {
	entered := make(chan struct{}, 1)
	c, d := connect(t, func(nc net.Conn, r *http.Request, _ []byte) bool {
		if r.Method == "PUT" {
			entered <- struct{}{}
			io.Copy(io.Discard, nc) // until the caller closes
			return false
		}
		_, err := io.WriteString(nc, answer(200, "", `{"state": "loading"}`))
		return err == nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	if _, err := c.Load(ctx, sandbox.Load{Code: "x"}); err != context.Canceled {
		t.Errorf("load: %v", err)
	}
	eventually(t, "the connection is closed", func() bool { return d.open.Load() == 0 })
	if _, err := c.Health(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("health with a context that is over: %v", err)
	}
	if h, err := c.Health(t.Context()); err != nil || h.State != "loading" {
		t.Errorf("health: got %+v, %v", h, err)
	}
}

func BenchmarkCall(b *testing.B) {
	reply := []byte(sandboxtest.WithToken(answer(200, "Content-Type: application/json\r\n", `{"result": 42}`), "0123456789abcdef"))
	near, far := net.Pipe()
	go func() { // a driver that costs as little as can be
		in, at := make([]byte, 4096), bytes.Index(reply, []byte("0123456789abcdef"))
		for {
			n, err := far.Read(in)
			if err != nil {
				return
			}
			if _, token, found := bytes.Cut(in[:n], []byte("Fob-Call: ")); found {
				copy(reply[at:at+16], token)
			}
			far.Write(reply)
		}
	}()
	defer far.Close()
	c := sandbox.NewConn(pipe{nc: near}, maxAnswer, nil)
	defer c.Close()
	r := &sandbox.Request{Args: []byte(`{"param1":"1","param2":"1"}`)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Call(soon(), r); err != nil {
			b.Fatal(err)
		}
	}
}

package httpapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// streamResult is an answer that streams.
func streamResult(body io.ReadCloser) faas.Result {
	return faas.Result{Status: 200, ContentType: "text/event-stream", Body: body, Length: -1}
}

// dial opens a connection to a server and sends something.
func dial(t *testing.T, server *httptest.Server, request string) (net.Conn, *bufio.Reader) {
	t.Helper()
	nc, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(nc, request); err != nil {
		t.Fatal(err)
	}
	return nc, bufio.NewReader(nc)
}

// TestStream: each piece arrives before the next one is made.
func TestStream(t *testing.T) {
	body, function := io.Pipe()
	server := httptest.NewServer(newAPI(t, newFakeRegistry(), func(context.Context, *received) (faas.Result, error) {
		return streamResult(body), nil
	}))
	defer server.Close()
	go io.WriteString(function, "data: 0\n\n")
	response, err := http.Get(server.URL + "/api/call/hello")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.ContentLength != -1 || len(response.TransferEncoding) != 1 || response.Header.Get("Content-Type") != "text/event-stream" || response.Close {
		t.Errorf("answered %+v", response)
	}
	piece := make([]byte, 100)
	for i := range 3 {
		want := fmt.Sprintf("data: %d\n\n", i)
		if n, err := response.Body.Read(piece); err != nil || string(piece[:n]) != want {
			t.Fatalf("read %q, %v; want %q", piece[:n], err, want)
		}
		go fmt.Fprintf(function, "data: %d\n\n", i+1)
	}
	if n, err := response.Body.Read(piece); err != nil {
		t.Fatalf("read %q, %v", piece[:n], err)
	}
	function.Close()
	if n, err := response.Body.Read(piece); n > 0 || err != io.EOF {
		t.Errorf("the end: %q, %v", piece[:n], err)
	}
}

// TestStreamToHTTP10: there the end of the connection is the end of the answer,
// and what is no end is a reset.
func TestStreamToHTTP10(t *testing.T) {
	for _, whole := range []bool{true, false} {
		server := httptest.NewServer(newAPI(t, newFakeRegistry(), func(context.Context, *received) (faas.Result, error) {
			var body io.Reader = strings.NewReader("data")
			if !whole {
				body = io.MultiReader(body, brokenReader{})
			}
			return streamResult(io.NopCloser(body)), nil
		}))
		_, in := dial(t, server, "GET /api/call/hello HTTP/1.0\r\n\r\n")
		answer, err := io.ReadAll(in)
		if whole && (err != nil || !strings.HasSuffix(string(answer), "\r\n\r\ndata") || strings.Contains(string(answer), "chunked")) {
			t.Errorf("a whole answer: read %q, %v", answer, err)
		}
		if !whole && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a broken answer: read %q, %v", answer, err)
		}
		server.Close()
	}
}

// closer is a body that a test sees closed.
type closer struct {
	io.Reader
	closed chan struct{}
}

func (c closer) Close() error {
	close(c.closed)
	return nil
}

// TestStreamOfAClientThatLeaves: the call hears of it, also when there is
// nothing to be sent, and the body is closed.
func TestStreamOfAClientThatLeaves(t *testing.T) {
	body, function := io.Pipe()
	closed := make(chan struct{})
	server := httptest.NewServer(newAPI(t, newFakeRegistry(), func(ctx context.Context, _ *received) (faas.Result, error) {
		context.AfterFunc(ctx, func() { function.CloseWithError(ctx.Err()) })
		return streamResult(closer{body, closed}), nil
	}))
	defer server.Close()
	go io.WriteString(function, "data")
	nc, in := dial(t, server, "GET /api/call/hello HTTP/1.1\r\nHost: h\r\n\r\n")
	if _, err := http.ReadResponse(in, nil); err != nil {
		t.Fatal(err)
	}
	nc.Close()
	<-closed
}

// slowClient is a ResponseWriter that says when its write deadline is set.
type slowClient struct {
	httptest.ResponseRecorder
	deadline time.Time
	t        *testing.T
}

func (c *slowClient) SetWriteDeadline(t time.Time) error {
	c.deadline = t
	return nil
}

func (c *slowClient) Write(p []byte) (int, error) {
	if left := time.Until(c.deadline); left <= 0 || left > answerPatience {
		c.t.Errorf("a piece may take %v", left)
	}
	return c.ResponseRecorder.Write(p)
}

// TestPatienceWithASlowClient: it is for each piece anew.
func TestPatienceWithASlowClient(t *testing.T) {
	c := &slowClient{ResponseRecorder: *httptest.NewRecorder(), t: t}
	if err := (&calls{bodies: new(bodies)}).stream(c, pieces{"a", "b", "c"}.reader()); err != nil || !c.deadline.IsZero() {
		t.Errorf("%v, and then the deadline is %v", err, c.deadline)
	}
}

// pieces are read one at a time.
type pieces []string

func (p pieces) reader() io.Reader {
	var readers []io.Reader
	for _, piece := range p {
		readers = append(readers, strings.NewReader(piece))
	}
	return io.MultiReader(readers...)
}

// echo is a function that streams its body back. As a driver would, it gets the
// first of it before it answers.
func echo(_ context.Context, call *received) (faas.Result, error) {
	if call.Stream == nil {
		return plainResult("{}"), nil
	}
	body := bufio.NewReader(io.MultiReader(strings.NewReader(string(call.Body)), call.Stream))
	if _, err := body.Peek(1); err != nil {
		return faas.Result{}, err
	}
	return streamResult(io.NopCloser(body)), nil
}

// TestUpload: a body that is too large to be held whole goes through while it
// comes, and so does its answer.
func TestUpload(t *testing.T) {
	server := httptest.NewServer(newAPI(t, newFakeRegistry(), echo))
	defer server.Close()
	first := strings.Repeat("x", testMaxBody+1)
	t.Run("Content-Length", func(t *testing.T) {
		const size = 1 << 30 // of which not all is ever sent
		nc, in := dial(t, server, "POST /api/call/hello HTTP/1.1\r\nHost: h\r\nContent-Length: "+strconv.Itoa(size)+"\r\n\r\nfirst")
		response, err := http.ReadResponse(in, nil)
		if err != nil || response.StatusCode != 200 || !response.Close {
			t.Fatalf("answered %+v, %v", response, err)
		}
		piece := make([]byte, 100)
		for _, text := range []string{"first", "second", "third"} {
			if text != "first" {
				io.WriteString(nc, text)
			}
			if n, err := response.Body.Read(piece); err != nil || string(piece[:n]) != text {
				t.Fatalf("read %q, %v", piece[:n], err)
			}
		}
		nc.(*net.TCPConn).CloseWrite() // before it is complete
		if rest, err := io.ReadAll(response.Body); err == nil {
			t.Errorf("the answer to half a body ended with %q", rest)
		}
	})
	t.Run("chunked", func(t *testing.T) {
		nc, in := dial(t, server, "POST /api/call/hello HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"+strconv.FormatInt(int64(len(first)), 16)+"\r\n"+first+"\r\n")
		response, err := http.ReadResponse(in, nil)
		if err != nil || response.StatusCode != 200 || !response.Close {
			t.Fatalf("answered %+v, %v", response, err)
		}
		if _, err := io.CopyN(io.Discard, response.Body, int64(len(first))); err != nil {
			t.Fatal(err)
		}
		io.WriteString(nc, "4\r\nlast\r\n0\r\n\r\n")
		if rest, err := io.ReadAll(response.Body); err != nil || string(rest) != "last" {
			t.Errorf("read %q, %v", rest, err)
		}
	})
	t.Run("just as large as allowed", func(t *testing.T) {
		response, err := http.Post(server.URL+"/api/call/hello", "", strings.NewReader(first[1:]))
		if err != nil || response.ContentLength != 2 || response.Close {
			t.Fatalf("answered %+v, %v", response, err)
		}
		response.Body.Close()
	})
	t.Run("asked for", func(t *testing.T) {
		nc, in := dial(t, server, "POST /api/call/hello HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: "+strconv.Itoa(len(first))+"\r\n\r\n")
		if line, err := in.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("%q, %v", line, err)
		}
		in.ReadString('\n')
		go io.WriteString(nc, first)
		response, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, response.Body); err != nil || n != int64(len(first)) {
			t.Errorf("read %d bytes, %v", n, err)
		}
	})
}

// TestUploadThatNobodyReads: the function, or we, have answered already. A client
// that sends all before it reads sees the answer.
func TestUploadThatNobodyReads(t *testing.T) {
	server := httptest.NewServer(newAPI(t, newFakeRegistry(), func(_ context.Context, call *received) (faas.Result, error) {
		switch call.Ref.Name {
		case "refused":
			return faas.Result{}, faas.Errorf(faas.CodeOverLimit, "busy")
		case "streamed":
			return streamResult(io.NopCloser(strings.NewReader("enough"))), nil
		case "waited":
			waited := make(chan struct{})
			go func() {
				defer close(waited)
				io.Copy(io.Discard, call.Stream)
			}()
			call.Stream.Close()
			call.Stream.Close()
			<-waited
		}
		return plainResult(`"enough"`), nil
	}))
	defer server.Close()
	const size = 20 << 20
	for name, want := range map[string]int{"refused": 429, "streamed": 200, "plain": 200, "waited": 200} {
		status, header, body := rawRequest(t, server.Listener.Addr().String(),
			"POST /api/call/"+name+" HTTP/1.1\r\nHost: h\r\nContent-Length: "+strconv.Itoa(size)+"\r\n\r\n", strings.Repeat("x", size))
		if status != want || want == 200 && !strings.Contains(body, "enough") {
			t.Errorf("%s: answered %d %v %s", name, status, header, body)
		}
	}
}

// TestUploadThatBreaksOff: the function's reading fails with what is told to the
// client, should it still be there.
func TestUploadThatBreaksOff(t *testing.T) {
	server := httptest.NewServer(newAPI(t, newFakeRegistry(), func(_ context.Context, call *received) (faas.Result, error) {
		_, err := io.Copy(io.Discard, call.Stream)
		return faas.Result{}, err
	}))
	defer server.Close()
	status, header, body := rawRequest(t, server.Listener.Addr().String(), "POST /api/call/hello HTTP/1.1\r\nHost: h\r\nContent-Length: 10000000\r\n\r\nhalf")
	wantProblem(t, status, header, body, 400, faas.CodeBadRequest)
}

func TestTimeoutHeader(t *testing.T) {
	var got time.Duration
	a := newAPI(t, newFakeRegistry(), func(_ context.Context, call *received) (faas.Result, error) {
		got = call.Timeout
		return plainResult("{}"), nil
	})
	for text, want := range map[string]time.Duration{"": 0, "500ms": 500 * time.Millisecond, "2s": 2 * time.Second, "1h30m": 90 * time.Minute, "1ns": 1} {
		var header []string
		if text != "" {
			header = []string{"Fob-Timeout", text}
		}
		if w := serve(a, "GET", "/api/call/hello", "", header...); w.Code != 200 || got != want {
			t.Errorf("%q: answered %d with %v", text, w.Code, got)
		}
	}
	for _, text := range []string{"0", "0s", "-1s", "5", "2 s", "soon", " ", "1e9s", "9999999h"} {
		w := serve(a, "GET", "/api/call/hello", "", "Fob-Timeout", text)
		p := wantProblem(t, w.Code, w.Header(), w.Body.String(), 400, faas.CodeBadRequest)
		if !strings.Contains(p.Detail, "500ms or 2s") {
			t.Errorf("%q: %s", text, p.Detail)
		}
	}
}

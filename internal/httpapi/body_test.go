package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// rawRequest sends bytes to a server, all of them before it reads anything, and
// returns the answer.
func rawRequest(t *testing.T, addr string, parts ...string) (status int, header http.Header, body string) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(time.Minute))
	for _, part := range parts {
		if _, err := io.WriteString(nc, part); err != nil {
			t.Fatalf("the request could not be sent: %v", err)
		}
	}
	// A request that was cut short ends here.
	nc.(*net.TCPConn).CloseWrite()
	method, _, _ := strings.Cut(parts[0], " ")
	response, err := http.ReadResponse(bufio.NewReader(nc), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no answer could be read: %v", err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header, string(content)
}

func TestTooLarge(t *testing.T) {
	registry := newFakeRegistry()
	server := httptest.NewServer(newAPI(t, registry, plainFunction))
	defer server.Close()
	addr := server.Listener.Addr().String()
	const size = 10 << 20
	body := strings.Repeat("x", size)
	chunk := strconv.FormatInt(size, 16) + "\r\n" + body + "\r\n0\r\n\r\n"
	// Many a client reads no answer before it has sent everything.
	for what, request := range map[string][]string{
		"Content-Length":   {"POST /api/gen HTTP/1.1\r\nHost: x\r\nContent-Length: " + strconv.Itoa(size) + "\r\n\r\n", body},
		"chunked":          {"POST /api/gen HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", chunk},
		"to a call":        {"POST /api/call/hello HTTP/1.1\r\nHost: x\r\nContent-Length: " + strconv.Itoa(size) + "\r\n\r\n", body},
		"chunks to a call": {"POST /api/call/hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", chunk},
		"PATCH":            {"PATCH /api/functions/hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", chunk},
	} {
		t.Run(what, func(t *testing.T) {
			status, header, answer := rawRequest(t, addr, request...)
			wantProblem(t, status, header, answer, 413, faas.CodeTooLarge)
		})
	}
	if registry.draft.Code != "" || !registry.settings.Empty() {
		t.Error("a body that is too large was taken")
	}
	// Go's own client, for good measure; and the server serves on.
	response, err := http.Post(server.URL+"/api/gen", "text/plain", strings.NewReader(body))
	if err != nil || response.StatusCode != 413 {
		t.Fatalf("answered %v, %v", response, err)
	}
	response.Body.Close()
	response, err = http.Post(server.URL+"/api/gen", "text/plain", strings.NewReader("code"))
	if err != nil || response.StatusCode != 200 {
		t.Fatalf("answered %v, %v", response, err)
	}
	response.Body.Close()
}

// plainFunction is one that does not take the request.
func plainFunction(_ context.Context, call *received) (faas.Result, error) {
	if call.Stream != nil {
		return faas.Result{}, faas.Errorf(faas.CodeTooLarge, "it does not stream")
	}
	return plainResult("{}"), nil
}

func TestLargestBody(t *testing.T) {
	for what, over := range map[string]int{"just as large as allowed": 0, "one byte more": 1} {
		for _, chunked := range []bool{false, true} {
			registry := newFakeRegistry()
			r := httptest.NewRequest("POST", "/api/gen", bytes.NewReader(bytes.Repeat([]byte("x"), testMaxBody+over)))
			if chunked {
				r.ContentLength = -1
			}
			w := httptest.NewRecorder()
			newAPI(t, registry, nil).ServeHTTP(w, r)
			if want := 200 + 213*over; w.Code != want || (want == 200) != (len(registry.draft.Code) == testMaxBody) {
				t.Errorf("%s, chunked %v: answered %d", what, chunked, w.Code)
			}
		}
	}
}

// TestExpectContinue: who asks first is not made to send what is too large.
func TestExpectContinue(t *testing.T) {
	server := httptest.NewServer(newAPI(t, newFakeRegistry(), plainFunction))
	defer server.Close()
	for _, path := range []string{"/api/gen", "/api/call/hello"} {
		status, header, body := rawRequest(t, server.Listener.Addr().String(),
			"POST "+path+" HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 10000000\r\n\r\n")
		wantProblem(t, status, header, body, 413, faas.CodeTooLarge)
	}
}

func TestBodyThatEndsEarly(t *testing.T) {
	registry := newFakeRegistry()
	server := httptest.NewServer(newAPI(t, registry, nil))
	defer server.Close()
	for what, request := range map[string]string{
		"Content-Length":   "POST /api/gen HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx = 1",
		"chunked":          "POST /api/gen HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nx = 1\r\n",
		"in a chunk":       "POST /api/gen HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nx = 1",
		"no proper chunks": "POST /api/gen HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx = 1\r\n",
	} {
		t.Run(what, func(t *testing.T) {
			status, header, body := rawRequest(t, server.Listener.Addr().String(), request)
			wantProblem(t, status, header, body, 400, faas.CodeBadRequest)
		})
	}
	if registry.draft.Code != "" {
		t.Errorf("half a body was taken: %q", registry.draft.Code)
	}
}

// TestClientGone: a call that waits hears that its client has gone.
func TestClientGone(t *testing.T) {
	waiting, gone := make(chan struct{}), make(chan error, 1)
	server := httptest.NewServer(newAPI(t, newFakeRegistry(), func(ctx context.Context, _ *received) (faas.Result, error) {
		close(waiting)
		<-ctx.Done()
		gone <- ctx.Err()
		return faas.Result{}, ctx.Err()
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-waiting
		cancel()
	}()
	r, err := http.NewRequestWithContext(ctx, "POST", server.URL+"/api/call/hello", strings.NewReader(`{"a": 1}`))
	if err != nil {
		t.Fatal(err)
	}
	if response, err := http.DefaultClient.Do(r); err == nil {
		t.Fatalf("answered %v", response)
	}
	if err := <-gone; err != context.Canceled {
		t.Errorf("the call heard %v", err)
	}
}

// A client that has gone away before the work was done, or seems to, is not told
// that it was.
func TestGoneIsNoSuccess(t *testing.T) {
	registry := newFakeRegistry()
	server := httptest.NewServer(newAPI(t, slowRegistry{registry}, nil))
	defer server.Close()
	nc, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(nc, "POST /api/gen HTTP/1.1\r\nHost: h\r\nContent-Length: 18\r\n\r\ndef callme(): pass")
	nc.(*net.TCPConn).CloseWrite()
	if answer, _ := io.ReadAll(nc); len(answer) > 0 {
		t.Errorf("it was answered %q", answer)
	}
}

// slowRegistry creates nothing before its client has gone away.
type slowRegistry struct{ *fakeRegistry }

func (slowRegistry) Create(ctx context.Context, _ string, _ faas.Draft) (*faas.Function, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// What is announced costs nothing before it has come.
func TestAnnouncedBody(t *testing.T) {
	server := httptest.NewServer(newAPI(t, newFakeRegistry(), nil))
	defer server.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const clients = 50
	for range clients {
		nc, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		io.WriteString(nc, "POST /api/gen HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: "+strconv.Itoa(testMaxBody)+"\r\n\r\n")
		// That it goes on says that it has begun to read the body.
		if line, err := bufio.NewReader(nc).ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("%q, %v", line, err)
		}
	}
	runtime.ReadMemStats(&after)
	if spent := after.TotalAlloc - before.TotalAlloc; spent > clients*testMaxBody/10 {
		t.Errorf("%d bodies that were announced took %d MB", clients, spent>>20)
	}
}

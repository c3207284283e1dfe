package httpapi

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/buffer"
	"github.com/flockofbirds/fob/internal/faas"
)

// roomy is an API with a budget, behind a server.
func roomy(t *testing.T, budget *buffer.Budget, invoke invoker) string {
	t.Helper()
	a := New(Config{Log: zerolog.Nop(), Metrics: http.NotFoundHandler(), MaxBody: testMaxBody, Buffers: budget, Hosts: []string{"x"}})
	a.Open(Backend{Registry: newFakeRegistry(), Locator: newFakeRegistry(), Invoker: invoke, Tokens: &fakeTokens{}, Audit: &fakeAudit{}})
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// given waits until nothing of a budget is taken but that.
func given(t *testing.T, budget *buffer.Budget, but int64) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); budget.Used() != but; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are left taken", budget.Used()-but)
		}
	}
}

// TestNoRoomForABody: a large body is refused with a word about when to come again,
// which the client sees although it sends everything first; a small one passes.
func TestNoRoomForABody(t *testing.T) {
	budget := buffer.New(8 * testMaxBody)
	addr := roomy(t, budget, func(_ context.Context, call *received) (faas.Result, error) {
		n := len(call.Body)
		if call.Drop != nil {
			call.Drop()
		}
		return plainResult(strings.Repeat(" ", min(n, 1))), nil
	})
	const size = testMaxBody - 10
	body := strings.Repeat("x", size)
	head := func(method, path, more string) string {
		return method + " " + path + " HTTP/1.1\r\nHost: x\r\n" + more + "\r\n"
	}
	length := "Content-Length: " + strconv.Itoa(size) + "\r\n"
	for _, full := range []bool{false, true} {
		but := int64(0)
		if full {
			but = budget.Total()
			budget.Force(but)
		}
		for what, request := range map[string][]string{
			"a call":           {head("POST", "/api/call/hello", length), body},
			"a call in chunks": {head("POST", "/api/call/hello", "Transfer-Encoding: chunked\r\n"), strconv.FormatInt(size, 16) + "\r\n" + body + "\r\n0\r\n\r\n"},
			"a registration":   {head("PUT", "/api/functions/hello", length), body},
		} {
			status, header, answer := rawRequest(t, addr, request...)
			if !full && status/100 != 2 {
				t.Errorf("%s, with room: %d %s", what, status, answer)
			}
			if full {
				wantProblem(t, status, header, answer, 503, faas.CodeNoCapacity)
				if header.Get("Retry-After") == "" || !strings.Contains(answer, "FOB_MAX_BUFFER") {
					t.Errorf("%s: %v %s", what, header, answer)
				}
			}
			given(t, budget, but)
		}
		if status, _, answer := rawRequest(t, addr, head("POST", "/api/call/hello", "Content-Length: 5\r\n"), "hello"); status != 200 {
			t.Errorf("a small call, full %v: %d %s", full, status, answer)
		}
	}
}

// TestNoRoomOnTheWay: a head, or the rest of a body, that finds no room on its way here
// is answered as a body is that finds none.
func TestNoRoomOnTheWay(t *testing.T) {
	a := New(Config{Log: zerolog.Nop(), Metrics: http.NotFoundHandler()})
	if text := string(a.Malformed(503, "")); !strings.Contains(text, "503 Service") || !strings.Contains(text, "no_capacity") || !strings.Contains(text, "Retry-After: 1") {
		t.Errorf("a head is answered %s", text)
	}
	r := httptest.NewRequest("POST", "/api/call/hello", io.MultiReader(strings.NewReader("x"), iotest.ErrReader(buffer.ErrFull)))
	if text, err := io.ReadAll(newUpload(httptest.NewRecorder(), r)); string(text) != "x" || faas.CodeOf(err) != faas.CodeNoCapacity {
		t.Errorf("the rest of a body ends with %q, %v", text, err)
	}
}

// TestRefusedUnread: a call that is refused before its body is read takes nothing,
// and its client, which sends everything first, sees why.
func TestRefusedUnread(t *testing.T) {
	budget := buffer.New(8 * testMaxBody)
	a := New(Config{Log: zerolog.Nop(), Metrics: http.NotFoundHandler(), MaxBody: testMaxBody, Buffers: budget, Hosts: []string{"x"}})
	a.Open(Backend{Registry: newFakeRegistry(), Locator: newFakeRegistry(), Tokens: &fakeTokens{}, Audit: &fakeAudit{}, Invoker: refuser{}})
	server := httptest.NewServer(a)
	defer server.Close()
	budget.Force(budget.Total()) // so that whoever read it would be told of that
	status, header, answer := rawRequest(t, server.Listener.Addr().String(),
		"POST /api/call/hello HTTP/1.1\r\nHost: x\r\nContent-Length: "+strconv.Itoa(testMaxBody)+"\r\n\r\n", strings.Repeat("x", testMaxBody))
	wantProblem(t, status, header, answer, 429, faas.CodeOverLimit)
	// Who asks first is not made to send.
	status, header, answer = rawRequest(t, server.Listener.Addr().String(),
		"POST /api/call/hello HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: "+strconv.Itoa(testMaxBody)+"\r\n\r\n")
	wantProblem(t, status, header, answer, 429, faas.CodeOverLimit)
}

// refuser is an invoker that takes no call.
type refuser struct{}

func (refuser) Invoke(context.Context, *faas.Invocation, faas.LiveBody) (faas.Result, error) {
	return faas.Result{}, faas.Errorf(faas.CodeOverLimit, "no").After(time.Second)
}

// TestStreamWithoutRoom: a stream goes on in smaller pieces.
func TestStreamWithoutRoom(t *testing.T) {
	budget := buffer.New(8 * testMaxBody)
	addr := roomy(t, budget, func(context.Context, *received) (faas.Result, error) {
		return faas.Result{Status: 200, Length: -1, Body: io.NopCloser(strings.NewReader(strings.Repeat("x", 100_000)))}, nil
	})
	for _, taken := range []int64{0, budget.Total()} {
		budget.Force(taken)
		if status, _, body := rawRequest(t, addr, "GET /api/call/hello HTTP/1.1\r\nHost: x\r\n\r\n"); status != 200 || len(body) != 100_000 {
			t.Errorf("answered %d with %d bytes", status, len(body))
		}
		given(t, budget, taken)
		budget.Give(taken)
	}
}

// TestStreamsLeaveRoom: streams take no more than large answers may, so that those
// that say nothing for hours keep out nothing but their like.
func TestStreamsLeaveRoom(t *testing.T) {
	budget := buffer.New(8 * testMaxBody)
	budget.Force(budget.Total() / 2)
	defer budget.Give(budget.Total() / 2)
	addr := roomy(t, budget, func(context.Context, *received) (faas.Result, error) {
		return faas.Result{Status: 200, Length: -1, Body: io.NopCloser(looks(func() int64 { return budget.Used() - budget.Total()/2 }))}, nil
	})
	if status, _, body := rawRequest(t, addr, "GET /api/call/hello HTTP/1.1\r\nHost: x\r\n\r\n"); status != 200 || body != "0" {
		t.Errorf("answered %d; a stream takes %s bytes", status, body)
	}
}

// looks is a body that is what it sees when it is read.
type looks func() int64

func (l looks) Read(p []byte) (int, error) { return copy(p, strconv.FormatInt(l(), 10)), io.EOF }

// TestDecoderOfAStream: what decompresses a body counts for as long as that goes on
// as a stream.
func TestDecoderOfAStream(t *testing.T) {
	budget := buffer.New(8 * testMaxBody)
	addr := roomy(t, budget, func(_ context.Context, call *received) (faas.Result, error) {
		call.Drop()
		if used := budget.Used(); call.Stream == nil || used != decoderSize {
			t.Errorf("a body that streams takes %d bytes while it is decompressed, want %d", used, decoderSize)
		}
		n, err := io.Copy(io.Discard, call.Stream)
		return plainResult(fmt.Sprint(n, err)), nil
	})
	var body bytes.Buffer
	w := gzip.NewWriter(&body)
	w.Write(make([]byte, 2*testMaxBody))
	w.Close()
	status, _, answer := rawRequest(t, addr, "POST /api/call/hello HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: "+strconv.Itoa(body.Len())+"\r\n\r\n", body.String())
	if status != 200 || !strings.Contains(answer, "<nil>") {
		t.Errorf("answered %d %s", status, answer)
	}
	given(t, budget, 0)
}

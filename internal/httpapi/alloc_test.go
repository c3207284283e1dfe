package httpapi

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/faas"
)

// maxServeAllocations is what answering one plain call may allocate, on top of
// the server that reads the request and of the call itself: 5 today, and one in
// reserve. Raise it only for something that every call is to pay for.
const maxServeAllocations = 6

// callers are those whose calls cost no more than one where nobody needs a token.
var callers = map[string]string{"no token": "", "a token for all": "invoke", "a token for one": "invoke:hello"}

// TestServeAllocations counts what the handler of a call allocates.
func TestServeAllocations(t *testing.T) {
	for who, grants := range callers {
		serve := servedCalls(t, grants)
		if n := testing.AllocsPerRun(1000, serve); n > maxServeAllocations {
			t.Errorf("with %s a call allocates %v times in its handler, and %d is the bound", who, n, maxServeAllocations)
		}
	}
}

// BenchmarkServeHTTP is the way from a parsed request to Invoke, and back.
func BenchmarkServeHTTP(b *testing.B) {
	for who, grants := range callers {
		b.Run(who, func(b *testing.B) {
			serve := servedCalls(b, grants)
			b.ReportAllocs()
			for b.Loop() {
				serve()
			}
		})
	}
}

// servedCalls returns what has a call with an argument answered once, by an
// invoker and to a client that allocate nothing. The client shows a token with
// those grants, unless they are none.
func servedCalls(t testing.TB, grants string) func() {
	const answer = `{"result": 1}`
	body := bytes.NewReader([]byte(answer))
	result := faas.Result{Version: &faas.Version{FunctionID: testID, Number: 7}, Status: http.StatusOK, ContentType: "application/json", Body: io.NopCloser(body), Length: int64(len(answer))}
	tokens := &fakeTokens{}
	if grants != "" {
		tokens = newTokens(t, map[string]string{"ann": grants})
	}
	shown := []string{"Bearer " + secretOf("ann")}
	a := New(Config{Log: zerolog.Nop(), Metrics: http.NotFoundHandler(), MaxBody: testMaxBody, Hosts: []string{"example.com"}})
	a.Open(Backend{Registry: newFakeRegistry(), Locator: newFakeRegistry(), Tokens: tokens, Audit: &fakeAudit{}, Invoker: ready(func() faas.Result {
		body.Reset([]byte(answer))
		return result
	})})
	r := httptest.NewRequest("GET", "/api/call/hello?name=world", nil)
	w := &discard{header: http.Header{}}
	return func() {
		clear(w.header)
		w.written = 0
		if grants != "" {
			r.Header["Authorization"] = shown
		}
		a.ServeHTTP(w, r)
		if w.status != http.StatusOK || w.written != len(answer) {
			t.Fatalf("answered %d with %d bytes", w.status, w.written)
		}
	}
}

// ready is an invoker that has its answer.
type ready func() faas.Result

// Invoke implements faas.Invoker.
func (f ready) Invoke(context.Context, *faas.Invocation, faas.LiveBody) (faas.Result, error) {
	return f(), nil
}

// discard is a client that counts what it is sent.
type discard struct {
	header          http.Header
	status, written int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(p []byte) (int, error) { d.written += len(p); return len(p), nil }

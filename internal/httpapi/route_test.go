package httpapi

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
)

// TestCallPaths: what names the function, and what is below it, over real
// connections.
func TestCallPaths(t *testing.T) {
	var got *received
	a := newAPI(t, newFakeRegistry(), func(_ context.Context, call *received) (faas.Result, error) {
		got = call
		return plainResult(`1`), nil
	})
	server := httptest.NewServer(a)
	defer server.Close()
	for sent, want := range map[string]struct{ target, ref, root, below string }{
		"/api/call/hello":                 {"", "hello", "/api/call/hello", ""},
		"/api/call/hello?a=/x":            {"", "hello", "/api/call/hello", ""},
		"/api/call/hello/":                {"", "hello", "/api/call/hello", "/"},
		"/api/call/hello//a/b":            {"", "hello", "/api/call/hello", "//a/b"},
		"/api/call/hello@3/a%20b":         {"", "hello@3", "/api/call/hello@3", "/a b"},
		"/api/call/hello%403/a%2Fb?x":     {"", "hello@3", "/api/call/hello%403", "/a%2Fb"},
		"/api/call/hello/a...b/.c/d./...": {"", "hello", "/api/call/hello", "/a...b/.c/d./..."},
		"http://x/api/call/hello/y?z=1":   {"/api/call/hello/y?z=1", "hello", "/api/call/hello", "/y"},
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "X-Y"} {
			got = nil
			status, header, body := rawRequest(t, server.Listener.Addr().String(), method+" "+sent+" HTTP/1.1\r\nHost: x\r\n\r\n")
			if status != 200 || got == nil {
				t.Errorf("%s %s: answered %d %s", method, sent, status, body)
				continue
			}
			if want.target == "" {
				want.target = sent
			}
			if got.Method != method || got.Target != want.target || got.Ref.String() != want.ref || got.Root != want.root || got.Below != want.below {
				t.Errorf("%s %s: called %+v, want %+v", method, sent, got, want)
			}
			if method == "HEAD" && (body != "" || header.Get("Content-Length") != "1") {
				t.Errorf("HEAD %s: answered %q with %v", sent, body, header)
			}
		}
	}
	// What may look like another function to a proxy in front is none for us.
	for sent, want := range map[string]int{
		"/api/call/hello/../other":           400,
		"/api/call/hello/..":                 400,
		"/api/call/hello/./x":                400,
		"/api/call/hello/%2e%2e/other":       400,
		"/api/call/hello/x%2f..%2F..%2fcall": 400,
		"/api/call/hello/%2E":                400,
		"/api/call/../call/hello":            400,
		"/api/call/%2e%2e/hello":             400,
		"/api/call/hello%2f..%2fother":       400,
		"/api/call//hello":                   400,
		"/api/call/":                         404,
		"/api//call/hello":                   404,
		"//api/call/hello":                   404,
		"/api/./call/hello":                  404,
		"/api/c%61ll/hello":                  404,
		"/api/call%2fhello":                  404,
	} {
		got = nil
		status, header, body := rawRequest(t, server.Listener.Addr().String(), "GET "+sent+" HTTP/1.1\r\nHost: x\r\n\r\n")
		wantProblem(t, status, header, body, want, map[int]faas.Code{400: faas.CodeBadRequest, 404: faas.CodeUnknownRoute}[want])
		if got != nil {
			t.Errorf("%s called %+v", sent, got)
		}
	}
}

// TestAllowOfCall: a function without the request says which methods it has.
func TestAllowOfCall(t *testing.T) {
	a := newAPI(t, newFakeRegistry(), func(context.Context, *received) (faas.Result, error) {
		return faas.Result{}, faas.Errorf(faas.CodeMethodNotAllowed, "not for it")
	})
	w := serve(a, "PUT", "/api/call/hello", "")
	wantProblem(t, w.Code, w.Header(), w.Body.String(), 405, faas.CodeMethodNotAllowed)
	if allow := strings.Join(w.Header().Values("Allow"), ", "); allow != "GET, HEAD, POST" {
		t.Errorf("Allow: %s", allow)
	}
}

// TestHead: wherever GET works HEAD does, with the headers alone, and a slash at
// the end does no harm.
func TestHead(t *testing.T) {
	a := newAPI(t, newFakeRegistry(), func(context.Context, *received) (faas.Result, error) { return plainResult(`{"result": 42}`), nil })
	server := httptest.NewServer(a)
	defer server.Close()
	for _, path := range []string{
		"/healthz", "/readyz", "/metrics", "/api/version", "/api/openapi.yaml", "/api/stats", "/api/functions", "/api/functions/hello",
		"/api/meta/hello", "/api/cs/hello", "/api/cs/h%65llo", "/api/call/hello", "/api/nothing", "/api/functions/a%20b",
	} {
		for _, slash := range []string{"", "/"} {
			ask := func(method string) (status int, header http.Header, body string) {
				return rawRequest(t, server.Listener.Addr().String(), method+" "+path+slash+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			}
			status, header, body := ask("GET")
			plain, _, _ := rawRequest(t, server.Listener.Addr().String(), "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			if status != plain {
				t.Errorf("GET %s: answered %d with a slash behind it, and %d without", path, status, plain)
			}
			headStatus, head, none := ask("HEAD")
			if headStatus != status || none != "" || head.Get("Content-Type") != header.Get("Content-Type") {
				t.Errorf("HEAD %s%s: answered %d %v %q, and GET %d %v", path, slash, headStatus, head, none, status, header)
			}
			if length := head.Get("Content-Length"); length != strconv.Itoa(len(body)) && status == 200 {
				t.Errorf("HEAD %s%s: Content-Length %q, and GET gives %d bytes", path, slash, length, len(body))
			}
		}
	}
}

// TestHeadOfStream: a function that streams hears at once that nobody listens.
func TestHeadOfStream(t *testing.T) {
	closed := make(chan struct{})
	body, function := io.Pipe()
	defer function.Close()
	a := newAPI(t, newFakeRegistry(), func(context.Context, *received) (faas.Result, error) {
		return streamResult(closer{body, closed}), nil
	})
	server := httptest.NewServer(a)
	defer server.Close()
	if status, _, _ := rawRequest(t, server.Listener.Addr().String(), "HEAD /api/call/hello HTTP/1.1\r\nHost: x\r\n\r\n"); status != 200 {
		t.Fatalf("answered %d", status)
	}
	<-closed
}

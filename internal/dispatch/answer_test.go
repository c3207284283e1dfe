package dispatch

import (
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox/sandboxtest"
)

func TestProperAnswers(t *testing.T) {
	for _, c := range []struct {
		name, answer string
		status       int
		header       http.Header
		body         string
	}{
		{"of a length", "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello", 200, nil, "hello"},
		{"in chunks", "HTTP/1.1 201 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n", 201, nil, "hello"},
		{"without a reason", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, nil, ""},
		{"with bare line feeds", "HTTP/1.1 200 OK\nContent-Length: 1\n\na", 200, nil, "a"},
		{"without content", "HTTP/1.1 204 X\r\nX-Y: z\r\n\r\n", 204, http.Header{"X-Y": {"z"}}, ""},
		{"not modified", "HTTP/1.1 304 X\r\nContent-Length: 0\r\n\r\n", 304, nil, ""},
		{"an error of its own", "HTTP/1.1 599 X\r\nContent-Length: 2\r\n\r\nno", 599, nil, "no"},
		{"the last on its connection", "HTTP/1.1 200 X\r\nConnection: close\r\nContent-Length: 1\r\n\r\na", 200, nil, "a"},
		{"with more behind it", "HTTP/1.1 200 X\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 X\r\nContent-Length: 1\r\n\r\nb", 200, nil, "a"},
		{"repeated headers", "HTTP/1.1 200 X\r\nset-cookie: a=1\r\nSET-COOKIE:b=2 \r\nContent-Length: 0\r\n\r\n", 200, http.Header{"Set-Cookie": {"a=1", "b=2"}}, ""},
		{"headers that are not the function's to send", "HTTP/1.1 200 X\r\nKeep-Alive: 1\r\nUpgrade: x\r\nFob-Version: 7\r\nContent-Length: 0\r\n\r\n", 200, nil, ""},
		{"of the greatest size", "HTTP/1.1 200 X\r\nContent-Length: 1048576\r\n\r\n" + strings.Repeat("x", 1<<20), 200, nil, strings.Repeat("x", 1<<20)},
	} {
		t.Run(c.name, func(t *testing.T) {
			simulated(t, nil, func(t *testing.T, w *world) {
				w.engine.calls["says"] = func(*fakeSandbox, *http.Request) string { return c.answer }
				fn := w.create("says", "")
				for range 2 { // the second one on what the first left of the connection
					result, err := w.Invoke(t.Context(), &faas.Invocation{Ref: faas.Ref{ID: fn.ID}}, nil)
					if err != nil {
						t.Fatal(err)
					}
					body, err := io.ReadAll(result.Body)
					length := int64(len(body))
					if c.name == "in chunks" {
						length = -1
					}
					if err != nil || result.Status != c.status || string(body) != c.body || result.Length != length {
						t.Errorf("answered %d %.40q of %d bytes, %v; want %d %.40q", result.Status, body, result.Length, err, c.status, c.body)
					}
					if kind := map[bool]string{true: "text/plain"}[c.name == "of a length"]; result.ContentType != kind {
						t.Errorf("the type is %q, want %q", result.ContentType, kind)
					}
					if !maps.EqualFunc(result.Header, c.header, slices.Equal) {
						t.Errorf("the header is %v, want %v", result.Header, c.header)
					}
				}
				if n := len(w.engine.running("says")); n != 1 {
					t.Errorf("%d sandboxes, want the first one still", n)
				}
			})
		})
	}
}

// TestStrayAnswers: what is not a call's answer is counted, and its sandbox goes.
func TestStrayAnswers(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.engine.streams = map[string]func(*fakeSandbox, net.Conn, *http.Request) bool{"strays": func(_ *fakeSandbox, c net.Conn, _ *http.Request) bool {
			_, err := io.WriteString(c.(*sandboxtest.Answerer).Conn, answerJSON(200, "of another call"))
			return err == nil
		}}
		fn := w.create("strays", "")
		for i := range 3 {
			w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, faas.CodeBadAnswer, "not the answer to this call")
			synctest.Wait()
			if n := testutil.ToFloat64(w.cfg.Metrics.StrayAnswers); n != float64(i+1) {
				t.Errorf("%v were counted", n)
			}
			if problem := w.atRest(); problem != "" || len(w.engine.there()) > 0 {
				t.Errorf("%d sandboxes are left, %s", len(w.engine.there()), problem)
			}
		}
	})
}

func TestOddAnswers(t *testing.T) {
	for _, c := range []struct {
		name, answer string
		code         faas.Code
		word         string
	}{
		{"no HTTP", "hello\n\n", faas.CodeBadAnswer, "hello"},
		{"a status that is none", "HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n", faas.CodeBadAnswer, "999"},
		{"an interim status", "HTTP/1.1 100 X\r\n\r\n", faas.CodeBadAnswer, "100"},
		{"no length", "HTTP/1.1 200 X\r\n\r\nhello", faas.CodeBadAnswer, "neither Content-Length"},
		{"two lengths", "HTTP/1.1 200 X\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", faas.CodeBadAnswer, "Content-Length"},
		{"a length and chunks", "HTTP/1.1 200 X\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", faas.CodeBadAnswer, "both"},
		{"a negative length", "HTTP/1.1 200 X\r\nContent-Length: -1\r\n\r\n", faas.CodeBadAnswer, "-1"},
		{"a body where none may be", "HTTP/1.1 204 X\r\nContent-Length: 1\r\n\r\na", faas.CodeBadAnswer, "no body"},
		{"too large", "HTTP/1.1 200 X\r\nContent-Length: 1048577\r\n\r\n", faas.CodeBadAnswer, "larger than 1048576 bytes"},
		{"a header line with a NUL", "HTTP/1.1 200 X\r\nA: \x00\r\nContent-Length: 0\r\n\r\n", faas.CodeBadAnswer, "header line"},
		{"a header without a colon", "HTTP/1.1 200 X\r\nhello\r\nContent-Length: 0\r\n\r\n", faas.CodeBadAnswer, "header line"},
		{"an unknown transfer coding", "HTTP/1.1 200 X\r\nTransfer-Encoding: gzip\r\n\r\n", faas.CodeBadAnswer, "gzip"},
		{"an error that is no document", "HTTP/1.1 500 X\r\nFob-Error: raised\r\nContent-Length: 2\r\n\r\n{}", faas.CodeBadAnswer, "not an error document"},
		{"an error of a strange kind", driverError(418, "teapot", "", "short and stout"), faas.CodeBadAnswer, "418 teapot: short and stout"},
		{"it raised", driverError(500, "raised", "KeyError", "'x'"), faas.CodeRaised, "raised KeyError: 'x'"},
		{"a result that JSON cannot hold", driverError(500, "bad_result", "", "a set"), faas.CodeBadResult, "a set"},
		{"wrong arguments", driverError(404, "bad_arguments", "", "no b"), faas.CodeBadArguments, "no b"},
		{"no JSON", driverError(400, "bad_request", "", "no JSON"), faas.CodeBadRequest, "no JSON"},
	} {
		t.Run(c.name, func(t *testing.T) {
			simulated(t, nil, func(t *testing.T, w *world) {
				w.engine.calls["odd"] = func(*fakeSandbox, *http.Request) string { return c.answer }
				fn := w.create("odd", "")
				w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, c.code, c.word)
				synctest.Wait()
				if problem := w.atRest(); problem != "" {
					t.Error(problem)
				}
				if kept := len(w.engine.there()) == 1; kept == (c.code == faas.CodeBadAnswer && c.name != "an error of a strange kind") {
					t.Errorf("the sandbox was kept: %t", kept)
				}
			})
		})
	}
}

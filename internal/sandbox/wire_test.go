package sandbox_test

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/sandbox"
	"github.com/flockofbirds/fob/internal/sandbox/sandboxtest"
)

const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

func TestAnswers(t *testing.T) {
	long := strings.Repeat("0123456789", 10_000)
	for what, c := range map[string]struct {
		answer string
		status int
		kind   string
		header http.Header
		body   string
	}{
		"fixed":                 {answer(200, "Content-Type: text/html; charset=utf-8\r\n", "<p>"), 200, "text/html; charset=utf-8", nil, "<p>"},
		"empty":                 {answer(404, "", ""), 404, "", nil, ""},
		"long":                  {answer(200, "", long), 200, "", nil, long},
		"as long as allowed":    {answer(200, "", strings.Repeat("x", maxAnswer)), 200, "", nil, strings.Repeat("x", maxAnswer)},
		"chunked":               {chunked + "3\r\nabc\r\nA;ext=1\r\n0123456789\r\n0\r\n\r\n", 200, "", nil, "abc0123456789"},
		"chunked, empty":        {chunked + "0\r\n\r\n", 200, "", nil, ""},
		"chunked, long":         {chunked + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(long), long), 200, "", nil, long},
		"chunked to the limit":  {chunked + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", maxAnswer, strings.Repeat("x", maxAnswer)), 200, "", nil, strings.Repeat("x", maxAnswer)},
		"no reason":             {"HTTP/1.1 599\r\nContent-Length: 1\r\n\r\nx", 599, "", nil, "x"},
		"no content":            {"HTTP/1.1 204 No Content\r\n\r\n", 204, "", nil, ""},
		"no content, and says":  {"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204, "", nil, ""},
		"not modified":          {"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", 304, "", http.Header{"Etag": {`"a"`}}, ""},
		"bare line feeds":       {"HTTP/1.1 200 OK\nContent-Length: 1\nX-A:b\n\nx", 200, "", http.Header{"X-A": {"b"}}, "x"},
		"names in any case":     {"HTTP/1.1 200 OK\r\ncontent-LENGTH: 1\r\nCONTENT-type:a/b\r\nx-mOOd: \t good \r\n\r\nx", 200, "a/b", http.Header{"X-Mood": {"good"}}, "x"},
		"the same length twice": {answer(200, "Content-Length: 1\r\n", "x"), 200, "", nil, "x"},
		"a field twice":         {answer(200, "Set-Cookie: a\r\nset-cookie: b\r\n", "x"), 200, "", http.Header{"Set-Cookie": {"a", "b"}}, "x"},
		"a long field":          {answer(200, "X-A: "+long[:50_000]+"\r\n", "x"), 200, "", http.Header{"X-A": {long[:50_000]}}, "x"},
		"an empty field":        {answer(200, "X-A:\r\n", "x"), 200, "", http.Header{"X-A": {""}}, "x"},
		"fields that stay back": {answer(200, "Keep-Alive: 5\r\nProxy-Authenticate: x\r\nTrailer: x\r\nUpgrade: x\r\nfob-version: 9\r\nFOB-ANYTHING: x\r\nX-A: b\r\n", "x"), 200, "", http.Header{"X-A": {"b"}}, "x"},
	} {
		for _, slowly := range []bool{false, true} {
			if slowly && len(c.answer) > 1000 {
				continue
			}
			conn, d := connect(t, func(nc net.Conn, r *http.Request, _ []byte) bool {
				all := sandboxtest.WithToken(c.answer, r.Header.Get("Fob-Call"))
				step := len(all)
				if slowly {
					step = 1
				}
				for i := 0; i < len(all); i += step {
					if _, err := nc.(*sandboxtest.Answerer).Conn.Write([]byte(all[i : i+step])); err != nil {
						return false
					}
				}
				return true
			})
			for range 2 {
				r, body, err := callWhole(conn, soon(), &sandbox.Request{})
				if err != nil {
					t.Errorf("%s: %v", what, err)
					continue
				}
				sameHeader := maps.EqualFunc(r.Header, c.header, func(a, b []string) bool { return strings.Join(a, "|") == strings.Join(b, "|") })
				if r.Status != c.status || r.ContentType != c.kind || !sameHeader || string(body) != c.body {
					t.Errorf("%s: got %d %q %v and %d bytes", what, r.Status, r.ContentType, r.Header, len(body))
				}
			}
			want := int32(1)
			if strings.HasPrefix(c.answer, chunked) {
				want = 2 // no call follows a stream
			}
			if n := d.accepted.Load(); n != want {
				t.Errorf("%s: 2 calls took %d connections", what, n)
			}
		}
	}
}

func TestBadAnswers(t *testing.T) {
	ok := func(header string) string { return "HTTP/1.1 200 OK\r\n" + header + "\r\n" }
	for what, answer := range map[string]string{
		"no HTTP":                      "hello there, dispatcher\r\n\r\n",
		"an empty line":                "\r\n\r\n",
		"HTTP/1.0":                     "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/2":                       "HTTP/2 200\r\nContent-Length: 0\r\n\r\n",
		"no status":                    "HTTP/1.1 \r\nContent-Length: 0\r\n\r\n",
		"a status of four digits":      "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
		"a status that is a word":      "HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
		"status 100":                   "HTTP/1.1 100 Continue\r\n\r\n",
		"status 101":                   "HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"status 600":                   "HTTP/1.1 600 X\r\nContent-Length: 0\r\n\r\n",
		"status 000":                   "HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n",
		"an endless status line":       "HTTP/1.1 200 " + strings.Repeat("x", 20_000) + "\r\n\r\n",
		"a field without colon":        ok("Content-Length: 0\r\nhello\r\n"),
		"a field without name":         ok("Content-Length: 0\r\n: x\r\n"),
		"a blank in a name":            ok("Content-Length: 0\r\nX A: b\r\n"),
		"a blank behind a name":        ok("Content-Length : 0\r\n"),
		"a folded field":               ok("Content-Length: 0\r\nX-A: b\r\n c\r\n"),
		"a name that is no ASCII":      ok("Content-Length: 0\r\nX-Ä: b\r\n"),
		"NUL in a value":               ok("Content-Length: 0\r\nX-A: b\x00\r\n"),
		"a carriage return in a value": ok("Content-Length: 0\r\nX-A: b\rX-B: c\r\n"),
		"an endless field":             ok("X-A: " + strings.Repeat("x", 20_000) + "\r\n"),
		"endless fields":               ok(strings.Repeat("X-A: "+strings.Repeat("x", 1000)+"\r\n", 100) + "Content-Length: 0\r\n"),
		"neither length nor chunks":    ok("") + "x",
		"length and chunks":            ok("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n",
		"another encoding":             ok("Transfer-Encoding: gzip, chunked\r\n") + "0\r\n\r\n",
		"a negative length":            ok("Content-Length: -1\r\n"),
		"a length with a sign":         ok("Content-Length: +1\r\n") + "x",
		"a length that is a word":      ok("Content-Length: abc\r\n"),
		"an empty length":              ok("Content-Length:\r\n"),
		"a huge length":                ok("Content-Length: 99999999999999999999\r\n"),
		"two lengths":                  ok("Content-Length: 1\r\nContent-Length: 2\r\n") + "xx",
		"two lengths in one":           ok("Content-Length: 1, 1\r\n") + "x",
		"one byte too large":           ok(fmt.Sprintf("Content-Length: %d\r\n", maxAnswer+1)),
		"far too large":                ok("Content-Length: 9000000000000000000\r\n"),
		"an error too large":           ok("Fob-Error: raised\r\nTransfer-Encoding: chunked\r\n") + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", maxAnswer+1, strings.Repeat("x", maxAnswer+1)),
		"a huge chunk":                 chunked + "fffffffffffffffff\r\n",
		"a chunk of no size":           chunked + "\r\nabc\r\n",
		"a chunk size that is a word":  chunked + "xyz\r\nabc\r\n0\r\n\r\n",
		"a negative chunk":             chunked + "-1\r\nabc\r\n",
		"a chunk longer than it says":  chunked + "1\r\nabc\r\n0\r\n\r\n",
		"an endless chunk size":        chunked + strings.Repeat("0", 20_000) + "\r\n",
		"trailers":                     chunked + "1\r\na\r\n0\r\nX-A: b\r\n\r\n",
		"an empty trailer":             chunked + "0\r\nFob-Error:\r\n\r\n",
		"two trailers":                 chunked + "0\r\nFob-Error: raised\r\nFob-Error: raised\r\n\r\n",
		"a long trailer":               chunked + "0\r\nFob-Error: " + strings.Repeat("x", 2000) + "\r\n\r\n",
		"an endless trailer":           chunked + "0\r\nFob-Error: " + strings.Repeat("x", 100_000),
		"a trailer with a NUL":         chunked + "0\r\nFob-Error: a\x00\r\n\r\n",
		"an error with a trailer":      ok("Fob-Error: raised\r\nTransfer-Encoding: chunked\r\n") + "2\r\n{}\r\n0\r\nX: y\r\n\r\n",
		"204 with a body":              "HTTP/1.1 204 No Content\r\nContent-Length: 1\r\n\r\nx",
		"304 with chunks":              "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"an error without document":    ok("Fob-Error: raised\r\nContent-Length: 0\r\n"),
		"an error that is no JSON":     ok("Fob-Error: raised\r\nContent-Length: 3\r\n") + "{]}",
		"an error of another shape":    ok("Fob-Error: raised\r\nContent-Length: 17\r\n") + `{"error": "text"}`,
		"an error without code":        ok("Fob-Error: raised\r\nContent-Length: 27\r\n") + `{"error": {"message": "x"}}`,
		"an error that is null":        ok("Fob-Error: raised\r\nContent-Length: 4\r\n") + `null`,
	} {
		t.Run(what, func(t *testing.T) {
			c, d := connect(t, raw(answer))
			for range 2 {
				r, _, err := callWhole(c, soon(), &sandbox.Request{})
				if !errors.Is(err, sandbox.ErrBadAnswer) || errors.Is(err, sandbox.ErrNotSent) {
					t.Fatalf("got %+v, %v", r, err)
				}
				if len(err.Error()) > 500 {
					t.Errorf("the message has %d bytes", len(err.Error()))
				}
			}
			// Who knows what else is in such a connection.
			if n := d.accepted.Load(); n != 2 {
				t.Errorf("2 calls took %d connections", n)
			}
		})
	}
}

func TestBadControlAnswers(t *testing.T) {
	for _, body := range []string{"", "null?", "[]", `{"state": 1}`} {
		c, _ := connect(t, raw(answer(200, "", body)))
		if h, err := c.Health(t.Context()); !errors.Is(err, sandbox.ErrBadAnswer) {
			t.Errorf("%q: got %+v, %v", body, h, err)
		}
	}
}

func TestDriverErrors(t *testing.T) {
	document := `{"error": {"code": "raised", "type": "KeyError", "message": "'x'", "line": 3, "traceback": "Traceback\n…", "more": 1}}`
	c, _ := connect(t, raw(answer(500, "FOB-Error: raised\r\n", document)))
	want := sandbox.DriverError{Status: 500, Code: "raised", Type: "KeyError", Message: "'x'", Line: 3, Traceback: "Traceback\n…"}
	for range 2 {
		_, err := c.Call(soon(), &sandbox.Request{})
		if e, ok := errors.AsType[*sandbox.DriverError](err); !ok || *e != want || errors.Is(err, sandbox.ErrBadAnswer) {
			t.Errorf("a call: got %v", err)
		}
		_, err = c.Load(t.Context(), sandbox.Load{Code: "x"})
		if e, ok := errors.AsType[*sandbox.DriverError](err); !ok || *e != want {
			t.Errorf("loading: got %v", err)
		}
	}
	// The function's own 500 is none.
	c, _ = connect(t, raw(answer(500, "", document)))
	if r, err := c.Call(soon(), &sandbox.Request{}); err != nil || r.Status != 500 || string(r.Body) != document {
		t.Errorf("got %+v, %v", r, err)
	}
}

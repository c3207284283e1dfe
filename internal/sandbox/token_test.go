package sandbox_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/flockofbirds/fob/internal/sandbox"
	"github.com/flockofbirds/fob/internal/sandbox/sandboxtest"
)

// unmarked is the connection of a driver as it is, for answers that bring no
// token back unless they have it.
func unmarked(nc net.Conn) net.Conn { return nc.(*sandboxtest.Answerer).Conn }

// watched is connect with a count of what strayed.
func watched(t testing.TB, reply reply) (*sandbox.Conn, *driver, *atomic.Int32) {
	t.Helper()
	c, d := connect(t, reply)
	var strays atomic.Int32
	c.OnStray = func() { strays.Add(1) }
	return c, d, &strays
}

func TestTokens(t *testing.T) {
	seen := map[string]bool{}
	c, _ := connect(t, func(nc net.Conn, r *http.Request, _ []byte) bool {
		token := r.Header.Get("Fob-Call")
		if len(token) != 16 || strings.Trim(token, "0123456789abcdef") != "" || seen[token] {
			t.Errorf("%s %s bears the token %q, seen: %t", r.Method, r.URL, token, seen[token])
		}
		seen[token] = true
		_, err := io.WriteString(nc, answer(200, "", `{"state": "loaded"}`))
		return err == nil
	})
	for range 100 {
		if _, err := c.Call(soon(), &sandbox.Request{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Health(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Load(t.Context(), sandbox.Load{}); err != nil || len(seen) != 201 {
		t.Errorf("%d tokens, %v", len(seen), err)
	}
}

// TestAnswersOfOthers: an answer that does not bring the call's token back is not
// given to its caller, whatever it is.
func TestAnswersOfOthers(t *testing.T) {
	const body = "the account of somebody else"
	for what, begin := range map[string]string{
		"no token":             answer(200, "", body),
		"another one":          answer(200, "Fob-Call: 0123456789abcdef\r\n", body),
		"the last call's":      answer(200, "Fob-Call: LAST\r\n", body),
		"an empty one":         answer(200, "Fob-Call: \r\n", body),
		"half of it":           answer(200, "Fob-Call: HALF\r\n", body),
		"more than it":         answer(200, "Fob-Call: TOKEN0\r\n", body),
		"not first":            answer(200, "X-A: b\r\nFob-Call: TOKEN\r\n", body),
		"an error without one": answer(500, "Fob-Error: raised\r\n", `{"error": {"code": "raised", "message": "`+body+`"}}`),
		"a stream without one": chunked + chunk(body) + lastChunk,
		"no HTTP":              body + "\r\n\r\n",
	} {
		t.Run(what, func(t *testing.T) {
			var last string
			c, d, strays := watched(t, func(nc net.Conn, r *http.Request, request []byte) bool {
				token := r.Header.Get("Fob-Call")
				text := strings.NewReplacer("LAST", last, "HALF", token[:8], "TOKEN", token).Replace(begin)
				last = token
				if string(request) == "good" {
					text = sandboxtest.WithToken(answer(200, "", "mine"), token)
				}
				_, err := io.WriteString(unmarked(nc), text)
				return err == nil
			})
			for i := range int32(2) {
				if r, err := c.Call(soon(), &sandbox.Request{Body: []byte("good")}); err != nil || string(r.Body) != "mine" {
					t.Fatalf("got %+v, %v", r, err)
				}
				r, got, err := callWhole(c, soon(), &sandbox.Request{})
				if !errors.Is(err, sandbox.ErrBadAnswer) || errors.Is(err, sandbox.ErrNotSent) || strings.Contains(string(got), body) {
					t.Fatalf("got %+v %q, %v", r, got, err)
				}
				if n, open := strays.Load(), d.accepted.Load(); n != i+1 || open != i+1 {
					t.Errorf("after %d such answers %d were counted, on %d connections", i+1, n, open)
				}
			}
			if _, err := c.Health(t.Context()); !errors.Is(err, sandbox.ErrBadAnswer) || strays.Load() != 3 {
				t.Errorf("health: %v, and %d were counted", err, strays.Load())
			}
		})
	}
}

// TestBytesOnAnIdleConnection: what comes while nobody asks is no answer to who
// asks next. Nothing was sent, so that call goes over another connection.
func TestBytesOnAnIdleConnection(t *testing.T) {
	for what, late := range map[string]string{
		"an answer": answer(200, "", "forged"),
		"a byte":    "x",
		"its end":   "",
	} {
		t.Run(what, func(t *testing.T) {
			idle := make(chan net.Conn, 1)
			c, d, strays := watched(t, func(nc net.Conn, _ *http.Request, _ []byte) bool {
				_, err := io.WriteString(nc, answer(200, "", "x"))
				idle <- unmarked(nc)
				return err == nil
			})
			for i := range int32(3) {
				if r, err := c.Call(soon(), &sandbox.Request{}); err != nil || string(r.Body) != "x" {
					t.Fatalf("got %+v, %v", r, err)
				}
				want := int32(0)
				if nc := <-idle; late == "" {
					nc.(*net.UnixConn).CloseWrite()
				} else if io.WriteString(nc, late); i > 0 {
					want = i
				}
				if n := d.accepted.Load(); n != i+1 || strays.Load() != want {
					t.Errorf("call %d took %d connections, and %d were counted", i+1, n, strays.Load())
				}
			}
		})
	}
}

// TestASecondAnswer: the first one bears the token, and stands.
func TestASecondAnswer(t *testing.T) {
	c, d, strays := watched(t, raw(answer(200, "", "x")+answer(200, "", "forged")))
	for i := range int32(2) {
		if r, err := c.Call(soon(), &sandbox.Request{}); err != nil || string(r.Body) != "x" {
			t.Fatalf("got %+v, %v", r, err)
		}
		if n := d.accepted.Load(); n != i+1 || strays.Load() != i+1 {
			t.Errorf("call %d: %d connections, and %d were counted", i+1, n, strays.Load())
		}
	}
}

// TestChunksOfAnotherStream: a process that was forked while a call streamed may
// go on sending its chunks, which bear no token.
func TestChunksOfAnotherStream(t *testing.T) {
	var first net.Conn
	c, _, _ := watched(t, func(nc net.Conn, _ *http.Request, _ []byte) bool {
		if first == nil {
			first = unmarked(nc)
			io.WriteString(nc, chunked+chunk("one")+lastChunk)
			return true
		}
		io.WriteString(nc, chunked+chunk("mine"))
		io.WriteString(first, chunk("forged"))
		_, err := io.WriteString(nc, lastChunk)
		return err == nil
	})
	for _, want := range []string{"one", "mine"} {
		if _, got, err := callWhole(c, soon(), &sandbox.Request{}); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
}

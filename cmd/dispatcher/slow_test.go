package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/front"
	"github.com/flockofbirds/fob/internal/httpapi"
)

// pipes is a listener whose connections are in memory, and hold nothing that has
// not been read, so that time can be a test's own.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	ended chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), ended: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case nc := <-p.conns:
		return nc, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.ended) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- server
	return client
}

// noFunctions is a registry in which there is nothing.
type noFunctions struct{ faas.Registry }

func (noFunctions) IDs(context.Context) ([]string, error) { return nil, nil }

func (noFunctions) Resolve(context.Context, faas.Ref) (*faas.Function, *faas.Version, error) {
	return nil, nil, faas.Errorf(faas.CodeUnknownFunction, "there is none")
}

// noAudit is an audit log that keeps nothing.
type noAudit struct{ faas.AuditLog }

func (noAudit) Record(faas.AuditEntry) {}

// noTokens is that nobody has made a token.
type noTokens struct{ faas.Tokens }

func (noTokens) Required() bool { return false }

// echoInvoker answers each call with as many bytes as its body has, or with
// much.
type echoInvoker struct{}

func (echoInvoker) Invoke(_ context.Context, call *faas.Invocation, live faas.LiveBody) (faas.Result, error) {
	body := call.Body
	if live != nil {
		defer live.Drop()
		got, rest, err := live.Receive()
		if err == nil && rest != nil {
			_, err = io.Copy(io.Discard, rest)
		}
		if err != nil {
			return faas.Result{}, err
		}
		body = got
	}
	length := int64(len(body))
	if call.Ref.Name == "much" {
		length = 4 << 20
	}
	return faas.Result{Status: 200, ContentType: "text/plain", Body: io.NopCloser(io.LimitReader(zeros{}, length)), Length: length}, nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// inFront runs a server as the dispatcher has it, over pipes, inside of a
// synctest bubble.
func inFront(maxConns int) (s *front.Server, listener *pipes, end func()) {
	api := httpapi.New(httpapi.Config{Log: zerolog.Nop(), Metrics: http.NotFoundHandler(), MaxBody: 64 << 10})
	api.Open(httpapi.Backend{Registry: noFunctions{}, Audit: noAudit{}, Tokens: noTokens{}, Invoker: echoInvoker{}})
	api.Unready(nil)
	s = newServer(api, maxConns)
	listener = newPipes()
	served := make(chan error)
	go func() { served <- s.Serve(listener) }()
	return s, listener, func() {
		s.Close()
		<-served
	}
}

// TestSlowClients: no client holds a connection by taking its time, whatever it
// takes it for.
func TestSlowClients(t *testing.T) {
	const post = " HTTP/1.1\r\nHost: localhost\r\n"
	for name, c := range map[string]struct {
		at    string // sent at once
		drip  string // then sent a byte a second, over and over
		reads bool   // whether it reads what comes
		ends  time.Duration
	}{
		"says nothing":                  {"", "", true, 10 * time.Second},
		"begins a call":                 {"", "GET /api/call/f?", true, 25 * time.Second},
		"headers of a call":             {"GET /api/call/f" + post, "X-A: b\r\n", true, 15 * time.Second},
		"headers":                       {"GET /healthz" + post, "X-A: b\r\n", true, 15 * time.Second},
		"half a request line":           {"GET /heal", "", true, 15 * time.Second},
		"idle after a call":             {"GET /api/call/f" + post + "\r\n", "", true, 2 * time.Minute},
		"idle":                          {"GET /healthz" + post + "\r\n", "", true, 2 * time.Minute},
		"headers of a second":           {"GET /healthz" + post + "\r\n", "GET /healthz HTTP/1.1\r\nX: ", true, 2 * time.Minute},
		"a call's body":                 {"POST /api/call/f" + post + "Content-Length: 1000\r\n\r\n", "x", true, time.Minute},
		"a call's chunks":               {"POST /api/call/f" + post + "Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", true, time.Minute},
		"a body that nobody reads":      {"POST /healthz" + post + "Content-Length: 1000\r\n\r\n", "x", true, time.Minute},
		"a body of a GET":               {"GET /healthz" + post + "Content-Length: 1000\r\n\r\n", "x", true, time.Minute},
		"chunks that nobody reads":      {"DELETE /api/stats" + post + "Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", true, time.Minute},
		"a body to no path":             {"POST /nothing" + post + "Content-Length: 200000\r\n\r\n", "", true, time.Minute},
		"another site's body":           {"POST /api/call/f" + post + "Origin: http://evil.test\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", true, time.Minute},
		"code":                          {"POST /api/gen" + post + "Content-Length: 1000\r\n\r\n", "x", true, time.Minute},
		"too large a body":              {"POST /api/gen" + post + "Content-Length: 1000000\r\n\r\n", "", true, time.Minute},
		"too many chunks":               {"POST /api/gen" + post + "Transfer-Encoding: chunked\r\n\r\n11170\r\n" + strings.Repeat("x", 70000) + "\r\n", "1\r\nx\r\n", true, time.Minute},
		"a body that streams, and ends": {"POST /api/call/f" + post + "Content-Length: 1000000\r\n\r\n" + strings.Repeat("x", 70000), "", true, 2 * time.Minute},
		"takes no answer to a call":     {"GET /api/call/f" + post + "\r\n", "", false, 2 * time.Minute},
		"takes no long answer":          {"GET /api/call/much" + post + "\r\n", "", false, 2 * time.Minute},
		"takes no answer":               {"GET /healthz" + post + "\r\n", "", false, 2 * time.Minute},
		"takes no answer to many":       {strings.Repeat("GET /healthz"+post+"\r\n", 20), "", false, 2 * time.Minute},
		"takes no error":                {"POST /api/stats" + post + "Content-Length: 3\r\n\r\nabc", "", false, 2 * time.Minute},
		"is no HTTP":                    {"\x16\x03\x01", "\x00", true, 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, listener, end := inFront(0)
				defer end()
				nc := listener.dial()
				begin := time.Now()
				var client sync.WaitGroup
				if c.reads {
					client.Go(func() { io.Copy(io.Discard, nc) })
				}
				// Long after its time is over, it ends by itself.
				late := time.AfterFunc(10*time.Minute, func() { nc.Close() })
				defer late.Stop()
				client.Go(func() {
					if c.at != "" {
						if _, err := io.WriteString(nc, c.at); err != nil {
							return
						}
					}
					for i := 0; c.drip != ""; i++ {
						time.Sleep(time.Second)
						if _, err := nc.Write([]byte{c.drip[i%len(c.drip)]}); err != nil {
							return
						}
					}
					if !c.reads { // until the server has given up
						for err := error(nil); err != io.ErrClosedPipe; _, err = nc.Write(nil) {
							time.Sleep(time.Second)
							nc.SetWriteDeadline(time.Now())
						}
					}
				})
				client.Wait()
				// What comes in drips is noticed a drip late.
				if took := time.Since(begin); took > c.ends+3*time.Second {
					t.Errorf("the connection was kept for %v, which may be %v", took, c.ends)
				}
				nc.Close()
			})
		})
	}
}

// TestMaxConnections: one connection more is told why not, and there is room
// again when one has ended, whoever served it.
func TestMaxConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, listener, end := inFront(3)
		defer end()
		var open []net.Conn
		for _, request := range []string{"GET /healthz HTTP/1.1\r\n\r\n", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET /api/call/f HTTP/1.1\r\nHost: localhost\r\n\r\n"} {
			nc := listener.dial()
			io.WriteString(nc, request)
			open = append(open, nc)
		}
		for i, nc := range open {
			synctest.Wait()
			full := listener.dial()
			answer, err := http.ReadResponse(bufio.NewReader(full), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(answer.Body)
			if answer.StatusCode != 503 || !answer.Close || answer.Header.Get("Retry-After") != "1" || answer.Header.Get("Content-Type") != "application/problem+json" ||
				!strings.Contains(string(body), `"code": "no_capacity"`) || !strings.Contains(string(body), "FOB_MAX_CONNECTIONS") {
				t.Errorf("one too many was answered %d %v %s", answer.StatusCode, answer.Header, body)
			}
			if _, err := full.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("it ended with %v", err)
			}
			full.Close()
			if i == 0 { // it was no HTTP, and is answered so
				io.Copy(io.Discard, nc)
			}
			nc.Close()
			synctest.Wait()
			again := listener.dial()
			io.WriteString(again, "GET /api/call/f HTTP/1.1\r\nHost: localhost\r\n\r\n")
			if answer, err := http.ReadResponse(bufio.NewReader(again), nil); err != nil || answer.StatusCode != 200 {
				t.Errorf("in the place of one that ended: %v, %v", answer, err)
			}
			defer again.Close()
		}
	})
}

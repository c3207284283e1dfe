package sandbox_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/flockofbirds/fob/internal/sandbox"
	"github.com/flockofbirds/fob/internal/sandbox/sandboxtest"
)

// TestMain fails when a test leaves a goroutine behind: those of the fake
// driver end when its connections do, so a leaked connection shows too.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// reply answers one request on nc, and reports whether the driver is to read
// another one from it.
type reply func(nc net.Conn, r *http.Request, body []byte) (more bool)

// driver is a driver whose answers a test makes up. It is an Instance, as far
// as a Conn needs one.
type driver struct {
	sandbox.Instance
	path     string
	accepted atomic.Int32
	open     atomic.Int32
}

// startDriver starts a driver on a Unix socket. At the end of the test all
// connections to it must be closed.
func startDriver(t testing.TB, reply reply) *driver {
	t.Helper()
	dir, err := os.MkdirTemp("", "fob") // t.TempDir's are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	d := &driver{path: filepath.Join(dir, sandbox.SocketName)}
	listener, err := net.Listen("unix", d.path)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			nc, err := listener.Accept()
			if err != nil {
				return
			}
			d.accepted.Add(1)
			d.open.Add(1)
			serving.Go(func() {
				defer d.open.Add(-1)
				defer nc.Close()
				in := bufio.NewReader(nc)
				for {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					var body []byte
					if r.Header.Get("Fob-Stream") == "" { // else the reply reads it
						body, err = io.ReadAll(r.Body)
					}
					if err != nil || !reply(sandboxtest.Answering(nc, r), r, body) {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		eventually(t, "all connections are closed", func() bool { return d.open.Load() == 0 })
		listener.Close()
		serving.Wait()
		os.RemoveAll(dir)
	})
	return d
}

// Dial implements sandbox.Instance.
func (d *driver) Dial(ctx context.Context) (net.Conn, error) {
	var dialer net.Dialer
	return dialer.DialContext(ctx, "unix", d.path)
}

// raw replies with bytes, whatever the request.
func raw(answer string) reply {
	return func(nc net.Conn, _ *http.Request, _ []byte) bool {
		_, err := io.WriteString(nc, answer)
		return err == nil
	}
}

// hangUp replies with bytes and closes the connection.
func hangUp(answer string) reply {
	return func(nc net.Conn, _ *http.Request, _ []byte) bool {
		io.WriteString(nc, answer)
		return false
	}
}

// answer is a proper answer with a Content-Length.
func answer(status int, header, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d X\r\n%sContent-Length: %d\r\n\r\n%s", status, header, len(body), body)
}

const maxAnswer = 1 << 20

// connect returns a Conn to a driver that is closed at the end of the test.
func connect(t testing.TB, reply reply) (*sandbox.Conn, *driver) {
	t.Helper()
	d := startDriver(t, reply)
	c := sandbox.NewConn(d, maxAnswer, nil)
	t.Cleanup(c.Close)
	return c, d
}

// callWhole makes a call and reads the answer to its end, whether it streams or
// not.
func callWhole(c *sandbox.Conn, deadline time.Time, request *sandbox.Request) (*sandbox.Response, []byte, error) {
	r, err := c.Call(deadline, request)
	if err != nil || r.Stream == nil {
		if r == nil {
			return nil, nil, err
		}
		return r, r.Body, err
	}
	body, err := io.ReadAll(r.Stream)
	return r, body, err
}

// soon is a deadline that no test reaches unless something hangs.
func soon() time.Time { return time.Now().Add(time.Minute) }

func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came about that %s", what)
		}
	}
}

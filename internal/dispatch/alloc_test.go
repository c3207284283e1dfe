package dispatch

import (
	"bytes"
	"context"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/observe"
	"github.com/flockofbirds/fob/internal/sandbox"
	"github.com/flockofbirds/fob/internal/sandbox/sandboxtest"
)

// maxCallAllocations is what one call of a plain function may allocate between
// the HTTP handler and the driver: 5 today, and one in reserve. Raise it only
// for something that every call is to pay for.
const maxCallAllocations = 6

// TestCallAllocations counts what a call allocates, metrics included.
func TestCallAllocations(t *testing.T) {
	call := scriptedCalls(t)
	if n := testing.AllocsPerRun(1000, call); n > maxCallAllocations {
		t.Errorf("a call allocates %v times, and %d is the bound", n, maxCallAllocations)
	}
}

// BenchmarkCall is the way from the HTTP handler to a driver that answers at
// once over a Unix socket, and back.
func BenchmarkCall(b *testing.B) {
	call := scriptedCalls(b)
	b.ReportAllocs()
	for b.Loop() {
		call()
	}
}

// scriptedCalls returns what calls a function once, observed as in the program,
// over a driver that itself allocates nothing.
func scriptedCalls(t testing.TB) func() {
	engine := &scriptedEngine{fakeEngine: newFakeEngine(), path: filepath.Join(t.TempDir(), "s")}
	engine.listen(t)
	w := newWorld(t, func(c *config) { c.Engine = engine })
	t.Cleanup(w.Close)
	fn := w.create("scripted", "")
	invoker := observe.Metrics(w.cfg.Metrics, observe.NewFailures(w.cfg.Log, nil))(w.Dispatcher)
	ref, answer := faas.Ref{ID: fn.ID}, make([]byte, 64)
	return func() {
		call := faas.Invocation{ID: "test", Ref: ref, Args: []byte(`{"a": "b"}`)}
		result, err := invoker.Invoke(context.Background(), &call, nil)
		if err != nil {
			t.Fatal(err)
		}
		n, _ := io.ReadFull(result.Body, answer)
		result.Body.Close()
		if string(answer[:n]) != scriptedResult {
			t.Fatalf("answered %q", answer[:n])
		}
	}
}

const scriptedResult = `{"result": 1}`

// scriptedEngine makes fake sandboxes whose driver is a real Unix socket's
// distance away, and says the same to every call.
type scriptedEngine struct {
	*fakeEngine
	path string
}

func (e *scriptedEngine) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Instance, error) {
	inst, err := e.fakeEngine.Create(ctx, spec)
	if err != nil {
		return nil, err
	}
	return &scriptedSandbox{inst, e.path}, nil
}

type scriptedSandbox struct {
	sandbox.Instance
	path string
}

func (s *scriptedSandbox) Dial(context.Context) (net.Conn, error) { return net.Dial("unix", s.path) }

// listen answers on the socket until the test ends.
func (e *scriptedEngine) listen(t testing.TB) {
	l, err := net.Listen("unix", e.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answerScripted(c)
		}
	}()
}

// answerScripted answers each request on a connection: a load with a health
// document, anything else with the result.
func answerScripted(c net.Conn) {
	defer c.Close()
	const token = "0123456789abcdef"
	health := []byte(sandboxtest.WithToken(answerJSON(200, sandbox.Health{State: "loaded"}), token))
	result := []byte(sandboxtest.WithToken("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "+
		strconv.Itoa(len(scriptedResult))+"\r\n\r\n"+scriptedResult, token))
	field := []byte("Fob-Call: ")
	end, load, request := []byte("\r\n\r\n"), []byte("PUT "), make([]byte, 0, 8<<10)
	for {
		n, err := c.Read(request[len(request):cap(request)])
		if err != nil {
			return
		}
		request = request[:len(request)+n]
		// What a load and a call here send goes out in one write.
		if !bytes.Contains(request, end) {
			continue
		}
		answer := result
		if bytes.HasPrefix(request, load) {
			answer = health
		}
		_, after, _ := bytes.Cut(request, field)
		copy(answer[bytes.Index(answer, field)+len(field):], after[:len(token)])
		if _, err := c.Write(answer); err != nil {
			return
		}
		request = request[:0]
	}
}

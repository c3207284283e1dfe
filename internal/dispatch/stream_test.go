package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/observe"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// streaming runs a test with a function "stream" whose items the test makes up.
func streaming(t *testing.T, test func(t *testing.T, w *world, items chan<- string)) {
	t.Helper()
	simulated(t, nil, func(t *testing.T, w *world) {
		items := make(chan string)
		w.engine.calls["stream"] = w.engine.calls["version"]
		w.engine.streams = map[string]func(*fakeSandbox, net.Conn, *http.Request) bool{"stream": generator(items)}
		test(t, w, items)
	})
}

// open makes a call, through the metrics, that is answered by a stream.
func (w *world) open(fn *faas.Function) faas.Result {
	w.t.Helper()
	result, err := observe.Metrics(w.cfg.Metrics, nil)(w.Dispatcher).Invoke(w.t.Context(), &faas.Invocation{Ref: faas.Ref{ID: fn.ID}}, nil)
	if err != nil || result.Length != -1 || result.Status != 200 {
		w.t.Fatalf("answered %+v, %v", result, err)
	}
	return result
}

// reads fails the test unless the next that comes of a body is that text.
func reads(t *testing.T, body io.Reader, want string) {
	t.Helper()
	buffer := make([]byte, 100)
	if n, err := body.Read(buffer); err != nil || string(buffer[:n]) != want {
		t.Fatalf("read %q, %v; want %q", buffer[:n], err, want)
	}
}

// ends reads a body to its end and returns how that was.
func ends(t *testing.T, body io.Reader, want string) outcome {
	t.Helper()
	text, err := io.ReadAll(body)
	if string(text) != want {
		t.Fatalf("read %q, %v; want %q", text, err, want)
	}
	return outcome{err: err}
}

// wantsMetrics fails the test unless the metrics have these lines.
func (w *world) wantsMetrics(lines ...string) {
	w.t.Helper()
	recorder := httptest.NewRecorder()
	w.cfg.Metrics.Handler().ServeHTTP(recorder, httptest.NewRequest("GET", "/metrics", nil))
	for _, line := range lines {
		if !strings.Contains(recorder.Body.String(), line+"\n") {
			w.t.Errorf("the metrics lack %s", line)
		}
	}
}

func callsTotal(fn *faas.Function, outcome string) string {
	return `fob_calls_total{function="` + fn.ID + `",outcome="` + outcome + `"} 1`
}

// wantsRest fails the test unless all is at rest, with so many sandboxes.
func (w *world) wantsRest(sandboxes int) {
	w.t.Helper()
	synctest.Wait()
	if problem := w.atRest(); problem != "" {
		w.t.Error(problem)
	}
	if n := len(w.engine.there()); n != sandboxes {
		w.t.Errorf("there are %d sandboxes, want %d", n, sandboxes)
	}
}

func TestStream(t *testing.T) {
	streaming(t, func(t *testing.T, w *world, items chan<- string) {
		fn := w.create("stream", "max_scale=1")
		result := w.open(fn)
		next := w.begin(t.Context(), fn)
		for _, text := range []string{"one", "two"} {
			items <- chunk(text)
			reads(t, result.Body, text)
			time.Sleep(time.Second)
			w.wantsMetrics("fob_calls_in_flight 1")
			if served := w.engine.served(); served != 1 {
				t.Fatalf("%d calls are in a sandbox that has one slot", served)
			}
		}
		items <- lastChunk
		ends(t, result.Body, "").wants(t, "")
		w.wantsMetrics("fob_calls_in_flight 0", callsTotal(fn, "ok"))
		result.Body.Close()
		items <- lastChunk
		(<-next).wants(t, "")
		w.wantsRest(1)
		if run := w.flockOf(fn).run; run < time.Second {
			t.Errorf("a stream of 2s counts as %v", run)
		}
	})
}

func TestStreamsThatFail(t *testing.T) {
	for _, c := range []struct {
		name, last string
		code       faas.Code
		kept       bool
	}{
		{"it raised", broken("raised"), faas.CodeRaised, true},
		{"an item that cannot be sent", broken("bad_result"), faas.CodeBadResult, true},
		{"something strange", broken("teapot"), faas.CodeBadAnswer, true},
		{"no chunk", "0x\r\n", faas.CodeBadAnswer, false},
		{"another trailer", "0\r\nX: y\r\n\r\n", faas.CodeBadAnswer, false},
		{"no last chunk", "0", faas.CodeSandboxDied, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			streaming(t, func(t *testing.T, w *world, items chan<- string) {
				fn := w.create("stream", "")
				result := w.open(fn)
				items <- chunk("half")
				reads(t, result.Body, "half")
				items <- c.last
				ends(t, result.Body, "").fails(t, c.code)
				ends(t, result.Body, "").fails(t, c.code) // as before
				result.Body.Close()
				w.wantsMetrics("fob_calls_in_flight 0", callsTotal(fn, "function_error"), `fob_call_errors_total{code="`+string(c.code)+`"} 1`)
				if c.kept {
					w.wantsRest(1)
				} else {
					w.wantsRest(0)
				}
			})
		})
	}
}

func TestStreamOfASandboxThatDies(t *testing.T) {
	streaming(t, func(t *testing.T, w *world, items chan<- string) {
		fn := w.create("stream", "")
		result := w.open(fn)
		items <- chunk("half")
		reads(t, result.Body, "half")
		w.engine.running("stream")[0].Remove(t.Context())
		ends(t, result.Body, "").fails(t, faas.CodeSandboxDied, "was removed")
		result.Body.Close()
		w.wantsRest(0)
	})
}

// The time is that of the whole answer, and the code is stopped in time whether
// somebody reads or not.
func TestStreamTimeout(t *testing.T) {
	for _, reading := range []bool{true, false} {
		streaming(t, func(t *testing.T, w *world, items chan<- string) {
			fn := w.create("stream", "timeout=10s")
			begun := time.Now()
			result := w.open(fn)
			items <- chunk("half")
			reads(t, result.Body, "half")
			time.Sleep(9 * time.Second)
			synctest.Wait()
			if n := len(w.engine.there()); n != 1 {
				t.Fatal("it was stopped early")
			}
			if reading {
				ends(t, result.Body, "").fails(t, faas.CodeTimeout, "timeout of 10s")
			} else {
				time.Sleep(time.Second)
			}
			w.wantsRest(0)
			if took := time.Since(begun); took != 10*time.Second {
				t.Errorf("it took %v", took)
			}
			if !reading {
				ends(t, result.Body, "").fails(t, faas.CodeTimeout)
			}
			result.Body.Close()
			w.wantsMetrics("fob_calls_in_flight 0", callsTotal(fn, "function_error"), `fob_call_errors_total{code="timeout"} 1`)
		})
	}
}

// When a caller leaves, the function is told, and its slot is free once it has
// ended and no sooner.
func TestLeavingAStream(t *testing.T) {
	streaming(t, func(t *testing.T, w *world, items chan<- string) {
		fn := w.create("stream", "max_scale=1")
		result := w.open(fn)
		items <- chunk("half")
		reads(t, result.Body, "half")
		next := w.begin(t.Context(), fn)
		synctest.Wait()
		result.Body.Close()
		result.Body.Close()
		w.wantsMetrics("fob_calls_in_flight 0", callsTotal(fn, "cancelled"))
		time.Sleep(5 * time.Second)
		still(t, next)
		if infos, _ := w.Sandboxes(t.Context(), fn.Live()); len(infos) != 1 || infos[0].InFlight != 1 {
			t.Errorf("the sandboxes are %+v, want one with a call in flight", infos)
		}
		w.engine.gate <- struct{}{}
		items <- chunk("whole")
		items <- lastChunk
		(<-next).wants(t, "whole")
		w.wantsRest(1)
	})
}

// The end of the caller's context is told to the function although a Read waits
// for it.
func TestLeavingAStreamThatIsRead(t *testing.T) {
	streaming(t, func(t *testing.T, w *world, items chan<- string) {
		fn := w.create("stream", "")
		ctx, leave := context.WithCancel(t.Context())
		result, err := observe.Metrics(w.cfg.Metrics, nil)(w.Dispatcher).Invoke(ctx, &faas.Invocation{Ref: faas.Ref{ID: fn.ID}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		items <- chunk("half")
		reads(t, result.Body, "half")
		go func() {
			time.Sleep(time.Second)
			leave()
			w.engine.gate <- struct{}{}
		}()
		if o := ends(t, result.Body, ""); o.err != context.Canceled {
			t.Errorf("it ended with %v", o.err)
		}
		result.Body.Close()
		w.wantsMetrics("fob_calls_in_flight 0", callsTotal(fn, "cancelled"))
		w.wantsRest(1)
	})
}

func TestLeavingAStreamThatDoesNotEnd(t *testing.T) {
	streaming(t, func(t *testing.T, w *world, items chan<- string) {
		fn := w.create("stream", "timeout=10s")
		result := w.open(fn)
		items <- chunk("half")
		result.Body.Close()
		time.Sleep(9 * time.Second)
		if n := len(w.engine.there()); n != 1 {
			t.Fatal("it was stopped early")
		}
		time.Sleep(time.Second)
		w.wantsRest(0)
	})
}

// Close does not wait for functions whose callers have left, before or after it;
// their sandboxes stay.
func TestClosingWhileAStreamIsLeft(t *testing.T) {
	for _, late := range []bool{false, true} {
		streaming(t, func(t *testing.T, w *world, items chan<- string) {
			fn := w.create("stream", "")
			result := w.open(fn)
			items <- chunk("half")
			begun := time.Now()
			if late {
				w.Close()
				result.Body.Close()
			} else {
				result.Body.Close()
				synctest.Wait()
				w.Close()
			}
			if took := time.Since(begun); took != 0 {
				t.Errorf("closing took %v", took)
			}
			synctest.Wait()
			if n := len(w.engine.there()); n != 1 {
				t.Errorf("there are %d sandboxes, want the one", n)
			}
			if infos, _ := w.Sandboxes(t.Context(), fn.Live()); infos[0].InFlight != 0 || infos[0].State == "draining" {
				t.Errorf("the sandbox is %+v", infos[0])
			}
			close(w.engine.gate)
		})
	}
}

// What ends a sandbox waits for its streams.
func TestStreamsEndWhole(t *testing.T) {
	for what, change := range map[string]func(w *world, fn *faas.Function){
		"DELETE":     func(w *world, fn *faas.Function) { w.Delete(w.t.Context(), faas.Ref{ID: fn.ID}) },
		"PUT":        func(w *world, fn *faas.Function) { w.put(fn, "version", "") },
		"scale down": func(w *world, fn *faas.Function) { w.Scale(time.Now().Add(time.Hour)) },
	} {
		t.Run(what, func(t *testing.T) {
			streaming(t, func(t *testing.T, w *world, items chan<- string) {
				fn := w.create("stream", "idle_timeout=1s timeout=1h")
				result := w.open(fn)
				items <- chunk("one")
				reads(t, result.Body, "one")
				change(w, fn)
				time.Sleep(time.Minute)
				items <- chunk("two")
				reads(t, result.Body, "two")
				items <- lastChunk
				ends(t, result.Body, "").wants(t, "")
				time.Sleep(time.Minute)
				if n := len(w.engine.running("stream")); n != 0 {
					t.Errorf("%d sandboxes are left of it", n)
				}
			})
		})
	}
}

// body is a call's body that a test can see to have been closed.
type body struct {
	io.Reader
	read   bool
	closed bool
}

func (b *body) Read(p []byte) (int, error) {
	b.read = true
	return b.Reader.Read(p)
}

func (b *body) Close() error {
	b.closed = true
	return nil
}

func (w *world) upload(fn *faas.Function, begin string, rest io.ReadCloser) outcome {
	result, err := w.Invoke(w.t.Context(), &faas.Invocation{Ref: faas.Ref{ID: fn.ID}, Method: "POST"}, &handed{begin: begin, rest: rest})
	if err != nil {
		return outcome{err: err}
	}
	defer result.Body.Close()
	text, err := io.ReadAll(result.Body)
	return outcome{body: string(text), err: err}
}

func TestStreamedRequests(t *testing.T) {
	streaming(t, func(t *testing.T, w *world, _ chan<- string) {
		w.engine.streams["echo"] = echo
		w.engine.takesRequest("echo")
		fn := w.create("echo", "")
		long := strings.Repeat("0123456789", 100_000)
		w.upload(fn, "begin ", &body{Reader: strings.NewReader(long)}).wants(t, "begin "+long)
		w.wantsRest(1)

		// The caller breaks off. The function is not to blame.
		lost := faas.Errorf(faas.CodeBadRequest, "the body ended before it was complete")
		w.upload(fn, "begin ", &body{Reader: failing{lost}}).fails(t, faas.CodeBadRequest, lost.Message)
		w.upload(fn, "begin ", &body{Reader: failing{io.ErrNoProgress}}).fails(t, faas.CodeBadRequest, "broke off")
		w.wantsRest(1)
	})
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// A function that does not take the request gets no body that it could not hold,
// and where that is known the call waits for nothing.
func TestStreamedRequestsToPlainFunctions(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_scale=1 idle_timeout=1s")
		call := w.begin(t.Context(), fn)
		synctest.Wait()
		rest := &body{Reader: strings.NewReader("x")}
		begun := time.Now()
		w.upload(fn, "begin", rest).fails(t, faas.CodeTooLarge, "parameter request")
		if took := time.Since(begun); took != 0 {
			t.Errorf("it took %v", took)
		}
		w.engine.gate <- struct{}{}
		(<-call).wants(t, `{"result":1}`)
		time.Sleep(time.Minute)
		w.wantsRest(0)

		// After a restart nobody knows before a sandbox has been loaded.
		w.Close()
		w.boot()
		w.upload(fn, "begin", rest).fails(t, faas.CodeTooLarge)
		w.wantsRest(1)
		if rest.read || rest.closed || w.engine.served() != 1 {
			t.Errorf("the body was touched, or sent: %+v", rest)
		}
	})
}

func TestAStreamedRequestAnsweredEarly(t *testing.T) {
	streaming(t, func(t *testing.T, w *world, _ chan<- string) {
		w.engine.streams["early"] = func(_ *fakeSandbox, c net.Conn, _ *http.Request) bool {
			io.WriteString(c, "HTTP/1.1 413 X\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
			return false
		}
		w.engine.takesRequest("early")
		fn := w.create("early", "")
		wait, done := io.Pipe()
		w.upload(fn, "begin", wait).wants(t, "no")
		if _, err := done.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the body is still read: %v", err)
		}
		w.wantsRest(1)
	})
}

// A timeout that is over before the call was sent costs the function nothing.
func TestACallWithoutTime(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "")
		f := w.flockOf(fn)
		slot, err := f.acquire(t.Context(), &faas.Timing{})
		if err != nil {
			t.Fatal(err)
		}
		err = slot.settle(fmt.Errorf("%w: %w", sandbox.ErrNotSent, os.ErrDeadlineExceeded), 0, time.Nanosecond)
		outcome{err: err}.fails(t, faas.CodeTimeout, "1ns")
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
		w.wantsRest(1)
	})
}

// A caller that leaves the line is no failure of ours.
func TestLeavingTheLineIsNoFailure(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_scale=1")
		first := w.begin(t.Context(), fn)
		synctest.Wait()
		ctx, leave := context.WithCancel(t.Context())
		go func() {
			time.Sleep(time.Second)
			leave()
		}()
		_, err := observe.Metrics(w.cfg.Metrics, nil)(w.Dispatcher).Invoke(ctx, &faas.Invocation{Ref: faas.Ref{ID: fn.ID}}, nil)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		w.wantsMetrics("fob_calls_in_flight 0", callsTotal(fn, "cancelled"))
		w.engine.gate <- struct{}{}
		(<-first).wants(t, `{"result":1}`)
	})
}

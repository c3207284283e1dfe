package dispatch

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// invoke makes a call whose caller waits that long, and says how long it took.
func (w *world) invoke(fn *faas.Function, wait time.Duration) (outcome, time.Duration) {
	begun := time.Now()
	result, err := w.Invoke(context.Background(), &faas.Invocation{Ref: faas.Ref{ID: fn.ID}, Timeout: wait}, nil)
	o := outcome{err: err}
	if err == nil {
		var body []byte
		body, o.err = io.ReadAll(result.Body)
		o.body = string(body)
		result.Body.Close()
	}
	return o, time.Since(begun)
}

// TestTimeouts: the function's own ends its code, a caller's only the caller's
// wait.
func TestTimeouts(t *testing.T) {
	for _, wait := range []time.Duration{0, time.Hour, 10 * time.Second} {
		simulated(t, nil, func(t *testing.T, w *world) {
			fn := w.create("forever", "timeout=10s")
			o, took := w.invoke(fn, wait)
			o.fails(t, faas.CodeTimeout, "its timeout of 10s", "stopped")
			if took != 10*time.Second {
				t.Errorf("with a caller's timeout of %v it took %v", wait, took)
			}
			w.wantsRest(0)
		})
	}
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "timeout=10s max_scale=1 queue=1")
		s := w.engine.running("gated")[0]
		for _, wait := range []time.Duration{200 * time.Microsecond, 2 * time.Second} {
			o, took := w.invoke(fn, wait)
			o.fails(t, faas.CodeTimeout, "Fob-Timeout of "+wait.String(), "runs on", "timeout of 10s")
			if took != wait {
				t.Errorf("with a caller's timeout of %v it took %v", wait, took)
			}
			if e, _ := errors.AsType[*faas.Error](o.err); e.Code.Retryable() {
				t.Error("a call that runs may be made again")
			}
			// It has its slot, so that the next call waits for it.
			next := w.begin(t.Context(), fn)
			synctest.Wait()
			if n := w.flockOf(fn).census().waiting; n != 1 {
				t.Errorf("%d calls wait, want the next one", n)
			}
			w.engine.gate <- struct{}{}
			w.engine.gate <- struct{}{}
			(<-next).wants(t, `{"result":1}`)
			synctest.Wait()
			if there := w.engine.there(); len(there) != 1 || there[0] != s {
				t.Fatalf("%d sandboxes, want the first one still", len(there))
			}
		}
		// Who is answered in time is answered.
		go func() { w.engine.gate <- struct{}{} }()
		o, _ := w.invoke(fn, time.Second)
		o.wants(t, `{"result":1}`)
		w.wantsRest(1)
		// And the function's own timeout comes in any case.
		o, _ = w.invoke(fn, time.Second)
		o.fails(t, faas.CodeTimeout, "Fob-Timeout of 1s")
		time.Sleep(9*time.Second - time.Nanosecond)
		synctest.Wait()
		if n := len(w.engine.there()); n != 1 {
			t.Errorf("%d sandboxes before the function's timeout, want 1", n)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		w.wantsRest(0)
	})
}

// TestTimeoutsOfStreams: a caller whose time is over hears no more, and the
// function is told that nobody reads on.
func TestTimeoutsOfStreams(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		items, told := make(chan string), 0
		w.engine.streams = map[string]func(*fakeSandbox, net.Conn, *http.Request) bool{"stream": func(s *fakeSandbox, c net.Conn, r *http.Request) bool {
			defer func() { told++ }()
			return generator(items)(s, c, r)
		}}
		fn := w.create("stream", "timeout=10s")
		go func() {
			items <- chunk("a")
			time.Sleep(time.Second)
			items <- chunk("b")
		}()
		o, took := w.invoke(fn, 2*time.Second)
		o.fails(t, faas.CodeTimeout, "Fob-Timeout of 2s", "runs on")
		if o.body != "ab" || took != 2*time.Second {
			t.Errorf("it read %q in %v", o.body, took)
		}
		synctest.Wait()
		if told != 0 || w.atRest() == "" {
			t.Error("the call is over although the function runs")
		}
		w.engine.gate <- struct{}{} // that it was told, which the generator waits for
		w.wantsRest(1)

		// One that ends in time is whole, and one that breaks off says so.
		for _, end := range []string{lastChunk, broken("raised")} {
			go func() {
				items <- chunk("a")
				items <- end
			}()
			if o, _ := w.invoke(fn, 2*time.Second); o.body != "a" || (o.err == nil) != (end == lastChunk) {
				t.Errorf("it read %q, %v", o.body, o.err)
			}
			w.wantsRest(1)
		}

		// A reader who leaves is noticed as ever.
		go func() { items <- chunk("a") }()
		result, err := w.Invoke(t.Context(), &faas.Invocation{Ref: faas.Ref{ID: fn.ID}, Timeout: time.Second}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := result.Body.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		result.Body.Close()
		w.engine.gate <- struct{}{}
		w.wantsRest(1)

		// Before the head it is like any other call; its stream is nobody's.
		o, took = w.invoke(fn, time.Second)
		o.fails(t, faas.CodeTimeout, "Fob-Timeout of 1s")
		if took != time.Second {
			t.Errorf("it took %v", took)
		}
		w.engine.gate <- struct{}{}
		w.wantsRest(1)
	})
}

// TestTimeoutOfAnUpload: nothing is read of a caller's body once its time is over.
func TestTimeoutOfAnUpload(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.engine.takesRequest("echo")
		w.engine.streams = map[string]func(*fakeSandbox, net.Conn, *http.Request) bool{"echo": echo}
		fn := w.create("echo", "timeout=10s")
		body, writer := io.Pipe()
		result, err := w.Invoke(t.Context(), &faas.Invocation{Ref: faas.Ref{ID: fn.ID}, Method: "POST", Target: "/", Timeout: time.Second}, &handed{begin: "begin", rest: body})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(result.Body)
		if string(got) != "begin" || faas.CodeOf(err) != faas.CodeTimeout {
			t.Errorf("read %q, %v", got, err)
		}
		result.Body.Close()
		if _, err := writer.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the body is still read: %v", err)
		}
		w.wantsRest(1)
	})
}

// TestClosingWhileNobodyWaits: the next dispatcher adopts the sandbox.
func TestClosingWhileNobodyWaits(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "timeout=10s")
		o, _ := w.invoke(fn, time.Second)
		o.fails(t, faas.CodeTimeout, "Fob-Timeout")
		begun := time.Now()
		w.Close()
		if took := time.Since(begun); took > time.Second {
			t.Errorf("closing took %v", took)
		}
		if n := len(w.engine.running("gated")); n != 1 {
			t.Errorf("%d sandboxes, want one to adopt", n)
		}
		close(w.engine.gate)
		w.boot()
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
	})
}

// TestManyImpatientCallers: they cost no sandbox, and nothing is left of them.
func TestManyImpatientCallers(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.engine.calls["naps"] = func(s *fakeSandbox, _ *http.Request) string {
			time.Sleep(5 * time.Millisecond)
			return s.version()
		}
		fn := w.create("naps", "max_scale=1 concurrency=4 queue=1000")
		s := w.engine.running("naps")[0]
		together(50, func(i int) {
			for j := range 20 {
				o, _ := w.invoke(fn, time.Duration(i*j%10+1)*time.Millisecond)
				if o.err != nil && (faas.CodeOf(o.err) != faas.CodeTimeout || !strings.Contains(o.err.Error(), "Fob-Timeout")) {
					t.Errorf("got %v", o.err)
				}
			}
		})
		time.Sleep(time.Second)
		w.wantsRest(1)
		if there := w.engine.there(); there[0] != s {
			t.Error("the sandbox was replaced")
		}
	})
}

// TestClosingWhileNobodyReads: the same for a stream whose reader's time is over.
func TestClosingWhileNobodyReads(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		items := make(chan string)
		w.engine.streams = map[string]func(*fakeSandbox, net.Conn, *http.Request) bool{"stream": generator(items)}
		fn := w.create("stream", "timeout=1h")
		go func() { items <- chunk("a") }()
		o, _ := w.invoke(fn, time.Second)
		o.fails(t, faas.CodeTimeout, "Fob-Timeout")
		begun := time.Now()
		w.Close()
		if took := time.Since(begun); took > time.Second {
			t.Errorf("closing took %v", took)
		}
		if n := len(w.engine.running("stream")); n != 1 {
			t.Errorf("%d sandboxes, want one to adopt", n)
		}
		close(w.engine.gate)
		w.boot()
	})
}

// TestNothingReadsAfterClose: whoever closes a stream may do with the call's body
// what it likes.
func TestNothingReadsAfterClose(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.engine.takesRequest("echo")
		w.engine.streams = map[string]func(*fakeSandbox, net.Conn, *http.Request) bool{"echo": echo}
		fn := w.create("echo", "timeout=10s")
		for range 20 { // without it this is a matter of luck
			body := &slowBody{closed: make(chan struct{})}
			result, err := w.Invoke(t.Context(), &faas.Invocation{Ref: faas.Ref{ID: fn.ID}, Method: "POST", Target: "/"}, &handed{begin: "begin", rest: body})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(result.Body, make([]byte, len("begin"))); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if body.reads.Load() == 0 {
				t.Fatal("the body is not being read")
			}
			result.Body.Close()
			if body.reads.Load() != 0 {
				t.Error("the body is still being read")
			}
			w.wantsRest(1)
		}
	})
}

// slowBody is a body of which nothing comes.
type slowBody struct {
	reads  atomic.Int32 // that wait
	once   sync.Once
	closed chan struct{}
}

func (b *slowBody) Read([]byte) (int, error) {
	b.reads.Add(1)
	defer b.reads.Add(-1)
	<-b.closed
	return 0, io.ErrClosedPipe
}

func (b *slowBody) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

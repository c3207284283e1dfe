package dispatch

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// TestRefusedBeforeItsBody: a call that would be refused at once is, and nobody
// reads its body.
func TestRefusedBeforeItsBody(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		off := w.create("off", "max_concurrency=0")
		busy := w.create("gated", "max_scale=1 concurrency=1 queue=1")
		limited := w.create("gated", "max_scale=8 concurrency=1 queue=1 max_concurrency=1")
		var calls []<-chan outcome
		for _, fn := range []*faas.Function{busy, limited} {
			calls = append(calls, w.beginAll(fn, 2)...) // one runs, one waits
		}
		time.Sleep(time.Second)
		synctest.Wait()
		for ref, code := range map[faas.Ref]faas.Code{
			{ID: off.ID}:                 faas.CodeOverLimit,
			{ID: busy.ID}:                faas.CodeOverLimit,
			{ID: limited.ID}:             faas.CodeOverLimit,
			{Name: "nobody"}:             faas.CodeUnknownFunction,
			{ID: busy.ID, Alias: "none"}: faas.CodeUnknownFunction,
		} {
			body := &handed{}
			result, err := w.Invoke(t.Context(), &faas.Invocation{Ref: ref}, body)
			if faas.CodeOf(err) != code || body.received {
				t.Errorf("%v: %v, %v; the body is read: %v", ref, result, err, body.received)
			}
		}
		w.check()
		close(w.engine.gate)
		for _, call := range calls {
			(<-call).wants(t, `{"result":1}`)
		}
	})
}

// TestSlowBodiesHoldNothing: while a body comes its call has neither a slot nor a
// place in line, and what has changed meanwhile counts.
func TestSlowBodiesHoldNothing(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "max_scale=1 concurrency=1 queue=0")
		ref := faas.Ref{ID: fn.ID}
		come := make(chan struct{})
		slow := make(chan error, 5)
		for range cap(slow) {
			go func() {
				result, err := w.Invoke(t.Context(), &faas.Invocation{Ref: ref}, &handed{begin: "{}", receive: func() error {
					<-come
					return nil
				}})
				if err == nil {
					result.Body.Close()
				}
				slow <- err
			}()
		}
		synctest.Wait()
		for range 3 {
			if _, err := w.Invoke(t.Context(), &faas.Invocation{Ref: ref}, nil); err != nil {
				t.Errorf("beside %d slow bodies: %v", cap(slow), err)
			}
		}
		if err := w.Delete(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
		close(come)
		for range cap(slow) {
			if err := <-slow; faas.CodeOf(err) != faas.CodeUnknownFunction {
				t.Errorf("a call whose function went while its body came: %v", err)
			}
		}
	})
}

// TestBodyIsDropped: a body that was received is dropped, whatever becomes of its
// call, and not before it was sent.
func TestBodyIsDropped(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "max_scale=1")
		gone := w.create("version", "")
		invoke := func(fn *faas.Function, ctx context.Context, wait time.Duration, body *handed) (err error) {
			defer func() {
				if p := recover(); p != nil {
					err = fmt.Errorf("panic: %v", p)
				}
			}()
			result, err := w.Invoke(ctx, &faas.Invocation{Ref: faas.Ref{ID: fn.ID}, Timeout: wait}, body)
			if err == nil {
				result.Body.Close()
			}
			return err
		}
		for _, wait := range []time.Duration{0, 10 * time.Second} {
			body := &handed{begin: "{}"}
			if err := invoke(fn, t.Context(), wait, body); err != nil || body.dropped.Load() != 1 {
				t.Errorf("sent: %v, and the body was dropped %d times", err, body.dropped.Load())
			}
		}
		broken := &handed{receive: func() error { return faas.Errorf(faas.CodeBadRequest, "the body ended") }}
		if err := invoke(fn, t.Context(), 0, broken); faas.CodeOf(err) != faas.CodeBadRequest || broken.dropped.Load() == 0 {
			t.Errorf("broken off: %v, and the body was not dropped", err)
		}
		late := &handed{receive: func() error { return w.Delete(t.Context(), faas.Ref{ID: gone.ID}) }}
		if err := invoke(gone, t.Context(), 0, late); faas.CodeOf(err) != faas.CodeUnknownFunction || late.dropped.Load() == 0 {
			t.Errorf("refused once it was there: %v, and the body was not dropped", err)
		}
		w.engine.gate = nil // whoever waits for it waits for ever
		busy := w.create("gated", "max_scale=1 concurrency=1 queue=10")
		w.begin(t.Context(), busy)
		synctest.Wait()
		waiting := &handed{begin: "{}"}
		if err := invoke(busy, panics{t.Context()}, 0, waiting); err == nil || !strings.Contains(err.Error(), "on purpose") || waiting.dropped.Load() == 0 {
			t.Errorf("in a panic: %v, and the body was not dropped", err)
		}
	})
}

// panics is a context that panics when somebody asks for its end.
type panics struct{ context.Context }

func (panics) Done() <-chan struct{} { panic("on purpose") }

// TestBodyGoesToAnotherSandbox: a body is received once, and is still whole when the first
// sandbox dies before it takes the call.
func TestBodyGoesToAnotherSandbox(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.engine.takesRequest("echo")
		w.engine.streams = map[string]func(*fakeSandbox, net.Conn, *http.Request) bool{"echo": func(_ *fakeSandbox, c net.Conn, r *http.Request) bool {
			all, _ := io.ReadAll(r.Body)
			io.WriteString(c, streamHead+chunk(string(all))+lastChunk)
			return false
		}}
		for _, wait := range []time.Duration{0, 10 * time.Second} {
			for _, rest := range []string{"", "and the rest"} {
				fn := w.create("echo", "")
				w.engine.running("echo")[0].hangUp()
				body := &handed{begin: strings.Repeat("begin ", 10_000)}
				if rest != "" {
					body.rest = io.NopCloser(strings.NewReader(rest))
				}
				result, err := w.Invoke(t.Context(), &faas.Invocation{Ref: faas.Ref{ID: fn.ID}, Method: "POST", Target: "/", Timeout: wait}, body)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(result.Body)
				result.Body.Close()
				if string(got) != body.begin+rest || err != nil || body.dropped.Load() != 1 {
					t.Errorf("of %d bytes and %q the other sandbox got %d, %v; the body was dropped %d times", len(body.begin), rest, len(got), err, body.dropped.Load())
				}
				if err := w.Delete(t.Context(), faas.Ref{ID: fn.ID}); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
			}
		}
	})
}

// TestBodyIsTheSenders: an answer may begin while the call's body is still being sent,
// which is not dropped before that is done.
func TestBodyIsTheSenders(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		read := make(chan struct{})
		w.engine.takesRequest("early")
		w.engine.streams = map[string]func(*fakeSandbox, net.Conn, *http.Request) bool{"early": func(_ *fakeSandbox, c net.Conn, r *http.Request) bool {
			io.WriteString(c, streamHead)
			<-read
			io.Copy(io.Discard, r.Body)
			io.WriteString(c, lastChunk)
			return false
		}}
		fn := w.create("early", "")
		body := &handed{begin: strings.Repeat("x", 1<<20), rest: io.NopCloser(strings.NewReader("end"))}
		result, err := w.Invoke(t.Context(), &faas.Invocation{Ref: faas.Ref{ID: fn.ID}, Method: "POST", Target: "/"}, body)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := body.dropped.Load(); n != 0 {
			t.Errorf("the body was dropped %d times while it is being sent", n)
		}
		close(read)
		if _, err := io.Copy(io.Discard, result.Body); err != nil {
			t.Error(err)
		}
		result.Body.Close()
		if n := body.dropped.Load(); n != 1 {
			t.Errorf("the body was dropped %d times", n)
		}
		w.wantsRest(1)
	})
}

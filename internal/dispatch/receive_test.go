package dispatch

import (
	"fmt"
	"net/http"
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
			call := &faas.Call{Ref: ref, Receive: func() error {
				t.Errorf("%v: the body is read", ref)
				return nil
			}}
			result, err := w.Invoke(t.Context(), call)
			if faas.CodeOf(err) != code || call.Receive == nil {
				t.Errorf("%v: %v, %v", ref, result, err)
			}
		}
		w.check()
		w.shows(fmt.Sprintf("fob_calls_throttled_total{function=%q,version=\"1\"} 1", off.ID))
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
				call := &faas.Call{Ref: ref}
				call.Receive = func() error {
					<-come
					call.Body = []byte("{}")
					return nil
				}
				result, err := w.Invoke(t.Context(), call)
				if err == nil {
					result.Body.Close()
				}
				slow <- err
			}()
		}
		synctest.Wait()
		for range 3 {
			if _, err := w.Invoke(t.Context(), &faas.Call{Ref: ref}); err != nil {
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

// TestBodyIsTheSenders: while a call is sent and runs, nobody else may drop its body;
// one that was not sent is dropped by whoever made the call.
func TestBodyIsTheSenders(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		for _, wait := range []time.Duration{0, 10 * time.Second} {
			dropped := 0
			call := &faas.Call{Timeout: wait, Body: []byte("{}"), Drop: func() { dropped++ }}
			w.engine.calls["looks"] = func(s *fakeSandbox, _ *http.Request) string {
				if call.Drop != nil {
					t.Error("while it runs others may drop the body")
				}
				return s.version()
			}
			call.Ref = faas.Ref{ID: w.create("looks", "max_scale=1").ID}
			result, err := w.Invoke(t.Context(), call)
			if err != nil {
				t.Fatal(err)
			}
			result.Body.Close()
			if call.Drop == nil || dropped != 1 {
				t.Errorf("then the body was dropped %d times, and may be again: %v", dropped, call.Drop != nil)
			}
		}
	})
}

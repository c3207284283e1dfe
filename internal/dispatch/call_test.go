package dispatch

import (
	"context"
	"io"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/observe"
	"github.com/flockofbirds/fob/internal/sandbox"
)

func TestACallThatWasNotSentGoesToAnotherSandbox(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "")
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
		dead := w.engine.running("version")[0]
		dead.hangUp()
		observed := observe.Metrics(w.cfg.Metrics, nil)(w.Dispatcher)
		result, err := observed.Invoke(t.Context(), &faas.Invocation{Ref: faas.Ref{ID: fn.ID}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(result.Body); string(body) != `{"result":1}` || result.Length != int64(len(body)) {
			t.Errorf("answered %q of %d bytes", body, result.Length)
		}
		synctest.Wait()
		if there := w.engine.there(); len(there) != 1 || there[0] == dead {
			t.Errorf("there are %d sandboxes, want one in the dead one's place", len(there))
		}
		recorder := httptest.NewRecorder()
		w.cfg.Metrics.Handler().ServeHTTP(recorder, httptest.NewRequest("GET", "/metrics", nil))
		for _, want := range []string{`fob_calls_total{function="` + fn.ID + `",outcome="ok"} 1`, "fob_calls_in_flight 0"} {
			if !strings.Contains(recorder.Body.String(), want+"\n") {
				t.Errorf("the metrics lack %s", want)
			}
		}
	})
}

// The bytes were on their way: running twice would be worse than failing.
func TestACallThatMayHaveRunIsNotRepeated(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("crash", "")
		w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, faas.CodeSandboxDied, "exited with code 3")
		if served := w.engine.served(); served != 1 {
			t.Errorf("the call ran %d times", served)
		}
	})
}

func TestSandboxesThatNeverTakeACall(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.engine.calls["shy"] = w.engine.calls["version"]
		fn := w.create("shy", "")
		w.engine.running("shy")[0].hangUp()
		// The next ones say that they are loaded, and are not to be reached.
		w.engine.loads["shy"] = func(s *fakeSandbox) string {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.deaf = true
			return "HTTP/1.1 200 X\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
		}
		w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, faas.CodeNoCapacity, "die before they take a call")
		synctest.Wait()
		if n := len(w.engine.born); n != maxAttempts {
			t.Errorf("%d sandboxes were tried, want %d", n, maxAttempts)
		}
	})
}

func TestTimeout(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("forever", "timeout=2s")
		begun := time.Now()
		w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, faas.CodeTimeout, "timeout of 2s", "stopped")
		if n := len(w.engine.there()); n != 0 {
			t.Error("the code was still running when the answer came")
		}
		if took := time.Since(begun); took != 2*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// The other calls in a sandbox that is to be stopped finish first.
func TestTimeoutInASharedSandbox(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "timeout=10s concurrency=2 max_scale=1")
		begun := time.Now()
		first := w.begin(t.Context(), fn)
		time.Sleep(6 * time.Second)
		second := w.begin(t.Context(), fn)
		time.Sleep(5 * time.Second) // the first one's time is over
		synctest.Wait()
		still(t, first, second)
		third := w.begin(t.Context(), fn) // goes to a sandbox of its own
		synctest.Wait()
		shared := w.engine.running("gated")
		if len(shared) != 2 {
			t.Fatalf("%d sandboxes, want the one that finishes and a new one", len(shared))
		}
		// Two gated calls wait in the old sandbox, one in the new. Whichever
		// are let through in the old one, its last end removes it.
		time.Sleep(4 * time.Second)
		close(w.engine.gate)
		(<-second).wants(t, `{"result":1}`)
		(<-first).fails(t, faas.CodeTimeout)
		(<-third).wants(t, `{"result":1}`)
		if took := time.Since(begun); took != 15*time.Second {
			t.Errorf("the calls ended after %v, want 15s", took)
		}
		synctest.Wait()
		if there := w.engine.there(); len(there) != 1 || there[0] != shared[1] {
			t.Errorf("%d sandboxes are left, want the new one", len(there))
		}
	})
}

// A sandbox that is to be stopped takes no more calls, whoever waits.
func TestNoSlotInASandboxThatLeaves(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "timeout=10s concurrency=2 max_scale=1")
		created := make(chan struct{})
		w.engine.set(func() { w.engine.creating = created })
		first := w.begin(t.Context(), fn)
		time.Sleep(5 * time.Second)
		second := w.begin(t.Context(), fn)
		synctest.Wait()
		third := w.begin(t.Context(), fn)
		time.Sleep(6 * time.Second) // the first one's time is over
		old := w.engine.running("gated")[0]
		w.engine.gate <- struct{}{} // what of the first still runs
		w.engine.gate <- struct{}{}
		(<-second).wants(t, `{"result":1}`)
		(<-first).fails(t, faas.CodeTimeout)
		synctest.Wait()
		still(t, third)
		close(created)
		w.engine.gate <- struct{}{}
		(<-third).wants(t, `{"result":1}`)
		if served, _ := old.numbers(); served != 2 {
			t.Errorf("the old sandbox served %d calls, want 2", served)
		}
	})
}

func TestAnEngineThatCannotStopTheCode(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("forever", "timeout=1s")
		w.engine.set(func() { w.engine.stuck = io.ErrClosedPipe })
		w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, faas.CodeInternal, "could not be stopped yet")
		w.engine.set(func() { w.engine.stuck = nil })
		time.Sleep(time.Minute)
	})
}

func TestClosingEndsTheWaiting(t *testing.T) {
	for _, starting := range []bool{false, true} {
		simulated(t, nil, func(t *testing.T, w *world) {
			fn := w.create("gated", "max_scale=1")
			if starting { // they wait for a sandbox rather than a slot
				created := make(chan struct{})
				w.engine.set(func() { w.engine.creating = created })
				w.engine.running("gated")[0].die(sandbox.Exit{})
				synctest.Wait()
			}
			calls := w.beginAll(fn, 3)
			w.Close()
			waiting := calls
			if !starting {
				still(t, calls[0]) // Close leaves running calls to the server's draining
				waiting = calls[1:]
			}
			for _, call := range waiting {
				if e := (<-call).fails(t, faas.CodeDraining); e.RetryAfter <= 0 {
					t.Error("it does not say when to try again")
				}
			}
			w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, faas.CodeDraining)
			close(w.engine.gate)
			if !starting {
				(<-calls[0]).wants(t, `{"result":1}`)
			}
		})
	}
}

// Nobody is told that a start was interrupted, which is true but no help.
func TestClosingEndsManyStarts(t *testing.T) {
	leakless(t)
	w := newWorld(t, nil)
	created := make(chan struct{})
	var calls []<-chan outcome
	var fns []*faas.Function
	for range 50 {
		fns = append(fns, w.create("version", ""))
	}
	w.engine.set(func() { w.engine.creating = created })
	for _, s := range w.engine.there() {
		s.die(sandbox.Exit{})
	}
	eventually(t, "all deaths are noticed", func() bool { return len(w.engine.there()) == 0 })
	for _, fn := range fns {
		calls = append(calls, w.begin(t.Context(), fn))
	}
	eventually(t, "all are starting", func() bool { return w.Stats()["starting"] == 50 })
	// Close has to wait at one of them, which gives the others time for errors.
	first := w.flockOf(fns[0])
	first.mu.Lock()
	closed := make(chan struct{})
	go func() { w.Close(); close(closed) }()
	for range 10000 {
		runtime.Gosched()
	}
	first.mu.Unlock()
	<-closed
	for _, call := range calls {
		(<-call).fails(t, faas.CodeDraining)
	}
}

// A registration that is through only after Close counts, and is for the next
// dispatcher to serve.
func TestClosingWhileAFunctionIsRegistered(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.engine.loads["slow"] = func(*fakeSandbox) string { <-w.engine.gate; return "" }
		w.engine.calls["slow"] = w.engine.calls["version"]
		created := make(chan *faas.Function, 1)
		go func() { created <- w.create("slow", "") }()
		synctest.Wait()
		w.Close()
		close(w.engine.gate)
		fn := <-created
		begun := time.Now()
		w.engine.running("slow")[0].hangUp()
		w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, faas.CodeDraining)
		if waited := time.Since(begun); waited > 0 {
			t.Errorf("the call waited %v for a closed dispatcher", waited)
		}
		_, err := w.Create(t.Context(), "", faas.Draft{Code: "version"})
		outcome{err: err}.fails(t, faas.CodeDraining)
		w.boot()
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
	})
}

// What Close interrupts is not left lying about, for nobody adopts it.
func TestClosingWhileCodeIsLoaded(t *testing.T) {
	simulated(t, poolOf(1), func(t *testing.T, w *world) {
		w.engine.loads["slow"] = func(s *fakeSandbox) string {
			select {
			case <-w.engine.gate:
			case <-s.done:
			}
			return ""
		}
		w.engine.calls["slow"] = w.engine.calls["version"]
		created := make(chan *faas.Function, 1)
		go func() { created <- w.create("slow", "idle_timeout=1ms") }()
		synctest.Wait()
		w.engine.gate <- struct{}{}
		fn := <-created
		time.Sleep(5 * time.Second) // it is scaled to zero
		call := w.begin(t.Context(), fn)
		synctest.Wait()
		if n := w.Stats()["starting"]; n != 1 {
			t.Fatalf("%d sandboxes are starting, want 1", n)
		}
		w.Close()
		(<-call).fails(t, faas.CodeDraining)
		if n := len(w.engine.there()); n != 0 {
			t.Errorf("%d sandboxes are left", n)
		}
	})
}

func TestTheEndOfARequestDoesNotEndItsCall(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "")
		ctx, leave := context.WithCancel(t.Context())
		call := w.begin(ctx, fn)
		synctest.Wait()
		leave()
		synctest.Wait()
		still(t, call)
		close(w.engine.gate)
		(<-call).wants(t, `{"result":1}`)
	})
}

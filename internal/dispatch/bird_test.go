package dispatch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
	"github.com/flockofbirds/fob/internal/store"
)

func TestDeathWhileIdle(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "min_scale=1")
		w.engine.running("version")[0].die(sandbox.Exit{Code: 1})
		synctest.Wait()
		if n := len(w.engine.there()); n != 1 || len(w.engine.running("version")) != 1 {
			t.Errorf("%d sandboxes, want one that was started in the dead one's place", n)
		}
		if problem := w.atRest(); problem != "" {
			t.Error(problem)
		}
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
	})
}

func TestDeathWithCallsInFlightAndWaiting(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_scale=1 concurrency=2")
		calls := w.beginAll(fn, 4)
		w.engine.running("gated")[0].die(sandbox.Exit{Code: 42})
		for _, call := range calls[:2] {
			(<-call).fails(t, faas.CodeSandboxDied, "exited with code 42", "while the function ran")
		}
		close(w.engine.gate)
		for _, call := range calls[2:] {
			(<-call).wants(t, `{"result":1}`)
		}
		synctest.Wait()
		if problem := w.atRest(); problem != "" {
			t.Error(problem)
		}
		if n := len(w.engine.there()); n != 1 {
			t.Errorf("%d sandboxes, want 1", n)
		}
	})
}

func TestWhyASandboxDied(t *testing.T) {
	for _, c := range []struct {
		exit sandbox.Exit
		want string
	}{
		{sandbox.Exit{Code: 1}, "exited with code 1"},
		{sandbox.Exit{Code: 137, OutOfMem: true}, "ran out of memory (the function's setting memory is 64MB)"},
		{sandbox.Exit{Code: 137, Removed: true}, "was removed"},
	} {
		simulated(t, nil, func(t *testing.T, w *world) {
			w.engine.calls["dies"] = func(s *fakeSandbox, _ *http.Request) string { s.die(c.exit); return "" }
			fn := w.create("dies", "memory=64MB")
			w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, faas.CodeSandboxDied, c.want)
		})
	}
}

// A driver may break the connection and live on.
func TestBrokenConnection(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.engine.calls["mute"] = func(*fakeSandbox, *http.Request) string { return "" }
		fn := w.create("mute", "")
		first := w.engine.running("mute")[0]
		w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, faas.CodeSandboxDied, "connection to the sandbox broke")
		synctest.Wait()
		if there := w.engine.there(); len(there) != 0 {
			t.Errorf("sandbox %s, which broke the connection, was kept", first.id)
		}
	})
}

func TestDeathWhileLoading(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.engine.loads["dies"] = func(s *fakeSandbox) string {
			s.die(sandbox.Exit{Code: 7})
			return answerJSON(200, nil)
		}
		_, err := w.Create(t.Context(), "", faas.Draft{Code: "dies"})
		outcome{err: err}.fails(t, faas.CodeSandboxDied, "exited with code 7", "while the code was being loaded")
		synctest.Wait()
		if problem := w.atRest(); problem != "" {
			t.Error(problem)
		}
		if ids, _ := w.IDs(t.Context()); len(ids) != 0 {
			t.Error("the function is there all the same")
		}
	})
}

func TestLoadingTakesTooLong(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.engine.loads["loops"] = func(s *fakeSandbox) string { <-s.done; return "" }
		_, err := w.Create(t.Context(), "", faas.Draft{Code: "loops"})
		outcome{err: err}.fails(t, faas.CodeTimeout, "loaded after 10s", "import")
		if n := len(w.engine.there()); n != 0 {
			t.Error("the code was still running when the answer came")
		}
	})
}

func TestAClientLeavesWhileItsCodeIsLoaded(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.engine.loads["loops"] = func(s *fakeSandbox) string { <-s.done; return "" }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.Create(ctx, "", faas.Draft{Code: "loops"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Create ended with %v", err)
		}
		synctest.Wait()
		if problem := w.atRest(); problem != "" {
			t.Error(problem)
		}
	})
}

// Code that loaded when it was registered may fail later.
func TestStartFailureReachesThoseWhoWait(t *testing.T) {
	for _, c := range []struct {
		name string
		fail func(e *fakeEngine)
		mend func(e *fakeEngine)
		code faas.Code
		word string
	}{
		{"the code raises at import",
			func(e *fakeEngine) {
				e.loads["gated"] = func(*fakeSandbox) string { return driverError(422, "load_failed", "OSError", "no service") }
			},
			func(e *fakeEngine) { delete(e.loads, "gated") },
			faas.CodeRaised, "OSError: no service"},
		{"the engine refuses",
			func(e *fakeEngine) { e.refusal = errors.New("secret detail") },
			func(e *fakeEngine) { e.refusal = nil },
			faas.CodeNoCapacity, "no sandbox could be started"},
		{"the engine is gone",
			func(e *fakeEngine) { e.refusal = fmt.Errorf("%w: secret detail", sandbox.ErrNoEngine) },
			func(e *fakeEngine) { e.refusal = nil },
			faas.CodeNoCapacity, "cannot be reached"},
	} {
		t.Run(c.name, func(t *testing.T) {
			simulated(t, nil, func(t *testing.T, w *world) {
				fn := w.create("gated", "max_scale=2 idle_timeout=1s")
				time.Sleep(5 * time.Second) // it is scaled to zero
				created := make(chan struct{})
				w.engine.set(func() { w.engine.creating = created })
				calls := w.beginAll(fn, 2)
				// Whoever creates a sandbox now waits, and finds it refused.
				w.engine.set(func() { c.fail(w.engine) })
				close(created)
				if c.name != "the code raises at import" {
					// The start under way succeeds; the dead sandbox's successor does not.
					synctest.Wait()
					w.engine.running("gated")[0].die(sandbox.Exit{Code: 1})
					(<-calls[0]).fails(t, faas.CodeSandboxDied)
				} else {
					(<-calls[0]).fails(t, c.code, c.word)
				}
				e := (<-calls[1]).fails(t, c.code, c.word)
				told := c.word == "cannot be reached" // by the outage's line in the log
				if c.code == faas.CodeNoCapacity && (e.Cause == nil != told || e.RetryAfter <= 0) {
					t.Errorf("the error %+v has no cause for the log, or one too many, or does not say when to try again", e)
				}
				w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, c.code) // tries again, in vain
				// Hears what is known, without another try.
				w.engine.set(func() { w.engine.attempts = 0 })
				w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, c.code, c.word)
				w.engine.set(func() {
					if w.engine.attempts > 0 {
						t.Errorf("the engine was asked %d times more", w.engine.attempts)
					}
					c.mend(w.engine)
				})
				close(w.engine.gate)
				time.Sleep(longestPause)
				w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
				synctest.Wait()
				if problem := w.atRest(); problem != "" {
					t.Error(problem)
				}
			})
		})
	}
}

// While some sandboxes serve, a failure to start more fails nobody.
func TestStartFailureBesideAServingSandbox(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_scale=3")
		w.engine.set(func() { w.engine.refusal = errors.New("full") })
		calls := w.beginAll(fn, 3)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		still(t, calls...)
		var attempts int
		w.engine.set(func() { attempts = w.engine.attempts; w.engine.refusal = nil })
		if attempts < 3 || attempts > 10 {
			t.Errorf("the engine was asked %d times in 5 s", attempts)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := len(w.engine.running("gated")); n != 3 {
			t.Errorf("%d sandboxes once the engine works again, want 3", n)
		}
		close(w.engine.gate)
		for _, call := range calls {
			(<-call).wants(t, `{"result":1}`)
		}
	})
}

func TestRemovalIsTriedAgain(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "")
		w.engine.set(func() { w.engine.stuck = errors.New("the engine is busy") })
		if err := w.Delete(t.Context(), faas.Ref{ID: fn.ID}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		w.engine.set(func() { w.engine.stuck = nil })
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if problem := w.atRest(); problem != "" {
			t.Error(problem)
		}
	})
}

func TestUnknownLanguages(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		_, err := w.Create(t.Context(), "", faas.Draft{Code: "version", Lang: "cobol"})
		outcome{err: err}.fails(t, faas.CodeUnknownLanguage, "cobol", "python", "node")
		// A store may come from a dispatcher that has more drivers.
		fn, err := w.Create(t.Context(), "", faas.Draft{Code: "version", Lang: "node"})
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		w.engine.Purge(t.Context())
		w.cfg.Langs = []string{"python"}
		w.boot()
		w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, faas.CodeUnknownLanguage, "node")
	})
}

// A function is registered when it is on disk, and not before.
func TestAStoreThatFailsLeavesNothing(t *testing.T) {
	simulated(t, func(c *config) { c.Store = brokenStore{c.Store} }, func(t *testing.T, w *world) {
		if _, err := w.Create(t.Context(), "", faas.Draft{Code: "version"}); !errors.Is(err, store.ErrClosed) {
			t.Errorf("Create ended with %v", err)
		}
		synctest.Wait()
		if n := len(w.engine.there()); n != 0 {
			t.Errorf("%d sandboxes are left", n)
		}
		if ids, _ := w.IDs(t.Context()); len(ids) != 0 {
			t.Error("the function is there all the same")
		}
	})
}

// brokenStore cannot store functions.
type brokenStore struct{ faas.Store }

func (brokenStore) CreateFunction(context.Context, *faas.Function, string, string) error {
	return store.ErrClosed
}

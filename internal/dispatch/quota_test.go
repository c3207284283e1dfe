package dispatch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

func (w *world) patch(fn *faas.Function, set string) *faas.Function {
	w.t.Helper()
	next, _, err := w.Patch(w.t.Context(), faas.Ref{ID: fn.ID}, settings(set))
	if err != nil {
		w.t.Fatalf("Patch(%q): %v", set, err)
	}
	return next
}

// shows fails the test unless the metrics have such a line.
func (w *world) shows(line string) {
	w.t.Helper()
	recorder := httptest.NewRecorder()
	w.cfg.Metrics.Handler().ServeHTTP(recorder, httptest.NewRequest("GET", "/metrics", nil))
	if text := recorder.Body.String(); !strings.Contains(text, line+"\n") {
		w.t.Errorf("the metrics have no line %s:\n%s", line, text)
	}
}

func TestMaxConcurrency(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_concurrency=3 max_scale=8 concurrency=2 queue=4 queue_timeout=10s")
		calls := w.beginAll(fn, 3)
		time.Sleep(time.Second)
		waiting := w.beginAll(fn, 4)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		w.check()
		if stats := w.Stats(); w.engine.served() != 3 || stats["busy"] != 2 || len(w.engine.there()) != 2 {
			t.Fatalf("%d calls run in %v", w.engine.served(), stats)
		}
		w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, faas.CodeOverLimit, "4 calls wait", "max_concurrency=3")
		for range waiting { // one ends and lets another in
			w.engine.gate <- struct{}{}
			synctest.Wait()
			w.check()
		}
		if w.engine.served() != 7 {
			t.Errorf("%d calls were begun, want 7", w.engine.served())
		}
		late := w.beginAll(fn, 1)
		(<-late[0]).fails(t, faas.CodeNoCapacity, "max_concurrency is 3", "queue_timeout of 10s")
		close(w.engine.gate)
		for _, call := range append(calls, waiting...) {
			(<-call).wants(t, `{"result":1}`)
		}
	})
}

// The live version's limit holds for the calls of all versions together, and
// who came first is served first.
func TestMaxConcurrencyOverVersions(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_scale=4")
		old := faas.Ref{ID: fn.ID, Version: 1}
		begin := func(ref faas.Ref) <-chan outcome {
			done := make(chan outcome, 1)
			go func() { done <- w.call(t.Context(), ref) }()
			synctest.Wait()
			return done
		}
		first := begin(old)
		fn = w.put(fn, "gated", "max_concurrency=2")
		live := faas.Ref{ID: fn.ID}
		second := begin(live)
		// Of those, the old version's has to start a sandbox before anything.
		var calls []<-chan outcome
		for range 2 {
			calls = append(calls, begin(old), begin(live))
			time.Sleep(time.Second)
		}
		synctest.Wait()
		w.check()
		if n := w.engine.served(); n != 2 {
			t.Fatalf("%d calls run, and max_concurrency is 2", n)
		}
		still(t, append(calls, first, second)...)
		for i := range calls {
			w.engine.gate <- struct{}{}
			synctest.Wait()
			w.check()
			if n := w.engine.served(); n != 3+i {
				t.Fatalf("%d calls were begun after %d had ended", n, i+1)
			}
		}
		close(w.engine.gate)
		(<-first).wants(t, `{"result":1}`)
		(<-second).wants(t, `{"result":2}`)
		for i, call := range calls {
			(<-call).wants(t, fmt.Sprintf(`{"result":%d}`, 1+i%2))
		}
	})
}

func TestRaisingAndLoweringTheLimit(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_concurrency=1 max_scale=9 concurrency=9")
		calls := w.beginAll(fn, 6)
		wants := func(begun int) {
			t.Helper()
			synctest.Wait()
			w.check()
			if n := w.engine.served(); n != begun {
				t.Fatalf("%d calls were begun, want %d", n, begun)
			}
		}
		wants(1)
		w.patch(fn, "max_concurrency=4")
		wants(4) // of the old version, which have nothing else to wait for
		w.patch(fn, "max_concurrency=2")
		for range 2 {
			w.engine.gate <- struct{}{}
			wants(4)
		}
		w.engine.gate <- struct{}{}
		wants(5)
		w.patch(fn, "max_concurrency=1000000")
		wants(6)
		close(w.engine.gate)
		for _, call := range calls {
			(<-call).wants(t, `{"result":1}`)
		}
	})
}

// max_concurrency=0 is the switch that turns a function off.
func TestSwitchedOff(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "min_scale=2 max_scale=2")
		time.Sleep(2 * time.Second)
		calls := w.beginAll(fn, 3)
		off := w.patch(fn, "max_concurrency=0")
		made := w.engine.attempts
		(<-calls[2]).fails(t, faas.CodeOverLimit, "max_concurrency is 0")
		still(t, calls[:2]...)
		begun := time.Now()
		for _, ref := range []faas.Ref{{ID: fn.ID}, {ID: fn.ID, Version: 1}, {ID: fn.ID, Version: 2}, {ID: fn.ID, Alias: "live"}} {
			e := w.call(t.Context(), ref).fails(t, faas.CodeOverLimit, "max_concurrency is 0")
			if e.RetryAfter <= 0 || !e.Code.Retryable() {
				t.Errorf("it does not say when to try again: %+v", e)
			}
		}
		if time.Since(begun) != 0 {
			t.Error("the answers took their time")
		}
		close(w.engine.gate)
		for _, call := range calls[:2] {
			(<-call).wants(t, `{"result":1}`)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(w.engine.there()); n != 0 || w.engine.attempts != made || w.flockOf(off).awake {
			t.Errorf("%d sandboxes are left, and %d were made", n, w.engine.attempts-made)
		}
		// A restart changes nothing about it.
		w.restart()
		time.Sleep(time.Minute)
		w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, faas.CodeOverLimit)
		w.call(t.Context(), faas.Ref{ID: fn.ID, Version: 1}).fails(t, faas.CodeOverLimit)
		if n := len(w.engine.there()); n != 0 {
			t.Errorf("%d sandboxes were started", n)
		}
		w.patch(fn, "max_concurrency=5")
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":3}`)
		w.call(t.Context(), faas.Ref{ID: fn.ID, Version: 2}).wants(t, `{"result":2}`)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if infos, _ := w.Sandboxes(t.Context(), fn.With(&faas.Version{FunctionID: fn.ID, Number: 3}).Live()); len(infos) != 2 {
			t.Errorf("%d sandboxes, and min_scale is 2", len(infos))
		}
	})
}

func TestRegisteredSwitchedOff(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.engine.loads["syntax"] = func(*fakeSandbox) string {
			return driverError(422, "does_not_compile", "SyntaxError", "line 1: what?")
		}
		if _, err := w.Create(t.Context(), "", faas.Draft{Code: "syntax", Settings: settings("max_concurrency=0")}); faas.CodeOf(err) != faas.CodeBadCode {
			t.Errorf("code that cannot be loaded: %v", err)
		}
		fn := w.create("version", "max_concurrency=0 min_scale=1")
		w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, faas.CodeOverLimit)
		time.Sleep(retiredIdle + 2*time.Second)
		synctest.Wait()
		if n := len(w.engine.there()); n != 0 {
			t.Errorf("%d sandboxes are left", n)
		}
		if _, _, err := w.Put(t.Context(), faas.Ref{ID: fn.ID}, faas.Draft{Code: "syntax"}); faas.CodeOf(err) != faas.CodeBadCode {
			t.Errorf("new code that cannot be loaded: %v", err)
		}
		made := w.engine.attempts
		w.patch(fn, "timeout=5s")
		if w.engine.attempts != made {
			t.Error("a sandbox was started for a function that is switched off")
		}
		w.patch(fn, "max_concurrency=1")
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":3}`)
	})
}

func TestSwitchingOffWhileASandboxStarts(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "idle_timeout=1s")
		time.Sleep(5 * time.Second)
		created := make(chan struct{})
		w.engine.set(func() { w.engine.creating = created })
		call := w.begin(t.Context(), fn)
		synctest.Wait()
		w.patch(fn, "max_concurrency=0")
		(<-call).fails(t, faas.CodeOverLimit)
		close(created)
		time.Sleep(retiredIdle + 2*time.Second)
		synctest.Wait()
		if problem := w.atRest(); problem != "" || len(w.engine.there()) != 0 {
			t.Errorf("%d sandboxes are left: %s", len(w.engine.there()), problem)
		}
	})
}

// Callers come and go, and limits change, and never do more calls run than
// were ever allowed at once.
func TestMaxConcurrencyUnderChurn(t *testing.T) {
	leakless(t)
	w := newWorld(t, func(c *config) { c.Tick = time.Millisecond })
	defer w.engine.Purge(context.Background())
	defer w.Close()
	fn := w.create("version", "max_concurrency=3 concurrency=2 max_scale=4 queue=100000")
	ref := faas.Ref{ID: fn.ID}
	stop := w.callers(16, ref)
	old := w.callers(4, faas.Ref{ID: fn.ID, Version: 1})
	for range 30 {
		w.patch(fn, fmt.Sprintf("max_concurrency=%d", 1+rand.IntN(5)))
		w.call(t.Context(), ref)
		w.check()
	}
	w.patch(fn, "max_concurrency=2")
	for _, stop := range []func() (int, []error){stop, old} {
		if answered, failed := stop(); len(failed) > 0 || answered == 0 {
			t.Errorf("%d calls were answered, %d failed: %v", answered, len(failed), failed)
		}
	}
	q := w.flockOf(fn).quota
	eventually(t, "everything is at rest", func() bool { return w.atRest() == "" })
	q.mu.Lock()
	if q.running != 0 {
		t.Errorf("%d calls count as running", q.running)
	}
	q.mu.Unlock()
}

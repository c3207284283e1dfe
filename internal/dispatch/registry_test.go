package dispatch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/observe"
)

func TestVersionsAndSettings(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		fn, change, err := w.Put(ctx, faas.Ref{Name: "swift"}, faas.Draft{Code: "version", Settings: settings("memory=64MB timeout=5s")})
		if err != nil || change != faas.Created || fn.Name != "swift" {
			t.Fatalf("Put of a free name: %+v, %d, %v", fn, change, err)
		}
		next, change, err := w.Put(ctx, faas.Ref{Name: "swift"}, faas.Draft{Code: "version", Lang: "node", Settings: settings("timeout=6s")})
		if err != nil || change != faas.Changed || next.ID != fn.ID {
			t.Fatalf("Put of a taken name: %+v, %d, %v", next, change, err)
		}
		if v := next.Live(); v.Number != 2 || v.Lang != "node" || v.Settings.Memory != 64<<20 || time.Duration(v.Settings.Timeout) != 6*time.Second {
			t.Errorf("the second version is %+v", v)
		}
		if len(fn.Versions) != 1 || fn.Live().Number != 1 {
			t.Error("a function that was handed out has changed")
		}
		last, change, err := w.Patch(ctx, faas.Ref{ID: fn.ID}, settings("concurrency=3"))
		if err != nil || change != faas.Changed {
			t.Fatal(change, err)
		}
		if v := last.Live(); v.Number != 3 || v.Lang != "node" || v.Settings.Concurrency != 3 || v.Digest != next.Live().Digest {
			t.Errorf("the patched version is %+v", v)
		}
		stored, err := w.store.Functions(ctx)
		if err != nil || len(stored) != 1 || len(stored[0].Versions) != 3 || stored[0].Live().Number != 3 {
			t.Errorf("the store has %+v, %v", stored, err)
		}
		for i := 1; i <= 3; i++ {
			w.call(ctx, faas.Ref{Name: "swift", Version: i}).wants(t, fmt.Sprintf(`{"result":%d}`, i))
		}
	})
}

func TestRefusedChangesChangeNothing(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.engine.loads["syntax"] = func(*fakeSandbox) string {
			return driverError(422, "does_not_compile", "SyntaxError", "line 1: what?")
		}
		fn, _, err := w.Put(ctx, faas.Ref{Name: "swift"}, faas.Draft{Code: "version"})
		if err != nil {
			t.Fatal(err)
		}
		ref := faas.Ref{ID: fn.ID}
		unknown := faas.Ref{ID: "00000000-0000-0000-0000-000000000000"}
		for i, c := range []struct {
			code faas.Code
			try  func() error
		}{
			{faas.CodeBadCode, func() error { _, _, err := w.Put(ctx, ref, faas.Draft{Code: "syntax"}); return err }},
			{faas.CodeBadCode, func() error { _, err := w.Create(ctx, "", faas.Draft{Code: "syntax"}); return err }},
			{faas.CodeBadRequest, func() error { _, _, err := w.Put(ctx, ref, faas.Draft{Code: " \n"}); return err }},
			{faas.CodeBadRequest, func() error { _, _, err := w.Patch(ctx, ref, settings("env=A=1 secrets=A")); return err }},
			{faas.CodeBadRequest, func() error { _, _, err := w.Patch(ctx, ref, faas.SettingsPatch{}); return err }},
			{faas.CodeBadRequest, func() error { _, _, err := w.Patch(ctx, ref, settings("min_scale=11")); return err }},
			{faas.CodeBadRequest, func() error {
				_, _, err := w.Patch(ctx, faas.Ref{ID: fn.ID, Version: 1}, settings("memory=1GB"))
				return err
			}},
			{faas.CodeBadRequest, func() error { return w.Delete(ctx, faas.Ref{Name: "swift", Alias: "live"}) }},
			{faas.CodeBadRequest, func() error { _, err := w.Create(ctx, "-x", faas.Draft{Code: "version"}); return err }},
			{faas.CodeNameTaken, func() error { _, err := w.Create(ctx, "swift", faas.Draft{Code: "version"}); return err }},
			{faas.CodeUnknownLanguage, func() error { _, _, err := w.Put(ctx, ref, faas.Draft{Code: "version", Lang: "c"}); return err }},
			{faas.CodeUnknownFunction, func() error { _, _, err := w.Put(ctx, unknown, faas.Draft{Code: "version"}); return err }},
			{faas.CodeUnknownFunction, func() error { _, _, err := w.Patch(ctx, unknown, settings("memory=1GB")); return err }},
			{faas.CodeUnknownFunction, func() error { return w.Delete(ctx, unknown) }},
		} {
			if err := c.try(); faas.CodeOf(err) != c.code {
				t.Errorf("change %d: %v, want %s", i, err, c.code)
			}
		}
		synctest.Wait()
		if problem := w.atRest(); problem != "" || len(w.engine.there()) != 1 {
			t.Errorf("%d sandboxes are there: %s", len(w.engine.there()), problem)
		}
		stored, err := w.store.Functions(ctx)
		if err != nil || len(stored) != 1 || len(stored[0].Versions) != 1 {
			t.Errorf("the store has %+v, %v", stored, err)
		}
		w.call(ctx, ref).wants(t, `{"result":1}`)
	})
}

func TestRetiredVersionsGo(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "min_scale=1")
		running := w.begin(t.Context(), fn)
		synctest.Wait()
		w.put(fn, "version", "")
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":2}`)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		still(t, running)
		if n := len(w.engine.running("gated")); n != 1 {
			t.Errorf("%d sandboxes of the old version while it has a call", n)
		}
		close(w.engine.gate)
		(<-running).wants(t, `{"result":1}`)
		time.Sleep(retiredIdle + 2*time.Second)
		synctest.Wait()
		if n := len(w.engine.running("gated")); n != 0 {
			t.Errorf("%d idle sandboxes of the old version are left", n)
		}
		w.call(t.Context(), faas.Ref{ID: fn.ID, Version: 1}).wants(t, `{"result":1}`)
		time.Sleep(retiredIdle + 2*time.Second)
		synctest.Wait()
		if n := len(w.engine.running("gated")); n != 0 {
			t.Errorf("%d sandboxes of the old version are left after a call by its number", n)
		}
	})
}

// callers calls ref from n goroutines until stop is called, which returns how
// many calls were answered and every error.
func (w *world) callers(n int, ref faas.Ref) (stop func() (answered int, failed []error)) {
	var halt atomic.Bool
	errs := make([][]error, n)
	counts := make([]int, n)
	done := make(chan struct{})
	go func() {
		defer close(done)
		together(n, func(i int) {
			for !halt.Load() {
				if o := w.call(context.Background(), ref); o.err != nil {
					errs[i] = append(errs[i], o.err)
				} else {
					counts[i]++
				}
			}
		})
	}()
	return func() (answered int, failed []error) {
		halt.Store(true)
		<-done
		for i := range n {
			answered += counts[i]
		}
		return answered, slices.Concat(errs...)
	}
}

func TestPutUnderLoad(t *testing.T) {
	leakless(t)
	w := newWorld(t, poolOf(2))
	defer w.engine.Purge(context.Background())
	defer w.Close()
	fn := w.create("version", "max_scale=4")
	ref := faas.Ref{ID: fn.ID}
	stop := w.callers(8, ref)
	for i := 2; i <= 21; i++ {
		fn = w.put(fn, "version", "")
		// Who calls once the PUT is answered gets the new version.
		w.call(t.Context(), ref).wants(t, fmt.Sprintf(`{"result":%d}`, i))
	}
	answered, failed := stop()
	if len(failed) > 0 || answered == 0 {
		t.Errorf("%d calls were answered and %d failed, the first with %v", answered, len(failed), slices.Concat(failed, []error{nil})[0])
	}
	w.Scale(time.Now().Add(retiredIdle))
	eventually(t, "everything is at rest", func() bool { return w.atRest() == "" })
	for _, s := range w.engine.running("version") {
		if s.loaded.Version != 21 {
			t.Errorf("a sandbox of version %d is left", s.loaded.Version)
		}
	}
	w.call(t.Context(), ref).wants(t, `{"result":21}`)
}

func TestDeleteUnderLoad(t *testing.T) {
	leakless(t)
	w := newWorld(t, nil)
	defer w.Close()
	fn := w.create("version", "max_scale=4")
	fn = w.put(fn, "version", "")
	ref := faas.Ref{ID: fn.ID}
	w.call(t.Context(), faas.Ref{ID: fn.ID, Version: 1}).wants(t, `{"result":1}`)
	stop := w.callers(8, ref)
	eventually(t, "calls are served", func() bool { return w.engine.served() > 100 })
	if err := w.Delete(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	w.call(t.Context(), ref).fails(t, faas.CodeUnknownFunction)
	_, failed := stop()
	for _, err := range failed {
		if faas.CodeOf(err) != faas.CodeUnknownFunction {
			t.Errorf("a call failed with %v", err)
		}
	}
	eventually(t, "everything is at rest", func() bool { return w.atRest() == "" })
	if n := len(w.engine.there()); n != 0 {
		t.Errorf("%d sandboxes are left", n)
	}
}

func TestDeleteLetsCallsFinish(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "max_scale=1")
		calls := w.beginAll(fn, 2)
		if err := w.Delete(t.Context(), faas.Ref{ID: fn.ID}); err != nil {
			t.Fatal(err)
		}
		(<-calls[1]).fails(t, faas.CodeUnknownFunction, "deleted")
		still(t, calls[0])
		close(w.engine.gate)
		(<-calls[0]).wants(t, `{"result":1}`)
		synctest.Wait()
		if n := len(w.engine.there()); n != 0 {
			t.Errorf("%d sandboxes are left", n)
		}
	})
}

func TestDeleteWhileASandboxStarts(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "idle_timeout=1s")
		time.Sleep(5 * time.Second)
		created := make(chan struct{})
		w.engine.set(func() { w.engine.creating = created })
		call := w.begin(t.Context(), fn)
		synctest.Wait()
		if err := w.Delete(t.Context(), faas.Ref{ID: fn.ID}); err != nil {
			t.Fatal(err)
		}
		(<-call).fails(t, faas.CodeUnknownFunction)
		close(created)
		synctest.Wait()
		if problem := w.atRest(); problem != "" || len(w.engine.there()) != 0 {
			t.Errorf("%d sandboxes are left: %s", len(w.engine.there()), problem)
		}
	})
}

func TestOneNameOneFunction(t *testing.T) {
	leakless(t)
	w := newWorld(t, nil)
	defer w.engine.Purge(context.Background())
	defer w.Close()
	var made atomic.Int32
	together(16, func(int) {
		_, err := w.Create(t.Context(), "swift", faas.Draft{Code: "version"})
		switch {
		case err == nil:
			made.Add(1)
		case faas.CodeOf(err) != faas.CodeNameTaken:
			t.Error(err)
		}
	})
	if made.Load() != 1 {
		t.Errorf("%d functions have the same name", made.Load())
	}
	// A PUT by name creates or adds, whatever others delete meanwhile.
	together(8, func(i int) {
		for range 50 {
			if i < 4 {
				if _, _, err := w.Put(t.Context(), faas.Ref{Name: "swift"}, faas.Draft{Code: "version"}); err != nil {
					t.Errorf("Put: %v", err)
				}
			} else if err := w.Delete(t.Context(), faas.Ref{Name: "swift"}); err != nil && faas.CodeOf(err) != faas.CodeUnknownFunction {
				t.Errorf("Delete: %v", err)
			}
		}
	})
	eventually(t, "everything is at rest", func() bool { return w.atRest() == "" })
}

func TestVersionsAreNumberedWithoutGaps(t *testing.T) {
	leakless(t)
	w := newWorld(t, nil)
	defer w.engine.Purge(context.Background())
	defer w.Close()
	fn := w.create("version", "")
	together(16, func(i int) {
		if i%2 == 0 {
			w.put(fn, "version", "")
		} else if _, _, err := w.Patch(t.Context(), faas.Ref{ID: fn.ID}, settings(fmt.Sprintf("queue=%d", i))); err != nil {
			t.Error(err)
		}
	})
	got, v, err := w.Resolve(t.Context(), faas.Ref{ID: fn.ID})
	if err != nil || len(got.Versions) != 17 || v.Number != 17 {
		t.Fatalf("%d versions, live is %d, %v; want 17 and 17", len(got.Versions), v.Number, err)
	}
	for i, number := range got.Versions {
		if number != i+1 {
			t.Errorf("version %d stands at %d", number, i+1)
		}
	}
}

// A call that outlives its function leaves no metrics of it behind.
func TestMetricsOfADeletedFunction(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.engine.calls["raises"] = func(s *fakeSandbox, _ *http.Request) string {
			<-w.engine.gate
			return driverError(500, "raised", "KeyError", "'x'")
		}
		for _, code := range []string{"gated", "raises"} {
			fn := w.create(code, "max_scale=1")
			done := make(chan error, 2)
			for range 2 { // one runs, one waits
				go func() {
					_, err := observe.Metrics(w.cfg.Metrics, nil)(w.Dispatcher).Invoke(t.Context(), &faas.Invocation{Ref: faas.Ref{ID: fn.ID}}, nil)
					done <- err
				}()
				synctest.Wait()
			}
			if err := w.Delete(t.Context(), faas.Ref{ID: fn.ID}); err != nil {
				t.Fatal(err)
			}
			outcome{err: <-done}.fails(t, faas.CodeUnknownFunction)
			w.engine.gate <- struct{}{}
			<-done
			time.Sleep(2 * w.cfg.Tick)
			synctest.Wait()
			recorder := httptest.NewRecorder()
			w.cfg.Metrics.Handler().ServeHTTP(recorder, httptest.NewRequest("GET", "/metrics", nil))
			if text := recorder.Body.String(); strings.Contains(text, fn.ID) || !strings.Contains(text, "fob_calls_in_flight 0\n") {
				t.Errorf("the metrics still know the function:\n%s", text)
			}
		}
	})
}

// Whoever may change a function may change nothing that has taken its place
// since the request came: access is decided before the body is read.
func TestChangesOfWhatIsAnothersNow(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		old, err := w.Create(t.Context(), "hello", faas.Draft{Code: "version"})
		if err != nil {
			t.Fatal(err)
		}
		limited := faas.Caller{Kind: faas.CallerToken, Token: &faas.Token{Grants: []faas.Grant{{Scope: faas.ScopeDeploy, Function: old.ID}}}}
		ctx := faas.WithCaller(t.Context(), limited)
		ref := faas.Ref{Name: "hello"}
		change := func() []error {
			_, _, put := w.Put(ctx, ref, faas.Draft{Code: "version"})
			_, _, patch := w.Patch(ctx, ref, settings("timeout=3s"))
			return []error{put, patch, w.Delete(ctx, ref)}
		}
		refused := func(when string) {
			t.Helper()
			for i, err := range change() {
				if faas.CodeOf(err) != faas.CodeUnknownFunction {
					t.Errorf("%s change %d: %v", when, i, err)
				}
			}
		}
		if err := errors.Join(change()...); err != nil {
			t.Errorf("of its own: %v", err)
		}
		refused("deleted,")
		if _, err := w.Create(t.Context(), "hello", faas.Draft{Code: "version"}); err != nil {
			t.Fatal(err)
		}
		refused("made anew,")
		if fn, _, err := w.Resolve(t.Context(), ref); err != nil || len(fn.Versions) != 1 {
			t.Errorf("it is %+v, %v", fn, err)
		}
	})
}

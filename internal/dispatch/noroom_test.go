package dispatch

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/buffer"
	"github.com/flockofbirds/fob/internal/faas"
)

// crowded runs a test in a world whose budget the test may fill.
func crowded(t *testing.T, test func(t *testing.T, w *world, budget *buffer.Budget)) {
	t.Helper()
	simulated(t, func(c *config) { c.Buffers = buffer.New(8 << 20) }, func(t *testing.T, w *world) {
		test(t, w, w.cfg.Buffers)
		synctest.Wait()
		if used := w.cfg.Buffers.Used(); used != 0 {
			t.Errorf("%d bytes are left taken", used)
		}
	})
}

// TestFullBudgetIsNobodysFault: what a function says, and what a driver says about
// code, finds no room. The caller is told so, and the sandbox goes on.
func TestFullBudgetIsNobodysFault(t *testing.T) {
	long := strings.Repeat("x", 40_000)
	crowded(t, func(t *testing.T, w *world, budget *buffer.Budget) {
		w.engine.calls["raises"] = func(*fakeSandbox, *http.Request) string { return driverError(500, "raised", "Error", long) }
		w.engine.calls["heads"] = func(*fakeSandbox, *http.Request) string {
			return answerJSON(200, 1, "X-Long: "+long+"\r\n")
		}
		w.engine.loads["broken"] = func(*fakeSandbox) string { return driverError(422, "bad_code", "SyntaxError", long) }
		raises, heads := w.create("raises", ""), w.create("heads", "")
		budget.Force(budget.Total())
		for _, fn := range []*faas.Function{raises, heads} {
			w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, faas.CodeNoCapacity, "FOB_MAX_BUFFER")
		}
		if _, err := w.Create(t.Context(), "", faas.Draft{Code: "broken"}); faas.CodeOf(err) != faas.CodeNoCapacity || !strings.Contains(err.Error(), "FOB_MAX_BUFFER") {
			t.Errorf("code that cannot be loaded: %v", err)
		}
		budget.Give(budget.Total())
		w.call(t.Context(), faas.Ref{ID: raises.ID}).fails(t, faas.CodeRaised, "raised Error")
		w.call(t.Context(), faas.Ref{ID: heads.ID}).wants(t, "1")
		w.wantsRest(2)
		if born := len(w.engine.born); born != 3 {
			t.Errorf("%d sandboxes were started, want 3", born)
		}
	})
}

// TestSlowReaderOfAMadeAnswer: of an answer that was made in time, and found no room,
// who reads it slowly has as long as if it were held. The sandbox goes on.
func TestSlowReaderOfAMadeAnswer(t *testing.T) {
	body := strings.Repeat("x", 300_000)
	crowded(t, func(t *testing.T, w *world, budget *buffer.Budget) {
		w.engine.calls["large"] = func(*fakeSandbox, *http.Request) string { return answerJSON(200, body) }
		fn := w.create("large", "timeout=1s max_scale=1 concurrency=1 queue_timeout=5m")
		budget.Force(budget.Total())
		defer budget.Give(budget.Total())
		result := w.open(fn)
		time.Sleep(10 * time.Second)
		ends(t, result.Body, `"`+body+`"`).wants(t, "")
		result.Body.Close()
		result = w.open(fn)
		next := w.begin(t.Context(), fn)
		time.Sleep(answerPatience - time.Millisecond)
		synctest.Wait()
		if served := w.engine.served(); served != 2 {
			t.Errorf("%d calls were begun before the reader's time was over, want 2", served)
		}
		if o := <-next; o.err != nil || len(o.body) != len(body)+2 {
			t.Errorf("the call behind it: %d bytes, %v", len(o.body), o.err)
		}
		if _, err := io.ReadAll(result.Body); faas.CodeOf(err) != faas.CodeTimeout {
			t.Errorf("who reads after that gets %v", err)
		}
		result.Body.Close()
		w.wantsRest(1)
		if born := len(w.engine.born); born != 1 {
			t.Errorf("%d sandboxes were started, want 1", born)
		}
	})
}

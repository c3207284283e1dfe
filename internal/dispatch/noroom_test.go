package dispatch

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/flockofbirds/fob/internal/buffer"
	"github.com/flockofbirds/fob/internal/faas"
)

// crowded runs a test in a world whose budget the test may fill.
func crowded(t *testing.T, test func(t *testing.T, w *world, budget *buffer.Budget)) {
	t.Helper()
	simulated(t, func(c *Config) { c.Buffers = buffer.New(8 << 20) }, func(t *testing.T, w *world) {
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

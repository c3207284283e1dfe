package dispatch

import (
	"context"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/durable/powercut"
	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox/process"
)

// TestRealChurn has real drivers come and go as fast as they can: sandboxes are
// let go of after a millisecond without a call, and the calls come in between.
// Not one may fail, and nothing may be left. FOBTEST_CALLS says how many there are.
func TestRealChurn(t *testing.T) {
	leakless(t)
	dir, err := os.MkdirTemp("/tmp", "fob") // short, for the sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	engine, err := process.New(process.Config{Dir: dir, Aviary: "churn", Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	w := newWorld(t, func(c *config) {
		c.Engine = engine
		c.Pool = map[string]int{"python": 2}
		c.Tick = time.Millisecond
	})
	var functions []*faas.Function
	for range 3 {
		functions = append(functions, w.create("def callme(): return 42", "idle_timeout=1ms concurrency=4 max_scale=3"))
	}
	const clients = 16
	calls := int64(powercut.Depth(t, "FOBTEST_CALLS", 2000, 400)) / clients * clients
	var fine atomic.Int64
	together(clients, func(i int) {
		random := rand.New(rand.NewPCG(rand.Uint64(), uint64(i)))
		for range calls / clients {
			time.Sleep(time.Duration(random.ExpFloat64() * float64(500*time.Microsecond)))
			fn := functions[random.IntN(len(functions))]
			if o := w.call(context.Background(), faas.Ref{ID: fn.ID}); o.err != nil || o.body != `{"result": 42}` {
				t.Errorf("answered %q, %v", o.body, o.err)
			} else {
				fine.Add(1)
			}
		}
	})
	if fine.Load() != calls {
		t.Errorf("%d of %d calls were answered", fine.Load(), calls)
	}
	t.Logf("%.0f sandboxes were loaded", testutil.ToFloat64(w.cfg.Metrics.ColdStarts.WithLabelValues("pooled"))+testutil.ToFloat64(w.cfg.Metrics.ColdStarts.WithLabelValues("created")))
	eventually(t, "all sandboxes of functions are gone", func() bool {
		s := w.Stats()
		return s["idle"]+s["busy"]+s["draining"]+s["starting"] == 0
	})
	w.Close()
	if left, err := engine.List(context.Background()); err != nil || len(left) != 0 {
		t.Errorf("%d sandboxes are left, %v", len(left), err)
	}
}

package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/observe"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// TestStreamChurn has streams end in every way there is while versions come and
// go, and each slot is given back once.
func TestStreamChurn(t *testing.T) {
	leakless(t)
	w := newWorld(t, func(c *config) { c.Tick = time.Millisecond })
	w.engine.calls["stream"] = w.engine.calls["version"]
	w.engine.streams = map[string]func(*fakeSandbox, net.Conn, *http.Request) bool{"stream": dribble}
	invoker := observe.Metrics(w.cfg.Metrics, nil)(w.Dispatcher)
	ref := faas.Ref{Name: "brook"}
	var opened, whole atomic.Int64
	together(12, func(i int) {
		for range 60 {
			switch n := rand.IntN(40); n {
			case 0:
				if err := w.Delete(t.Context(), ref); err != nil && faas.CodeOf(err) != faas.CodeUnknownFunction {
					t.Error(err)
				}
			case 1, 2, 3:
				set := fmt.Sprintf("concurrency=%d max_scale=3 timeout=%dms max_concurrency=%d", 1+rand.IntN(3), 10+rand.IntN(10), 4+rand.IntN(10))
				if _, _, err := w.Put(t.Context(), ref, faas.Draft{Code: "stream", Settings: settings(set)}); err != nil && faas.CodeOf(err) != faas.CodeSandboxDied {
					t.Error(err)
				}
			case 4:
				if there := w.engine.there(); len(there) > 0 {
					there[rand.IntN(len(there))].die(sandbox.Exit{Code: 1})
				}
			default:
				ctx, leave := context.WithCancel(context.Background())
				result, err := invoker.Invoke(ctx, &faas.Invocation{Ref: ref}, nil)
				if err != nil {
					if !slices.Contains([]faas.Code{faas.CodeUnknownFunction, faas.CodeSandboxDied, faas.CodeNoCapacity, faas.CodeTimeout}, faas.CodeOf(err)) {
						t.Error(err)
					}
					leave()
					continue
				}
				opened.Add(1)
				if n < 20 {
					time.AfterFunc(rand.N(3*time.Millisecond), leave)
				}
				limit := int64(1 << 20)
				if n > 30 {
					limit = int64(rand.IntN(30))
				}
				if n == 25 {
					time.Sleep(rand.N(50 * time.Millisecond))
				}
				_, err = io.Copy(io.Discard, io.LimitReader(result.Body, limit))
				result.Body.Close()
				leave()
				if err == nil && limit > 100 {
					whole.Add(1)
				}
				if err != nil && !errors.Is(err, context.Canceled) && faas.CodeOf(err) == faas.CodeInternal {
					t.Error(err)
				}
			}
			w.check()
		}
	})
	t.Logf("%d streams, %d of them whole", opened.Load(), whole.Load())
	eventually(t, "everything is at rest", func() bool { return w.atRest() == "" })
	w.wantsMetrics("fob_calls_in_flight 0")
	w.mu.RLock()
	for _, q := range w.quotas {
		if q.mu.Lock(); q.running != 0 {
			t.Errorf("%d calls count as running", q.running)
		}
		q.mu.Unlock()
	}
	w.mu.RUnlock()
	w.Close()
	w.engine.Purge(context.Background())
}

// dribble is a function that streams a few items, a little time apart, and ends
// when nobody reads on.
func dribble(s *fakeSandbox, c net.Conn, _ *http.Request) bool {
	gone := make(chan struct{})
	go func() {
		io.Copy(io.Discard, c)
		close(gone)
	}()
	io.WriteString(c, streamHead)
	for range rand.IntN(30) {
		if _, err := io.WriteString(c, chunk("drop")); err != nil {
			return false
		}
		select {
		case <-time.After(rand.N(time.Millisecond)):
		case <-gone:
			io.WriteString(c, broken("cancelled"))
			return false
		case <-s.done:
			return false
		}
	}
	io.WriteString(c, lastChunk)
	return false
}

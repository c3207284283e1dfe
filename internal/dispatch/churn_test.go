package dispatch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// TestChurn has 16 goroutines call, change, delete and kill at random, and
// holds what must be true meanwhile and afterwards.
func TestChurn(t *testing.T) { churn(t, func(*config) {}) }

// TestChurnAtTheCap has room for fewer sandboxes than the calls want.
func TestChurnAtTheCap(t *testing.T) {
	churn(t, func(c *config) { c.MaxSandboxes, c.PoolMax = 8, 8 })
}

func churn(t *testing.T, change func(*config)) {
	leakless(t)
	w := newWorld(t, func(c *config) {
		c.Pool = map[string]int{"python": 2}
		c.Tick = time.Millisecond
		change(c)
	})
	w.engine.calls["naps"] = func(s *fakeSandbox, _ *http.Request) string {
		time.Sleep(rand.N(2 * time.Millisecond))
		return s.version()
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)

	var halt atomic.Bool
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for !halt.Load() {
			w.check()
			time.Sleep(time.Millisecond)
		}
	}()
	var answered atomic.Int64
	together(16, func(i int) {
		c := churner{w: w, random: rand.New(rand.NewPCG(seed, uint64(i)))}
		for range 200 {
			c.step()
		}
		answered.Add(int64(c.answered))
	})
	halt.Store(true)
	<-watched
	w.engine.set(func() { w.engine.refusal = nil })
	if answered.Load() == 0 {
		t.Error("not one call was answered")
	}

	// At the cap the pool waits for room.
	full := func() bool { return w.Stats()["blank"] == 2 || len(w.engine.there()) == w.cfg.MaxSandboxes }
	eventually(t, "everything is at rest", func() bool { return w.atRest() == "" && full() })
	for _, s := range w.engine.there() {
		s.mu.Lock()
		if s.dead || s.state.InFlight != 0 {
			t.Errorf("sandbox %s is kept: dead %t, with %d calls", s.id, s.dead, s.state.InFlight)
		}
		s.mu.Unlock()
	}
	for i := range 6 {
		if err := w.Delete(t.Context(), churned(i)); err != nil && faas.CodeOf(err) != faas.CodeUnknownFunction {
			t.Error(err)
		}
	}
	eventually(t, "only the pool is left", func() bool { return w.atRest() == "" && len(w.engine.there()) == 2 })
	if fns, err := w.store.Functions(t.Context()); err != nil || len(fns) != 0 {
		t.Errorf("the store has %d functions, %v", len(fns), err)
	}
	w.Close()
	if n := len(w.engine.there()); n != 0 {
		t.Errorf("%d sandboxes are left", n)
	}
}

// TestCloseDuringChurn closes a dispatcher in the middle of everything. The
// next one must be able to make sense of what it left.
func TestCloseDuringChurn(t *testing.T) {
	leakless(t)
	w := newWorld(t, func(c *config) {
		c.Pool = map[string]int{"python": 2}
		c.Tick = time.Millisecond
	})
	w.engine.calls["naps"] = w.engine.calls["version"]
	var steps atomic.Int64
	churned := make(chan struct{})
	go func() {
		defer close(churned)
		together(8, func(i int) {
			c := churner{w: w, random: rand.New(rand.NewPCG(rand.Uint64(), 0)), closing: true}
			for range 60 {
				c.step()
				steps.Add(1)
			}
		})
	}()
	eventually(t, "a good part is done", func() bool { return steps.Load() > 200 })
	w.Close()
	<-churned
	w.engine.set(func() { w.engine.refusal = nil })
	w.boot()
	eventually(t, "everything is at rest", func() bool { return w.atRest() == "" && w.Stats()["blank"] == 2 })
	for i := range 6 {
		if o := w.call(t.Context(), faas.Ref{Name: fmt.Sprintf("bird%d", i)}); o.err != nil {
			o.fails(t, faas.CodeUnknownFunction)
		}
	}
	w.Close()
	w.engine.Purge(context.Background())
}

func churned(i int) faas.Ref { return faas.Ref{Name: fmt.Sprintf("bird%d", i)} }

// churner is one of the goroutines.
type churner struct {
	w        *world
	random   *rand.Rand
	answered int
	closing  bool // the dispatcher may close meanwhile
}

func (c *churner) step() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ref := churned(c.random.IntN(6))
	switch n := c.random.IntN(100); {
	case n < 60:
		if n < 10 {
			go func() { time.Sleep(time.Duration(n) * 100 * time.Microsecond); cancel() }()
		}
		o := c.w.call(ctx, ref)
		if o.err == nil {
			c.answered++
		}
		c.tolerate("call", o.err)
	case n < 75:
		_, _, err := c.w.Put(ctx, ref, faas.Draft{Code: "naps", Settings: c.settings()})
		c.tolerate("put", err)
	case n < 80:
		_, _, err := c.w.Patch(ctx, ref, c.settings())
		c.tolerate("patch", err)
	case n < 84:
		c.tolerate("delete", c.w.Delete(ctx, ref))
	case n < 92:
		if there := c.w.engine.there(); len(there) > 0 {
			s := there[c.random.IntN(len(there))]
			if n < 88 {
				s.hangUp() // noticed a little later
			}
			s.die(sandbox.Exit{Code: 1})
		}
	case n < 96:
		c.w.Scale(time.Now().Add(time.Hour))
	default:
		c.w.engine.set(func() {
			if c.w.engine.refusal = nil; n < 98 {
				c.w.engine.refusal = errors.New("full")
			}
		})
	}
}

func (c *churner) settings() faas.SettingsPatch {
	set := fmt.Sprintf("concurrency=%d max_scale=%d min_scale=%d queue=%d",
		1+c.random.IntN(3), 2+c.random.IntN(4), c.random.IntN(2), c.random.IntN(20))
	set += " idle_timeout=" + []string{"1ms", "1m"}[c.random.IntN(2)]
	set += " pause_after=" + []string{"0s", "1ms"}[c.random.IntN(2)]
	limit := []string{"1000000", "2", "1", "0"}[c.random.IntN(4)]
	if c.closing && limit == "0" { // each function is called at the end
		limit = "3"
	}
	set += " max_calls=" + []string{"0", "1", "3"}[c.random.IntN(3)]
	return settings(set + " max_concurrency=" + limit)
}

// tolerate fails the test for an error that such times do not explain.
func (c *churner) tolerate(what string, err error) {
	explained := []faas.Code{"", faas.CodeUnknownFunction, faas.CodeSandboxDied, faas.CodeNoCapacity, faas.CodeOverLimit}
	if c.closing {
		explained = append(explained, faas.CodeDraining)
	}
	if !errors.Is(err, context.Canceled) && !slices.Contains(explained, faas.CodeOf(err)) {
		c.w.t.Errorf("%s: %v", what, err)
	}
}

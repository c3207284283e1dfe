package dispatch

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// warnings keeps the log's lines from warnings on.
func warnings(c *config) *lines {
	text := &lines{}
	c.Log = zerolog.New(text).Level(zerolog.WarnLevel)
	return text
}

// lines is a log that several goroutines write.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// ready fails the test unless the dispatcher is as ready as that.
func (w *world) ready(want bool, words ...string) {
	w.t.Helper()
	why := w.Outage()
	if (why == nil) != want {
		w.t.Fatalf("an outage: %v", why)
	}
	for _, word := range words {
		if !strings.Contains(why.Message, word) {
			w.t.Errorf("it says %q, and should mention %q", why.Message, word)
		}
	}
}

// An engine that goes away and comes back is one line each in the log, however much
// is tried meanwhile, and whoever asks whether the dispatcher is ready hears of it.
func TestOutageOfTheEngine(t *testing.T) {
	var log *lines
	simulated(t, func(c *config) {
		log = warnings(c)
		c.Log = c.Log.Level(zerolog.InfoLevel)
		c.Pool = map[string]int{"python": 2, "node": 2}
	}, func(t *testing.T, w *world) {
		time.Sleep(time.Second)
		w.ready(true)
		fn := w.create("version", "")
		before := strings.Count(log.String(), "\n")
		away := fmt.Errorf("%w: connection refused", sandbox.ErrNoEngine)
		w.engine.set(func() { w.engine.away, w.engine.refusal, w.engine.stuck = away, away, away })
		for _, s := range w.engine.there() { // which asks for new ones, and for removals
			s.die(sandbox.Exit{Code: 1})
		}
		deaths := 0
		for range 300 {
			o := w.call(t.Context(), faas.Ref{ID: fn.ID})
			if e := o.fails(t, faas.CodeNoCapacity, "cannot be reached"); e.RetryAfter <= 0 {
				t.Error("it does not say when to try again")
			}
			time.Sleep(100 * time.Millisecond)
		}
		w.ready(false, "the engine that makes them cannot be reached")
		w.engine.set(func() { w.engine.away, w.engine.refusal, w.engine.stuck = nil, nil, nil })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		w.ready(true)
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
		time.Sleep(10 * time.Second)
		var said []string
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, "died") {
				deaths++ // which are news of their own
			} else {
				said = append(said, line)
			}
		}
		if said = said[before:]; len(said) != 2 || !strings.Contains(said[0], "no sandbox can be started") || !strings.Contains(said[0], "connection refused") ||
			!strings.Contains(said[1], "can be started again") {
			t.Errorf("the log says %q", said)
		}
		if size, _ := w.pools.of("python").count(); size != 2 || deaths == 0 {
			t.Errorf("the pool has %d, after %d deaths", size, deaths)
		}
	})
}

// Starts that fail are an outage when a blank sandbox cannot be started either, in
// any language, with a pool or without.
func TestOutageOfStarts(t *testing.T) {
	for _, pool := range []map[string]int{nil, {"python": 1, "node": 1}} {
		var log *lines
		simulated(t, func(c *config) { log = warnings(c); c.Pool = pool }, func(t *testing.T, w *world) {
			fn := w.create("version", "idle_timeout=1s")
			time.Sleep(5 * time.Second) // it is scaled to zero
			w.engine.set(func() { w.engine.refusal = errors.New("no such runtime") })
			for _, s := range w.engine.there() {
				s.die(sandbox.Exit{Code: 1})
			}
			w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, faas.CodeNoCapacity)
			time.Sleep(time.Second)
			w.ready(false, "every start fails")
			said := strings.Count(log.String(), "\n")
			for range 600 {
				w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, faas.CodeNoCapacity)
				time.Sleep(100 * time.Millisecond)
			}
			if more := strings.Count(log.String(), "\n") - said; more > 0 {
				t.Errorf("%d more lines in the log while it lasts:\n%s", more, log)
			}
			w.engine.set(func() { w.engine.refusal = nil })
			time.Sleep(lastTrial + time.Second)
			synctest.Wait()
			w.ready(true)
			w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
		})
	}
}

// What one function asks for in vain is no outage.
func TestNoOutageOfOneFunction(t *testing.T) {
	var log *lines
	simulated(t, func(c *config) { log = warnings(c); c.Runtimes = []string{"broken"} }, func(t *testing.T, w *world) {
		w.engine.set(func() { w.engine.picky = "broken" })
		for range 30 {
			_, err := w.Create(t.Context(), "", faas.Draft{Code: "version", Settings: settings("runtime=broken")})
			if faas.CodeOf(err) != faas.CodeNoCapacity {
				t.Fatalf("it is registered: %v", err)
			}
			time.Sleep(time.Second)
			w.ready(true)
		}
		if strings.Contains(log.String(), "no sandbox can be started") {
			t.Errorf("the log says %s", log)
		}
	})
}

// An engine that does not answer is away, too.
func TestOutageOfASilentEngine(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		time.Sleep(time.Second)
		silent := make(chan struct{})
		w.engine.set(func() { w.engine.checking = silent })
		time.Sleep(engineTime + 2*time.Second)
		w.ready(false, "cannot be reached")
		w.engine.set(func() { w.engine.checking = nil })
		close(silent)
		time.Sleep(2 * time.Second)
		w.ready(true)
	})
}

// TestNoOutageWhileImagesAreBuilt: to build an image may take any time, which is
// neither an outage nor cut short.
func TestNoOutageWhileImagesAreBuilt(t *testing.T) {
	var log *lines
	var built chan struct{}
	simulated(t, func(c *config) {
		log = warnings(c)
		c.Pool = map[string]int{"python": 1, "node": 1}
		built = make(chan struct{})
		c.Engine.(*fakeEngine).image = built
	}, func(t *testing.T, w *world) {
		prepared := make(chan error, 1)
		go func() { prepared <- w.Prepare(t.Context()) }()
		for range 600 {
			time.Sleep(time.Second)
			w.ready(true)
		}
		if text := log.String(); text != "" {
			t.Errorf("the log says %s", text)
		}
		close(built)
		if err := <-prepared; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if size, _ := w.pools.of("python").count(); size != 1 {
			t.Errorf("the pool has %d", size)
		}
	})
}

// TestPreparedIsReady: what failed before all was prepared is no outage after it.
func TestPreparedIsReady(t *testing.T) {
	simulated(t, func(c *config) {
		c.Pool = map[string]int{"python": 1, "node": 1}
		c.Engine.(*fakeEngine).unbuilt = errors.New("no network")
	}, func(t *testing.T, w *world) {
		time.Sleep(time.Minute)
		w.ready(false, "every start fails")
		if err := w.Prepare(t.Context()); err == nil {
			t.Error("it is prepared")
		}
		w.engine.set(func() { w.engine.unbuilt = nil })
		if err := w.Prepare(t.Context()); err != nil {
			t.Error(err)
		}
		w.ready(true)
		time.Sleep(time.Second)
		w.ready(true)
		if size, _ := w.pools.of("python").count(); size != 1 {
			t.Errorf("the pool has %d", size)
		}
	})
}

// TestOutageDuringATrial: that an engine is away is known while a trial hangs.
func TestOutageDuringATrial(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.engine.set(func() { w.engine.refusal = errors.New("no such runtime") })
		if _, err := w.Create(t.Context(), "", faas.Draft{Code: "version"}); err == nil {
			t.Fatal("it is registered")
		}
		hangs := make(chan struct{})
		w.engine.set(func() { w.engine.refusal, w.engine.creating = nil, hangs })
		time.Sleep(10 * time.Second)
		w.engine.set(func() { w.engine.away = sandbox.ErrNoEngine })
		time.Sleep(2 * time.Second)
		w.ready(false, "cannot be reached")
		w.engine.set(func() { w.engine.away = nil })
		time.Sleep(2 * time.Second)
		w.ready(false) // until the trial tells
		close(hangs)
		time.Sleep(time.Second)
		w.ready(true)
	})
}

// TestLoggedWhenTooLarge: a function that min_scale keeps, and that may not start any
// more, is in the log.
func TestLoggedWhenTooLarge(t *testing.T) {
	var log *lines
	simulated(t, func(c *config) { log = warnings(c); c.MaxMemory = 1 << 30 }, func(t *testing.T, w *world) {
		w.create("version", "min_scale=1 memory=512MB")
		w.Close()
		w.engine.running("version")[0].die(sandbox.Exit{Code: 1})
		w.cfg.MaxMemory = 256 << 20
		w.boot()
		time.Sleep(time.Minute)
		if text := log.String(); !strings.Contains(text, "could not start a sandbox") || !strings.Contains(text, "FOB_MAX_MEMORY") {
			t.Errorf("the log says %s", text)
		}
		w.ready(true)
	})
}

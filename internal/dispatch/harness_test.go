package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/flockofbirds/fob/internal/catalogue"
	"github.com/flockofbirds/fob/internal/egress"
	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/secret"
	"github.com/flockofbirds/fob/internal/store"
	"github.com/flockofbirds/fob/internal/telemetry"
)

// world is a dispatcher over a fake engine and the in-memory store, with what is
// registered.
type world struct {
	*Dispatcher
	*catalogue.Registrar
	t      testing.TB
	engine *fakeEngine
	store  faas.Store
	cfg    config
	puts   atomic.Int64
}

// config is what a world is made with. Its store is the catalogue's too.
type config struct {
	Config
	Store      faas.Store
	Secrets    faas.SecretKeeper
	MaxNetwork faas.Network
	Runtimes   []string
}

// newWorld makes a dispatcher without a pool, unless change says otherwise.
// Whoever calls it closes it.
func newWorld(t testing.TB, change func(*config)) *world {
	t.Helper()
	engine := newFakeEngine()
	s, err := store.New(t.Context(), store.NewMemory())
	if err != nil {
		t.Fatal(err)
	}
	keeper, _, err := secret.New(t.Context(), s, filepath.Join(t.TempDir(), "secret.key"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, engine: engine, store: s, cfg: config{Store: s, Secrets: keeper, MaxNetwork: network("egress"), Config: Config{
		Engine:      engine,
		Log:         zerolog.Nop(),
		Metrics:     telemetry.NewMetrics(),
		Langs:       []string{"python", "node"},
		MaxBody:     1 << 20,
		Network:     network("egress"),
		Egress:      egress.New(egress.Config{MaxConnections: 1000}),
		LoadTimeout: 10 * time.Second,
		Tick:        time.Second,

		MaxSandboxes: 10000,
		MaxMemory:    1 << 50,
	}}}
	if change != nil {
		change(&w.cfg)
	}
	w.boot()
	return w
}

func network(text string) faas.Network {
	n, err := faas.ParseNetwork(text)
	if err != nil {
		panic(err)
	}
	return n
}

// boot starts a dispatcher over the world as it is.
func (w *world) boot() {
	w.t.Helper()
	cfg := w.cfg.Config
	c, err := catalogue.Open(w.t.Context(), catalogue.Config{
		Store: w.cfg.Store, Secrets: w.cfg.Secrets, Log: cfg.Log,
		Policy: catalogue.Policy{
			Langs: cfg.Langs, Network: cfg.Network, MaxNetwork: w.cfg.MaxNetwork,
			Runtime: cfg.Runtime, Runtimes: w.cfg.Runtimes, MaxMemory: faas.Bytes(cfg.MaxMemory),
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	cfg.Catalogue, cfg.Store = c, w.cfg.Store
	if w.Dispatcher, err = New(w.t.Context(), cfg); err != nil {
		w.t.Fatal(err)
	}
	w.Registrar = catalogue.NewRegistrar(c, w.Dispatcher)
}

// lookup returns the function that a ref names, or nil.
func (w *world) lookup(ref faas.Ref) *faas.Function {
	fn, _, err := w.Resolve(context.Background(), ref)
	if err != nil {
		return nil
	}
	return fn
}

// simulated runs a test in a world where time passes only when everybody
// waits for it, and in which no goroutine may be left at the end.
func simulated(t *testing.T, change func(*config), test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, change)
		// Deferred, so that a failed test ends too.
		defer func() {
			w.Close()
			w.engine.Purge(context.Background())
		}()
		test(t, w)
		synctest.Wait()
		w.check()
		w.accounted()
	})
}

// leakless fails the test if goroutines that it started are left at its end.
func leakless(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

// settings reads "name=value name=value".
func settings(text string) faas.SettingsPatch {
	var patch faas.SettingsPatch
	for _, field := range strings.Fields(text) {
		name, value, _ := strings.Cut(field, "=")
		if err := patch.Set(name, value); err != nil {
			panic(err)
		}
	}
	return patch
}

func (w *world) create(code, set string) *faas.Function {
	w.t.Helper()
	fn, err := w.Create(w.t.Context(), "", faas.Draft{Code: code, Settings: settings(set)})
	if err != nil {
		w.t.Fatalf("Create(%q, %q): %v", code, set, err)
	}
	return fn
}

// put adds a version, whether anything else about it is new or not.
func (w *world) put(fn *faas.Function, code, set string) *faas.Function {
	w.t.Helper()
	if now := w.lookup(faas.Ref{ID: fn.ID}); now != nil && !strings.Contains(string(now.Live().Settings.Env), "A") {
		set += fmt.Sprintf(" env=PUT=%d", w.puts.Add(1))
	}
	next, _, err := w.Put(w.t.Context(), faas.Ref{ID: fn.ID}, faas.Draft{Code: code, Settings: settings(set)})
	if err != nil {
		w.t.Fatalf("Put(%q, %q): %v", code, set, err)
	}
	return next
}

// outcome is what became of a call.
type outcome struct {
	body    string
	err     error
	version *faas.Version
	timing  faas.Timing
}

func (o outcome) wants(t testing.TB, body string) {
	t.Helper()
	if o.err != nil || o.body != body {
		t.Fatalf("answered %q, %v; want %q", o.body, o.err, body)
	}
}

func (o outcome) fails(t testing.TB, code faas.Code, words ...string) *faas.Error {
	t.Helper()
	e, ok := errors.AsType[*faas.Error](o.err)
	if !ok || e.Code != code {
		t.Fatalf("answered %q, %v; want an error %s", o.body, o.err, code)
	}
	for _, word := range words {
		if !strings.Contains(e.Message, word) {
			t.Fatalf("the error says %q, and should mention %q", e.Message, word)
		}
	}
	return e
}

// call calls a ref and waits for what becomes of it.
func (w *world) call(ctx context.Context, ref faas.Ref) outcome {
	result, err := w.Invoke(ctx, &faas.Invocation{ID: "test", Ref: ref}, nil)
	o := outcome{err: err, version: result.Version, timing: result.Timing}
	if err == nil {
		body, _ := io.ReadAll(result.Body)
		result.Body.Close()
		o.body = string(body)
	}
	return o
}

// handed is a body that a call's caller still has.
type handed struct {
	begin   string
	rest    io.ReadCloser
	receive func() error // what there is to receiving it; nil for nothing

	received bool
	text     []byte // what was received
	dropped  atomic.Int32
}

// Receive implements faas.LiveBody.
func (h *handed) Receive() (body []byte, rest io.ReadCloser, err error) {
	h.received = true
	if h.receive != nil {
		err = h.receive()
	}
	h.text = []byte(h.begin)
	return h.text, h.rest, err
}

// Drop implements faas.LiveBody. Whoever still reads the body then sees no good of it.
func (h *handed) Drop() {
	clear(h.text)
	h.dropped.Add(1)
}

// begin makes a call in the background.
func (w *world) begin(ctx context.Context, fn *faas.Function) <-chan outcome {
	done := make(chan outcome, 1)
	go func() { done <- w.call(ctx, faas.Ref{ID: fn.ID}) }()
	return done
}

// beginAll makes calls one after the other, so that their order is known. It
// is for simulated worlds.
func (w *world) beginAll(fn *faas.Function, n int) []<-chan outcome {
	var all []<-chan outcome
	for range n {
		all = append(all, w.begin(w.t.Context(), fn))
		synctest.Wait()
	}
	return all
}

// still fails the test if a call has ended.
func still(t testing.TB, calls ...<-chan outcome) {
	t.Helper()
	for i, call := range calls {
		select {
		case o := <-call:
			t.Fatalf("call %d ended with %q, %v", i, o.body, o.err)
		default:
		}
	}
}

// flockOf returns the flock of a function's live version.
func (w *world) flockOf(fn *faas.Function) *flock {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.flocks[fn.Live().Key()]
}

// check holds what must be true at every moment.
func (w *world) check() {
	w.t.Helper()
	w.capacity.mu.Lock()
	if used := w.capacity.used; !used.within(w.capacity.max) {
		w.t.Errorf("%+v is used, and there may be %+v", used, w.capacity.max)
	}
	w.capacity.mu.Unlock()
	if held, leaving, used, counted := w.held(); !held.within(used) || leaving != counted {
		w.t.Errorf("sandboxes hold %+v of %+v, and %+v of %+v is leaving", held, used, leaving, counted)
	}
	w.mu.RLock()
	flocks := w.snapshot()
	w.mu.RUnlock()
	for _, f := range flocks {
		f.mu.Lock()
		s := f.version.Settings
		if waiting := f.line.len(); waiting > 0 && f.free(s.Concurrency) != nil && f.quota.admits() {
			w.t.Errorf("%d calls wait while a slot is free", waiting)
		}
		running := 0
		for _, b := range slices.Concat(f.birds, f.leaving) {
			running += b.inFlight
		}
		if running != f.demand.calls || running > f.quota.running {
			w.t.Errorf("%d calls run, and %d and %d are counted", running, f.demand.calls, f.quota.running)
		}
		if waiting := f.line.len(); f.demand.waiting > waiting {
			w.t.Errorf("%d calls wait, and %d are counted as demand", waiting, f.demand.waiting)
		}
		if n := len(f.birds) + len(f.paused) + f.starting; n > s.MaxScale {
			w.t.Errorf("%d sandboxes, and max_scale is %d", n, s.MaxScale)
		}
		for _, b := range f.birds {
			if b.inFlight < 0 || b.inFlight > s.Concurrency {
				w.t.Errorf("%d calls in a sandbox, and concurrency is %d", b.inFlight, s.Concurrency)
			}
		}
		f.mu.Unlock()
	}
}

// held is the room that the sandboxes hold, and what of it is leaving, each as
// summed up and as counted. What is only reserved is counted and held by none.
func (w *world) held() (held, leaving, used, counted room) {
	w.capacity.mu.Lock()
	defer w.capacity.mu.Unlock()
	for _, p := range w.capacity.places {
		held = held.plus(room{1, p.memory})
		if p.leaving {
			leaving = leaving.plus(room{1, p.memory})
		}
	}
	return held, leaving, w.capacity.used, w.capacity.leaving
}

// accounted fails the test unless the room that is used is that of the sandboxes
// that the engine has, provided that none is being started. It is for simulated
// worlds in which everybody waits.
func (w *world) accounted() {
	w.t.Helper()
	w.hatchery.rush.mu.Lock()
	starting := w.hatchery.rush.n > 0
	w.hatchery.rush.mu.Unlock()
	for _, p := range w.pools.all {
		p.mu.Lock()
		starting = starting || p.coming
		p.mu.Unlock()
	}
	if starting {
		return
	}
	var taken room
	for _, s := range w.engine.there() {
		taken = taken.plus(room{1, s.Spec().Limits.Memory})
	}
	if held, _, used, _ := w.held(); held != used || held != taken {
		w.t.Errorf("%+v is used, the sandboxes hold %+v, and take up %+v", used, held, taken)
	}
}

// atRest says what is still going on, or "" when nothing is: no call, no start,
// no sandbox that leaves, and the engine and the store know of the same
// sandboxes as the flocks and the pools.
func (w *world) atRest() string {
	w.mu.RLock()
	flocks := w.snapshot()
	w.mu.RUnlock()
	known := map[string]bool{}
	records, err := w.store.Sandboxes(context.Background())
	if err != nil {
		return err.Error()
	}
	for _, f := range flocks {
		f.mu.Lock()
		busy := f.line.len() > 0 || f.starting > 0 || len(f.leaving) > 0
		for _, b := range slices.Concat(f.birds, f.paused) {
			busy = busy || b.inFlight != 0
			known[b.inst.ID()] = true
			if records[b.inst.ID()] != f.version.Key() {
				busy = true
			}
		}
		f.mu.Unlock()
		if busy {
			return "a flock is not at rest, or its record is wrong"
		}
	}
	if len(records) != len(known) {
		return "the store has records of sandboxes that are gone"
	}
	for _, p := range w.pools.all {
		p.mu.Lock()
		for _, inst := range p.blank {
			known[inst.ID()] = true
		}
		p.mu.Unlock()
	}
	there := w.engine.there()
	if len(there) != len(known) {
		return "the engine has sandboxes that nobody knows, or the other way round"
	}
	var taken room
	for _, s := range there {
		if !known[s.id] {
			return "the engine has a sandbox that nobody knows"
		}
		taken = taken.plus(room{1, s.Spec().Limits.Memory})
	}
	w.capacity.mu.Lock()
	defer w.capacity.mu.Unlock()
	if w.capacity.used != taken || w.capacity.leaving != (room{}) || len(w.capacity.line) > 0 {
		return "the room that is counted is not what the sandboxes take up"
	}
	return ""
}

// counted is the sum of all counters and observations of a name and labels.
func counted(t testing.TB, m *telemetry.Metrics, name string, labels ...string) int {
	t.Helper()
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			fits := len(labels) == 0
			for _, label := range metric.GetLabel() {
				fits = fits || slices.Contains(labels, label.GetValue())
			}
			if fits {
				total += int(metric.GetCounter().GetValue()) + int(metric.GetHistogram().GetSampleCount())
			}
		}
	}
	return total
}

// eventually polls until condition holds, and fails the test when it never
// does.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// together runs n goroutines and waits for them.
func together(n int, work func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { work(i) })
	}
	all.Wait()
}

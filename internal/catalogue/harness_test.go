package catalogue

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/secret"
	"github.com/flockofbirds/fob/internal/store"
)

// world is a catalogue over the in-memory store, whose runner runs nothing and
// notes what it is asked.
type world struct {
	*Registrar
	t      testing.TB
	store  *fakeStore
	runner *fakeRunner
	keeper faas.SecretKeeper
}

func newWorld(t testing.TB) *world {
	t.Helper()
	s, err := store.New(t.Context(), store.NewMemory())
	if err != nil {
		t.Fatal(err)
	}
	keeper, _, err := secret.New(t.Context(), s, filepath.Join(t.TempDir(), "secret.key"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: &fakeStore{Store: s}, keeper: keeper}
	w.restart()
	return w
}

// restart opens the catalogue anew.
func (w *world) restart() {
	w.t.Helper()
	network, err := faas.ParseNetwork("egress")
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := Open(w.t.Context(), Config{
		Store: w.store, Secrets: w.keeper, Log: zerolog.Nop(),
		Policy: Policy{Langs: []string{"python", "node"}, Network: network, MaxNetwork: network, MaxMemory: 1 << 50},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.runner = &fakeRunner{}
	w.Registrar = NewRegistrar(c, w.runner)
	w.runner.sees = func(ref faas.Ref) int {
		if _, v, err := c.Resolve(context.Background(), ref); err == nil {
			return v.Number
		}
		return 0
	}
	w.store.runner = w.runner
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

// put registers a version of the function called name, which differs from the last.
func (w *world) put(name, set string) *faas.Function {
	w.t.Helper()
	last := 0
	if fn := w.lookup(faas.Ref{Name: name}); fn != nil {
		last = fn.Latest()
	}
	fn, _, err := w.Put(w.t.Context(), faas.Ref{Name: name}, faas.Draft{Code: fmt.Sprintf("def callme(): return %d", last), Settings: settings(set)})
	if err != nil {
		w.t.Fatalf("Put(%s, %q): %v", name, set, err)
	}
	return fn
}

// create registers a function that has no name.
func (w *world) create() *faas.Function {
	w.t.Helper()
	fn, err := w.Create(w.t.Context(), "", faas.Draft{Code: "def callme(): pass"})
	if err != nil {
		w.t.Fatal(err)
	}
	return fn
}

// leakless fails the test if goroutines that it started are left at its end.
func leakless(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

// together runs n goroutines and waits for them.
func together(n int, work func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { work(i) })
	}
	all.Wait()
}

// fakeStore fails when it is told to.
type fakeStore struct {
	faas.Store
	runner *fakeRunner
	err    error
}

func (s *fakeStore) CreateFunction(ctx context.Context, fn *faas.Function, code, sandboxID string) error {
	s.runner.note("store", fn)
	if s.err != nil {
		return s.err
	}
	return s.Store.CreateFunction(ctx, fn, code, sandboxID)
}

func (s *fakeStore) AddVersion(ctx context.Context, fn *faas.Function, code, sandboxID string) error {
	s.runner.note("store", fn)
	if s.err != nil {
		return s.err
	}
	return s.Store.AddVersion(ctx, fn, code, sandboxID)
}

// fakeRunner notes what it is asked, and which version calls see meanwhile.
type fakeRunner struct {
	mu    sync.Mutex
	log   []string
	sees  func(ref faas.Ref) int
	err   error        // of proofs
	inUse map[int]bool // versions that are not dropped
}

// note adds "what(live, seen)": the version that fn is about to have live, and the one
// that calls see at the moment.
func (r *fakeRunner) note(what string, fn *faas.Function) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, fmt.Sprintf("%s(%d, %d)", what, fn.Latest(), r.sees(faas.Ref{ID: fn.ID})))
}

// noted returns what was noted since it was last called.
func (r *fakeRunner) noted() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	log := strings.Join(r.log, " ")
	r.log = nil
	return log
}

func (r *fakeRunner) Prove(_ context.Context, v *faas.Version, code string) (faas.Proof, error) {
	r.note("prove", &faas.Function{ID: v.FunctionID, Versions: []int{v.Number}})
	if r.err != nil {
		return nil, r.err
	}
	if faas.Digest(code) != v.Digest {
		return nil, fmt.Errorf("this is not the code of version %d", v.Number)
	}
	return &fakeProof{r, v}, nil
}

func (r *fakeRunner) Drop(fn *faas.Function, versions []int, most int) (unused []int) {
	r.note("drop", fn)
	for _, number := range versions {
		if !r.inUse[number] && len(unused) < most {
			unused = append(unused, number)
		}
	}
	return unused
}

func (r *fakeRunner) Undrop(fn *faas.Function, _ []int)        { r.note("undrop", fn) }
func (r *fakeRunner) Changed(_, after *faas.Function, _ []int) { r.note("changed", after) }
func (r *fakeRunner) Deleted(fn *faas.Function)                { r.note("deleted", fn) }

type fakeProof struct {
	r *fakeRunner
	v *faas.Version
}

func (p *fakeProof) SandboxID() string         { return "sandbox" }
func (p *fakeProof) Publish(fn *faas.Function) { p.r.note("publish", fn) }
func (p *fakeProof) Discard() {
	p.r.note("discard", &faas.Function{ID: p.v.FunctionID, Versions: []int{p.v.Number}})
}

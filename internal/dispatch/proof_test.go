package dispatch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/store"
)

// at is a version of a function.
func at(fn *faas.Function, number int) faas.Ref { return faas.Ref{ID: fn.ID, Version: number} }

// kept returns the versions of a function, as they are known and as they are stored.
func (w *world) kept(fn *faas.Function) []int {
	w.t.Helper()
	now, _, err := w.Resolve(w.t.Context(), faas.Ref{ID: fn.ID})
	if err != nil {
		w.t.Fatal(err)
	}
	stored, err := w.store.Functions(w.t.Context())
	if err != nil || len(stored) != 1 || !slices.Equal(stored[0].Versions, now.Versions) {
		w.t.Errorf("%v are stored (%v), and %v known", stored[0].Versions, err, now.Versions)
	}
	return now.Versions
}

func wantKept(t *testing.T, w *world, fn *faas.Function, want ...int) {
	t.Helper()
	if got := w.kept(fn); !slices.Equal(got, want) {
		t.Errorf("the versions are %v, want %v", got, want)
	}
}

// idle lets everything that is not live go.
func idle() {
	time.Sleep(retiredIdle + 2*time.Second)
	synctest.Wait()
}

// What changes nothing makes no version and starts nothing.
func TestUnchanged(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		ctx, ref := t.Context(), faas.Ref{Name: "swift"}
		fn, _, err := w.Put(ctx, ref, faas.Draft{Code: "version", Settings: settings("memory=64MB env=A=1,B=2")})
		if err != nil {
			t.Fatal(err)
		}
		sandboxes := len(w.engine.there())
		for what, change := range map[string]func() (*faas.Function, faas.Change, error){
			"the same": func() (*faas.Function, faas.Change, error) { return w.Put(ctx, ref, faas.Draft{Code: "version"}) },
			"with all that it has": func() (*faas.Function, faas.Change, error) {
				return w.Put(ctx, faas.Ref{ID: fn.ID}, faas.Draft{Code: "version", Lang: "python", Settings: settings("memory=65536KB timeout=30s env=B=2,A=1")})
			},
			"a patch of what it has": func() (*faas.Function, faas.Change, error) {
				return w.Patch(ctx, ref, settings("memory=64MB queue=1000"))
			},
		} {
			again, is, err := change()
			if err != nil || is != faas.Unchanged || again.Live() != fn.Live() {
				t.Errorf("%s: %+v, %d, %v", what, again, is, err)
			}
		}
		wantKept(t, w, fn, 1)
		if n := len(w.engine.there()); n != sandboxes {
			t.Errorf("%d sandboxes were started", n-sandboxes)
		}
		// What is wrong is wrong all the same, and a small change is one.
		if _, _, err := w.Put(ctx, ref, faas.Draft{Code: "version", Settings: settings("min_scale=11")}); faas.CodeOf(err) != faas.CodeBadRequest {
			t.Error(err)
		}
		for what, change := range map[string]func() (*faas.Function, faas.Change, error){
			"other code": func() (*faas.Function, faas.Change, error) { return w.Put(ctx, ref, faas.Draft{Code: "gated"}) },
			"other language": func() (*faas.Function, faas.Change, error) {
				return w.Put(ctx, ref, faas.Draft{Code: "version", Lang: "node"})
			},
			"a variable": func() (*faas.Function, faas.Change, error) { return w.Patch(ctx, ref, settings("env=A=1")) },
		} {
			if _, is, err := change(); err != nil || is != faas.Changed {
				t.Errorf("%s: %d, %v", what, is, err)
			}
		}
		wantKept(t, w, fn, 1, 2, 3, 4)
	})
}

func TestOldVersionsAreDropped(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "keep_versions=3")
		for range 5 {
			w.put(fn, "version", "")
			idle()
		}
		wantKept(t, w, fn, 4, 5, 6)
		for number := 1; number <= 7; number++ {
			o := w.call(t.Context(), at(fn, number))
			switch {
			case number < 4:
				o.fails(t, faas.CodeUnknownFunction, "it was dropped", "there are 4 to 6")
			case number == 7:
				o.fails(t, faas.CodeUnknownFunction, "no version 7;", "there are 4 to 6")
			default:
				o.wants(t, fmt.Sprintf(`{"result":%d}`, number))
			}
		}
		versions := func(before, limit int) (numbers []int) {
			now, _, _ := w.Resolve(t.Context(), faas.Ref{ID: fn.ID})
			page, err := w.Versions(t.Context(), now, before, limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range page {
				numbers = append(numbers, v.Number)
			}
			return numbers
		}
		for _, c := range []struct {
			before, limit int
			want          []int
		}{{0, 10, []int{6, 5, 4}}, {0, 2, []int{6, 5}}, {5, 2, []int{4}}, {4, 2, nil}, {2, 2, nil}, {100, 1, []int{6}}} {
			if got := versions(c.before, c.limit); !slices.Equal(got, c.want) {
				t.Errorf("%d before %d are %v, want %v", c.limit, c.before, got, c.want)
			}
		}
		// They are what they were after a restart, and keep_versions is that of the new
		// version.
		w.restart()
		wantKept(t, w, fn, 4, 5, 6)
		w.call(t.Context(), at(fn, 4)).wants(t, `{"result":4}`)
		idle()
		w.put(fn, "version", "keep_versions=1")
		wantKept(t, w, fn, 6, 7) // 6 has its sandbox still
		idle()
		w.put(fn, "version", "")
		idle()
		w.put(fn, "version", "")
		wantKept(t, w, fn, 8, 9)
	})
}

// A version with a sandbox, or a call, or one that waits, stays.
func TestUsedVersionsStay(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "keep_versions=1 timeout=10m")
		running := w.begin(t.Context(), fn)
		synctest.Wait()
		for range 3 {
			w.put(fn, "version", "")
			idle()
		}
		wantKept(t, w, fn, 1, 3, 4)
		still(t, running)
		w.engine.gate <- struct{}{}
		(<-running).wants(t, `{"result":1}`)
		w.put(fn, "version", "")
		wantKept(t, w, fn, 1, 4, 5) // its sandbox is there yet
		idle()
		w.put(fn, "version", "")
		idle()
		wantKept(t, w, fn, 5, 6)
		// An adopted one is a use, too.
		w.call(t.Context(), at(fn, 5)).wants(t, `{"result":5}`)
		w.restart()
		w.put(fn, "version", "")
		wantKept(t, w, fn, 5, 6, 7)
	})
}

// maxDrop is the catalogue's.
const maxDrop = 40

// What aliases name stays, and no more go at once than fit in a transaction.
func TestManyVersionsAreDropped(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "keep_versions=1000")
		for range 98 {
			fn = w.put(fn, "version", "")
		}
		idle()
		last := *fn.Live()
		last.Number++
		named := *fn.With(&last)
		named.Aliases["gold"] = 7
		if err := w.store.AddVersion(t.Context(), &named, "version", ""); err != nil {
			t.Fatal(err)
		}
		w.restart()
		w.put(fn, "version", "keep_versions=5")
		if got := w.kept(fn); len(got) != 101-maxDrop || got[0] != 7 || got[1] != maxDrop+2 {
			t.Errorf("the versions are %v", got)
		}
		for range 2 {
			idle()
			w.put(fn, "version", "")
		}
		wantKept(t, w, fn, 7, 99, 100, 101, 102, 103)
		w.call(t.Context(), faas.Ref{ID: fn.ID, Alias: "gold"}).wants(t, `{"result":7}`)
	})
}

// TestUsedVersionsAreInNobodysWay: a change drops as many as it may of those that
// nothing uses, however many others are older.
func TestUsedVersionsAreInNobodysWay(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		const used = maxDrop + 2
		fn := w.create("version", "keep_versions=1000")
		for range 2*used - 1 {
			w.put(fn, "version", "")
		}
		idle()
		inUse := func(more int) {
			for number := 1; number <= used; number++ {
				_, v, err := w.Resolve(t.Context(), faas.Ref{ID: fn.ID, Version: number})
				if err != nil {
					t.Fatal(err)
				}
				f, err := w.flock(v)
				if err != nil {
					t.Fatal(err)
				}
				f.mu.Lock()
				f.starting += more
				f.mu.Unlock()
			}
		}
		inUse(1)
		w.put(fn, "version", "keep_versions=5")
		// Of 85 versions the newest 5 are kept, and the first 42.
		if got := w.kept(fn); len(got) != used+5 || !slices.Contains(got, used) || slices.Contains(got, used+1) {
			t.Errorf("the versions are %v", got)
		}
		inUse(-1)
	})
}

// slowStore adds versions no sooner than it may.
type slowStore struct {
	faas.Store
	may *atomic.Pointer[chan struct{}]
}

func (s slowStore) AddVersion(ctx context.Context, fn *faas.Function, code, sandboxID string) error {
	if may := s.may.Load(); may != nil {
		<-*may
	}
	return s.Store.AddVersion(ctx, fn, code, sandboxID)
}

// TestCallsDuringAChange: a call of a function that is scaled to zero is answered while
// a change is being stored that leaves no place for the version of then.
func TestCallsDuringAChange(t *testing.T) {
	var may atomic.Pointer[chan struct{}]
	simulated(t, func(cfg *config) { cfg.Store = slowStore{cfg.Store, &may} }, func(t *testing.T, w *world) {
		fn := w.create("version", "keep_versions=1 idle_timeout=1s")
		time.Sleep(5 * time.Second)
		now := make(chan struct{})
		may.Store(&now)
		stored := make(chan struct{})
		go func() { w.put(fn, "version", ""); close(stored) }()
		synctest.Wait()
		during := w.call(t.Context(), faas.Ref{ID: fn.ID})
		close(now)
		<-stored
		during.wants(t, `{"result":1}`)
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":2}`)
	})
}

// TestDroppedWhileItsBodyComes: a call that names no version goes to the one that is
// live by the time when its own is gone, unless it might not have called that.
func TestDroppedWhileItsBodyComes(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "keep_versions=1 idle_timeout=1s public=true")
		slow := func(ref faas.Ref, change func()) (version int, err error) {
			time.Sleep(5 * time.Second)
			result, err := w.Invoke(t.Context(), &faas.Invocation{Ref: ref}, &handed{receive: func() error {
				change()
				return nil
			}})
			if err == nil {
				result.Body.Close()
			}
			return result.Version.Number, err
		}
		twice := func(set string) func() {
			return func() {
				for range 2 {
					w.put(fn, "version", set)
					time.Sleep(5 * time.Second)
				}
			}
		}
		if version, err := slow(faas.Ref{ID: fn.ID}, twice("")); err != nil || version != 3 {
			t.Errorf("%v, at version %d", err, version)
		}
		if version, err := slow(at(fn, 3), twice("")); faas.CodeOf(err) != faas.CodeUnknownFunction {
			t.Errorf("version 3 is gone: %v, at version %d", err, version)
		}
		if version, err := slow(faas.Ref{ID: fn.ID}, twice("public=false")); faas.CodeOf(err) != faas.CodeUnknownFunction {
			t.Errorf("who called a public function got at version %d, which is none: %v", version, err)
		}
	})
}

// failingStore cannot add versions while it fails.
type failingStore struct {
	faas.Store
	fails *atomic.Bool
}

func (s failingStore) AddVersion(ctx context.Context, fn *faas.Function, code, sandboxID string) error {
	if s.fails.Load() {
		return store.ErrClosed
	}
	return s.Store.AddVersion(ctx, fn, code, sandboxID)
}

// When a change cannot be stored, nothing was dropped.
func TestDropThatFails(t *testing.T) {
	var fails atomic.Bool
	simulated(t, func(cfg *config) { cfg.Store = failingStore{cfg.Store, &fails} }, func(t *testing.T, w *world) {
		fn := w.create("version", "keep_versions=2")
		w.put(fn, "version", "")
		w.call(t.Context(), at(fn, 1)).wants(t, `{"result":1}`) // it has a flock
		idle()
		fails.Store(true)
		if _, _, err := w.Patch(t.Context(), faas.Ref{ID: fn.ID}, settings("queue=1")); err == nil {
			t.Fatal("it was stored")
		}
		wantKept(t, w, fn, 1, 2)
		w.call(t.Context(), at(fn, 1)).wants(t, `{"result":1}`)
		w.call(t.Context(), at(fn, 2)).wants(t, `{"result":2}`)
		fails.Store(false)
		idle()
		w.put(fn, "version", "")
		wantKept(t, w, fn, 2, 3)
	})
}

// TestDropsAndCalls calls versions while they are dropped: a call is answered by its
// version, or hears that there is none.
func TestDropsAndCalls(t *testing.T) {
	leakless(t)
	w := newWorld(t, nil)
	defer w.engine.Purge(context.Background())
	defer w.Close()
	fn := w.create("version", "keep_versions=2 idle_timeout=1ms")
	var newest, answered, gone atomic.Int64
	newest.Store(1)
	together(8, func(i int) {
		for range 60 {
			if i == 0 {
				newest.Store(int64(w.put(fn, "version", "").Live().Number))
				w.Scale(time.Now().Add(time.Hour)) // so that what is not used goes
				continue
			}
			number := max(1, int(newest.Load())-rand.IntN(5))
			o := w.call(context.Background(), at(fn, number))
			switch {
			case o.err == nil && o.body == fmt.Sprintf(`{"result":%d}`, number):
				answered.Add(1)
			case faas.CodeOf(o.err) == faas.CodeUnknownFunction:
				gone.Add(1)
			default:
				t.Errorf("version %d answers %q, %v", number, o.body, o.err)
			}
		}
	})
	t.Logf("%d calls were answered and %d were too late", answered.Load(), gone.Load())
	eventually(t, "what is not used any more goes", func() bool {
		w.Scale(time.Now().Add(time.Hour))
		return len(w.put(fn, "version", "").Versions) <= 4 // some may still be leaving
	})
	eventually(t, "everything is at rest", func() bool { return w.atRest() == "" })
	now := w.lookup(faas.Ref{ID: fn.ID})
	w.mu.RLock()
	defer w.mu.RUnlock()
	for key := range w.flocks {
		if !now.Has(key.Number) {
			t.Errorf("there is a flock of version %d, which was dropped", key.Number)
		}
	}
	if len(w.going) > 0 {
		t.Errorf("%v are still going", w.going)
	}
}

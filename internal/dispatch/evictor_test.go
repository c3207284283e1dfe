package dispatch

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// roomFor leaves room for so many sandboxes of the default memory.
func roomFor(n int) func(*config) {
	return func(c *config) {
		c.MaxSandboxes, c.MaxMemory = n, int64(n)*int64(faas.DefaultSettings().Memory)
	}
}

func (w *world) evictions() int { return counted(w.t, w.cfg.Metrics, "fob_evictions_total") }

// wantEvictions waits for what goes on and compares their number so far.
func (w *world) wantEvictions(n int) {
	w.t.Helper()
	synctest.Wait()
	if got := w.evictions(); got != n {
		w.t.Fatalf("%d evictions, want %d", got, n)
	}
	if problem := w.atRest(); problem != "" {
		w.t.Fatal(problem)
	}
}

// alive reports for each function whether it has a sandbox.
func (w *world) alive(fns ...*faas.Function) []bool {
	var all []bool
	for _, fn := range fns {
		infos, err := w.Sandboxes(w.t.Context(), fn.Live())
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, len(infos) > 0)
	}
	return all
}

func TestVictims(t *testing.T) {
	key := func(name string) faas.VersionKey { return faas.VersionKey{FunctionID: name, Number: 1} }
	var candidates []candidate
	for _, c := range []struct {
		name   string
		memory int64
	}{{"", 1}, {"a", 1}, {"b", 4}, {"a", 2}, {"c", 1}} {
		of := key(c.name)
		if c.name == "" {
			of = faas.VersionKey{}
		}
		candidates = append(candidates, candidate{room: room{1, c.memory}, of: of})
	}
	want := func(name string, sandboxes int, memory int64) *claim {
		return &claim{room: room{sandboxes, memory}, by: key(name)}
	}
	for _, c := range []struct {
		name string
		free room
		line []*claim
		want []int // of the candidates
	}{
		{"nobody wants anything", room{0, 0}, nil, nil},
		{"there is room", room{1, 2}, []*claim{want("x", 1, 2)}, nil},
		{"a sandbox", room{0, 9}, []*claim{want("x", 1, 1)}, []int{0}},
		{"memory", room{9, 0}, []*claim{want("x", 1, 3)}, []int{0, 1, 2}},
		{"memory alone", room{0, 0}, []*claim{want("x", 0, 2)}, []int{0, 1}},
		{"two", room{0, 0}, []*claim{want("x", 1, 1), want("y", 1, 1)}, []int{0, 1}},
		{"not its own", room{0, 0}, []*claim{want("y", 1, 1), want("a", 1, 1)}, []int{0, 2}},
		{"what is left over helps the next", room{0, 0}, []*claim{want("a", 2, 2), want("a", 0, 3)}, []int{0, 2}},
		{"too much for all", room{0, 0}, []*claim{want("x", 1, 10)}, nil},
		{"nobody overtakes", room{0, 0}, []*claim{want("x", 1, 10), want("y", 1, 1)}, nil},
		{"the first is served all the same", room{0, 0}, []*claim{want("y", 1, 1), want("x", 1, 10)}, []int{0}},
		{"above the cap", room{-2, 0}, nil, []int{0, 1}},
		{"far above the cap", room{-9, 0}, nil, []int{0, 1, 2, 3, 4}},
		{"above the cap, and one more", room{-1, 0}, []*claim{want("x", 1, 1)}, []int{0, 1}},
	} {
		var got []candidate
		for _, i := range c.want {
			got = append(got, candidates[i])
		}
		chosen := victims(c.free, c.line, candidates)
		same := slices.EqualFunc(chosen, got, func(a, b candidate) bool { return a.room == b.room && a.of == b.of })
		if !same {
			t.Errorf("%s: chosen are %v, want the candidates %v", c.name, chosen, c.want)
		}
	}
}

func TestTheLeastRecentlyUsedMakesRoom(t *testing.T) {
	simulated(t, roomFor(3), func(t *testing.T, w *world) {
		var fns []*faas.Function
		for range 3 {
			fns = append(fns, w.create("version", ""))
			time.Sleep(time.Second)
		}
		(<-w.begin(t.Context(), fns[0])).wants(t, `{"result":1}`)
		time.Sleep(time.Second)
		fns = append(fns, w.create("version", ""))
		w.wantEvictions(1)
		if alive := w.alive(fns...); !slices.Equal(alive, []bool{true, false, true, true}) {
			t.Errorf("the functions have sandboxes: %v", alive)
		}
		(<-w.begin(t.Context(), fns[1])).wants(t, `{"result":1}`) // and back
		w.wantEvictions(2)
		if alive := w.alive(fns...); !slices.Equal(alive, []bool{true, true, false, true}) {
			t.Errorf("the functions have sandboxes: %v", alive)
		}
	})
}

func TestNoRoom(t *testing.T) {
	simulated(t, roomFor(2), func(t *testing.T, w *world) {
		w.create("version", "min_scale=1")
		busy := w.create("gated", "")
		running := w.begin(t.Context(), busy)
		synctest.Wait()
		begun := time.Now()
		_, err := w.Create(t.Context(), "", faas.Draft{Code: "version"})
		e := outcome{err: err}.fails(t, faas.CodeNoCapacity, "2 (FOB_MAX_SANDBOXES)", "256MB", "FOB_MAX_MEMORY", "try again")
		if took := time.Since(begun); e.RetryAfter != time.Second || took < roomPatience || took > roomPatience+2*roomPoll {
			t.Errorf("after %v it is told to come back after %v", took, e.RetryAfter)
		}
		w.engine.gate <- struct{}{}
		(<-running).wants(t, `{"result":1}`)
		w.create("version", "") // takes the idle one's place
		w.wantEvictions(1)
	})
}

// A call that finds no room leaves no trace: the next one does not wait for it.
func TestNoRoomIsForgotten(t *testing.T) {
	simulated(t, roomFor(1), func(t *testing.T, w *world) {
		first := w.create("version", "")
		busy := w.create("gated", "")
		running := w.begin(t.Context(), busy)
		synctest.Wait()
		for range 5 {
			(<-w.begin(t.Context(), first)).fails(t, faas.CodeNoCapacity, "FOB_MAX_SANDBOXES")
		}
		waits := w.begin(t.Context(), first)
		time.Sleep(roomPatience / 2)
		still(t, waits)
		w.engine.gate <- struct{}{}
		(<-running).wants(t, `{"result":1}`)
		(<-waits).wants(t, `{"result":1}`)
		w.wantEvictions(2)
	})
}

func TestSeveralMakeRoomForALargeOne(t *testing.T) {
	simulated(t, roomFor(4), func(t *testing.T, w *world) {
		var fns []*faas.Function
		for range 4 {
			fns = append(fns, w.create("version", ""))
			time.Sleep(time.Second)
		}
		fns = append(fns, w.create("version", "memory=384MB"))
		w.wantEvictions(3)
		if alive := w.alive(fns...); !slices.Equal(alive, []bool{false, false, false, true, true}) {
			t.Errorf("the functions have sandboxes: %v", alive)
		}
	})
}

func TestNobodyGoesInVain(t *testing.T) {
	simulated(t, roomFor(4), func(t *testing.T, w *world) {
		w.create("version", "min_scale=1")
		w.create("version", "")
		_, err := w.Create(t.Context(), "", faas.Draft{Code: "version", Settings: settings("memory=512MB")})
		outcome{err: err}.fails(t, faas.CodeNoCapacity)
		w.wantEvictions(0)
	})
}

// A large start is not overtaken for ever by small ones that would fit.
func TestRoomIsGivenInTurn(t *testing.T) {
	simulated(t, roomFor(4), func(t *testing.T, w *world) {
		busy := w.create("gated", "max_scale=4")
		calls := w.beginAll(busy, 4)
		time.Sleep(time.Second)
		w.Scale(time.Now())
		synctest.Wait()
		large := make(chan error, 1)
		go func() {
			_, err := w.Create(t.Context(), "", faas.Draft{Code: "version", Settings: settings("memory=256MB")})
			large <- err
		}()
		time.Sleep(100 * time.Millisecond)
		small := make(chan error, 1)
		go func() {
			_, err := w.Create(t.Context(), "", faas.Draft{Code: "version"})
			small <- err
		}()
		time.Sleep(100 * time.Millisecond)
		w.engine.gate <- struct{}{} // room for a small one
		time.Sleep(100 * time.Millisecond)
		if len(small) > 0 || len(large) > 0 {
			t.Fatal("the small one came first")
		}
		w.engine.gate <- struct{}{}
		if err := <-large; err != nil {
			t.Fatal(err)
		}
		if len(small) > 0 {
			t.Fatal("there was no room for the small one")
		}
		w.engine.gate <- struct{}{}
		if err := <-small; err != nil {
			t.Fatal(err)
		}
		w.engine.gate <- struct{}{}
		for _, call := range calls {
			(<-call).wants(t, `{"result":1}`)
		}
	})
}

// Two starts want two sandboxes gone, however long that takes.
func TestWhatLeavesIsRoomToCome(t *testing.T) {
	simulated(t, roomFor(4), func(t *testing.T, w *world) {
		for range 4 {
			w.create("version", "")
		}
		removing := make(chan struct{})
		w.engine.set(func() { w.engine.removing = removing })
		made := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := w.Create(t.Context(), "", faas.Draft{Code: "version"})
				made <- err
			}()
		}
		time.Sleep(roomPatience * 2)
		if n := w.evictions(); n != 2 || len(made) > 0 {
			t.Errorf("%d evictions for 2 starts, of which %d have ended", n, len(made))
		}
		w.engine.set(func() { w.engine.removing = nil })
		close(removing)
		for range 2 {
			if err := <-made; err != nil {
				t.Error(err)
			}
		}
		w.wantEvictions(2)
	})
}

// What the engine cannot remove holds nobody up for ever.
func TestRoomThatDoesNotCome(t *testing.T) {
	simulated(t, roomFor(1), func(t *testing.T, w *world) {
		w.create("version", "")
		removing := make(chan struct{})
		w.engine.set(func() { w.engine.removing = removing })
		begun := time.Now()
		_, err := w.Create(t.Context(), "", faas.Draft{Code: "version"})
		outcome{err: err}.fails(t, faas.CodeNoCapacity)
		if took := time.Since(begun); took != roomLimit {
			t.Errorf("it took %v", took)
		}
		w.engine.set(func() { w.engine.removing = nil })
		close(removing)
	})
}

func TestTooLargeForTheCap(t *testing.T) {
	simulated(t, roomFor(4), func(t *testing.T, w *world) {
		_, err := w.Create(t.Context(), "", faas.Draft{Code: "version", Settings: settings("memory=513MB")})
		outcome{err: err}.fails(t, faas.CodeBadRequest, "memory=513MB", "512MB", "FOB_MAX_MEMORY")
		fn := w.create("version", "memory=512MB idle_timeout=1s")
		time.Sleep(3 * time.Second)
		w.Close()
		roomFor(2)(&w.cfg) // the next start has a lower cap
		w.boot()
		(<-w.begin(t.Context(), fn)).fails(t, faas.CodeNoCapacity, "memory=512MB", "256MB", "FOB_MAX_MEMORY")
	})
}

func TestAdoptedAboveTheCap(t *testing.T) {
	simulated(t, roomFor(5), func(t *testing.T, w *world) {
		kept := w.create("version", "min_scale=1")
		for range 4 {
			w.create("version", "")
		}
		w.Close()
		roomFor(2)(&w.cfg)
		w.boot()
		if n := len(w.engine.there()); n != 5 {
			t.Errorf("%d sandboxes at first, want all 5", n)
		}
		time.Sleep(w.cfg.Tick)
		w.wantEvictions(3)
		if !w.alive(kept)[0] {
			t.Error("min_scale's was evicted")
		}
	})
}

func TestMinScaleBeyondTheCap(t *testing.T) {
	simulated(t, roomFor(4), func(t *testing.T, w *world) {
		other := w.create("gated", "min_scale=1")
		fn := w.create("version", "min_scale=6")
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(w.engine.running("version")); n != 3 {
			t.Fatalf("it has %d sandboxes, want the 3 that there is room for", n)
		}
		(<-w.begin(t.Context(), fn)).wants(t, `{"result":1}`)
		if err := w.Delete(t.Context(), faas.Ref{ID: other.ID}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * w.cfg.Tick)
		synctest.Wait()
		if n := len(w.engine.running("version")); n != 4 {
			t.Fatalf("it has %d sandboxes, want all 4 that there may be", n)
		}
	})
}

// 200 functions called at random with room for 20 sandboxes.
func TestManyFunctionsAndLittleRoom(t *testing.T) {
	for _, pool := range []map[string]int{nil, {"python": 2, "node": 1}} {
		simulated(t, func(c *config) {
			roomFor(20)(c)
			c.Pool, c.PoolMax = pool, 8
		}, func(t *testing.T, w *world) {
			w.engine.calls["naps"] = w.engine.calls["version"]
			var fns []*faas.Function
			for range 200 {
				fns = append(fns, w.create("naps", ""))
			}
			together(10, func(i int) {
				random := rand.New(rand.NewPCG(1, uint64(i)))
				for range 200 {
					(<-w.begin(t.Context(), fns[random.IntN(len(fns))])).wants(t, `{"result":1}`)
					if n := len(w.engine.there()); n > 20 {
						t.Errorf("%d sandboxes, and there may be 20", n)
					}
					time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
				}
			})
			synctest.Wait()
			if n := w.evictions(); n < 1000 || n > 3000 {
				t.Errorf("%d evictions", n)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if problem := w.atRest(); problem != "" {
				t.Error(problem)
			}
			t.Logf("%v: %d evictions", pool, w.evictions())
		})
	}
}

func TestSnapshot(t *testing.T) {
	simulated(t, func(c *config) {
		roomFor(20)(c)
		c.Pool = map[string]int{"python": 2}
	}, func(t *testing.T, w *world) {
		w.create("version", "memory=256MB")
		w.create("version", "memory=64MB network=none")
		synctest.Wait()
		s := w.Snapshot()
		if s.Memory != (256+64+2*128)<<20 || s.Sandboxes["idle"] != 2 || s.Sandboxes["blank"] != 2 {
			t.Errorf("the snapshot is %+v", s)
		}
		if got := fmt.Sprint(s.Pools["python"], s.Pools["node"]); !strings.HasPrefix(got, "{2 2} {0 0}") {
			t.Errorf("the pools are %s", got)
		}
	})
}

// A call waits for a sandbox that is being resumed, so it makes no room.
func TestWhatIsBeingResumedMakesNoRoom(t *testing.T) {
	simulated(t, roomFor(2), func(t *testing.T, w *world) {
		fn := w.create("gated", "pause_after=1s max_scale=2")
		calls := w.beginAll(fn, 2)
		time.Sleep(time.Second)
		w.engine.gate <- struct{}{}
		w.engine.gate <- struct{}{}
		time.Sleep(3 * time.Second)
		calls = append(calls, w.beginAll(fn, 1)...)
		synctest.Wait()
		if n := w.engine.frozen(); n != 1 {
			t.Fatalf("%d sandboxes are paused, want one", n)
		}
		idle := w.evictor.idle(time.Now())
		frozen := make(chan struct{})
		w.engine.set(func() { w.engine.freezing = frozen })
		calls = append(calls, w.beginAll(fn, 1)...)
		time.Sleep(2 * growPatience)
		synctest.Wait()
		w.evictor.evict(idle)
		w.engine.set(func() { w.engine.freezing = nil })
		close(frozen)
		close(w.engine.gate)
		for _, call := range calls {
			(<-call).wants(t, `{"result":1}`)
		}
		w.wantEvictions(0)
		if n := len(w.engine.born); n != 2 {
			t.Errorf("%d sandboxes were made, want 2", n)
		}
	})
}

// A start that finds too little room gives its blank sandbox back again and
// again, which leaves nothing behind.
func TestGivingBackABlankSandbox(t *testing.T) {
	simulated(t, func(c *config) {
		roomFor(8)(c)
		c.Pool = map[string]int{"python": 2}
	}, func(t *testing.T, w *world) {
		w.create("version", "min_scale=2 memory=640MB")
		time.Sleep(time.Minute)
		synctest.Wait()
		before, made := runtime.NumGoroutine(), w.attempts()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := runtime.NumGoroutine(); n > before+10 { // of a start a second; the runtime has some too
			t.Errorf("%d goroutines, and there were %d", n, before)
		}
		if n := w.attempts(); n != made {
			t.Errorf("%d sandboxes were made", n-made)
		}
		if size, target := w.pools.of("python").count(); size != target {
			t.Errorf("%d blank sandboxes, want %d", size, target)
		}
	})
}

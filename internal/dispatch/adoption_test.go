package dispatch

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// restart closes the dispatcher and boots another over what it leaves.
func (w *world) restart() {
	w.t.Helper()
	w.Close()
	w.boot()
	synctest.Wait()
}

func TestAdoption(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "memory=64MB")
		s := w.engine.there()[0]
		w.restart()
		if there := w.engine.there(); len(there) != 1 || there[0] != s {
			t.Fatalf("%d sandboxes, want the one that was there", len(there))
		}
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
		if served, _ := s.numbers(); served != 1 {
			t.Error("the adopted sandbox did not serve the call")
		}
		if problem := w.atRest(); problem != "" {
			t.Error(problem)
		}
	})
}

func TestWhatIsNotAdopted(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(t *testing.T, w *world) // while no dispatcher runs
		left int
	}{
		{"blank", func(t *testing.T, w *world) {
			if _, err := w.engine.Create(t.Context(), sandbox.Spec{Lang: "python"}); err != nil {
				t.Fatal(err)
			}
		}, 1},
		{"dead", func(_ *testing.T, w *world) { w.engine.there()[0].die(sandbox.Exit{Code: 1}) }, 0},
		{"not to be reached", func(_ *testing.T, w *world) { w.engine.there()[0].hangUp() }, 0},
		{"silent", func(_ *testing.T, w *world) {
			w.engine.there()[0].silent = true
		}, 0},
		{"of an older contract", func(_ *testing.T, w *world) { w.engine.there()[0].state.Contract = sandbox.Contract - 1 }, 0},
		{"half loaded", func(_ *testing.T, w *world) { w.engine.there()[0].state.State = "loading" }, 0},
		{"of another language than the record's version", func(_ *testing.T, w *world) { w.engine.there()[0].spec.Lang = "node" }, 0},
		{"of a function that was deleted", func(t *testing.T, w *world) {
			fns, err := w.store.Functions(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := w.store.DeleteFunction(t.Context(), fns[0].ID); err != nil {
				t.Fatal(err)
			}
			// Such as a crash between the two leaves it.
			if err := w.store.RecordSandbox(t.Context(), w.engine.there()[0].id, fns[0].Live().Key()); err != nil {
				t.Fatal(err)
			}
		}, 0},
		{"of a version that there is not", func(t *testing.T, w *world) {
			s := w.engine.there()[0]
			if err := w.store.RecordSandbox(t.Context(), s.id, faas.VersionKey{FunctionID: s.loaded.Function, Number: 7}); err != nil {
				t.Fatal(err)
			}
		}, 0},
		{"not recorded", func(t *testing.T, w *world) {
			if err := w.store.ForgetSandboxes(t.Context(), w.engine.there()[0].id); err != nil {
				t.Fatal(err)
			}
		}, 0},
		{"gone, with its record left", func(t *testing.T, w *world) { w.engine.there()[0].Remove(t.Context()) }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			simulated(t, nil, func(t *testing.T, w *world) {
				w.create("version", "")
				w.Close()
				c.make(t, w)
				w.boot()
				time.Sleep(31 * time.Second) // longer than a silent one is waited for: the version's timeout
				synctest.Wait()
				if n := len(w.engine.there()); n != c.left {
					t.Errorf("%d sandboxes, want %d", n, c.left)
				}
				if problem := w.atRest(); problem != "" {
					t.Error(problem)
				}
			})
		})
	}
}

// What a sandbox says of itself counts for nothing: the code in it could say
// anything.
func TestAStolenIdentity(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		victim := w.create("version", "")
		thief := w.create("forever", "timeout=1s")
		s := w.engine.running("forever")[0]
		s.state.Function, s.state.Version = victim.ID, 1
		w.engine.running("version")[0].Remove(t.Context())
		w.restart()
		w.call(t.Context(), faas.Ref{ID: victim.ID}).wants(t, `{"result":1}`)
		if served, _ := s.numbers(); served != 0 {
			t.Error("a call went to the sandbox that claims to be another's")
		}
		w.call(t.Context(), faas.Ref{ID: thief.ID}).fails(t, faas.CodeTimeout)
	})
}

func TestABusySandboxIsAdoptedLater(t *testing.T) {
	for _, ends := range []bool{true, false} {
		simulated(t, nil, func(t *testing.T, w *world) {
			fn := w.create("gated", "timeout=10s max_scale=1")
			s := w.engine.there()[0]
			old := w.begin(t.Context(), fn)
			synctest.Wait()
			w.restart()
			if infos, err := w.Sandboxes(t.Context(), fn.Live()); err != nil || len(infos) != 0 {
				t.Errorf("a busy sandbox was adopted: %v, %v", infos, err)
			}
			time.Sleep(5 * time.Second)
			if ends {
				w.engine.gate <- struct{}{}
				(<-old).wants(t, `{"result":1}`)
				time.Sleep(time.Second)
				if there := w.engine.there(); len(there) != 1 || there[0] != s {
					t.Fatalf("%d sandboxes, want the one that was busy", len(there))
				}
				next := w.begin(t.Context(), fn)
				w.engine.gate <- struct{}{}
				(<-next).wants(t, `{"result":1}`)
				if served, _ := s.numbers(); served != 2 {
					t.Error("the sandbox that was busy was not used again")
				}
			} else {
				time.Sleep(10 * time.Second)
				if n := len(w.engine.there()); n != 0 {
					t.Errorf("%d sandboxes, though the old call's time is over", n)
				}
				<-old
			}
			synctest.Wait()
			if problem := w.atRest(); problem != "" {
				t.Error(problem)
			}
		})
	}
}

func TestAdoptedSandboxesOfOldVersionsGo(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("gated", "min_scale=1")
		w.put(fn, "version", "")
		w.restart()
		if n := len(w.engine.there()); n != 2 {
			t.Fatalf("%d sandboxes, want both versions'", n)
		}
		time.Sleep(retiredIdle + 2*time.Second)
		synctest.Wait()
		if n := len(w.engine.running("gated")); n != 0 {
			t.Errorf("%d sandboxes of the old version are left", n)
		}
	})
}

func TestAdoptionOfMany(t *testing.T) {
	leakless(t)
	w := newWorld(t, nil)
	fn := w.create("gated", "max_scale=50")
	done := make(chan struct{})
	go func() {
		defer close(done)
		together(50, func(int) { w.call(context.Background(), faas.Ref{ID: fn.ID}) })
	}()
	eventually(t, "50 sandboxes serve", func() bool { return w.Stats()["busy"] == 50 })
	close(w.engine.gate)
	<-done
	eventually(t, "everything is recorded", func() bool { return w.atRest() == "" })
	w.Close()
	w.boot()
	if n := len(w.engine.there()); n != 50 || w.Stats()["idle"] != 50 {
		t.Errorf("%d sandboxes are there and %d adopted, want 50", n, w.Stats()["idle"])
	}
	w.Close()
	w.engine.Purge(context.Background())
}

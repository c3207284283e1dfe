package sandboxtest

import (
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/sandbox"
)

// living returns the sandboxes that are not dead, and their IDs in order.
func living(t *testing.T, e sandbox.Engine) ([]string, map[string]sandbox.Instance) {
	t.Helper()
	all, err := e.List(t.Context())
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	var ids []string
	byID := map[string]sandbox.Instance{}
	for _, inst := range all {
		select {
		case <-inst.Done():
		default:
			ids = append(ids, inst.ID())
			byID[inst.ID()] = inst
		}
	}
	slices.Sort(ids)
	return ids, byID
}

// list holds that an engine lists the sandboxes of its own aviary that live.
func (h Harness) list(t *testing.T) {
	e, _ := h.open(t)
	if ids, _ := living(t, e); len(ids) != 0 {
		t.Errorf("a new aviary has %q", ids)
	}
	var want []string
	var mu sync.Mutex
	instances := map[string]sandbox.Instance{}
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			inst, err := e.Create(t.Context(), Spec("python"))
			if err != nil {
				t.Errorf("Create: %v", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			want = append(want, inst.ID())
			instances[inst.ID()] = inst
		})
	}
	// Listing must not disturb sandboxes that are being made.
	for range 5 {
		living(t, e)
	}
	all.Wait()
	slices.Sort(want)
	ids, byID := living(t, e)
	if !slices.Equal(ids, want) {
		t.Errorf("listed %q, want %q", ids, want)
	}
	for id, inst := range byID {
		if instances[id] != inst {
			t.Errorf("sandbox %s is listed as another instance than was created", id)
		}
		if state := State(t, inst); state != "blank" {
			t.Errorf("it is %q", state)
		}
	}
}

// adoption holds that a later engine takes over a living sandbox as it is.
func (h Harness) adoption(t *testing.T) {
	first, aviary := h.open(t)
	began := time.Now()
	made := Create(t, first, Spec("python"))
	ended := time.Now()
	Load(t, made, counter)
	Call(t, made, nil, nil)
	limits := sandbox.Limits{Memory: 256 << 20, CPUs: 0.5}
	if err := made.Resize(t.Context(), limits); err != nil {
		t.Fatal(err)
	}
	host, port := made.Addr()
	if err := first.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}

	second := h.reopen(t, aviary)
	ids, byID := living(t, second)
	if !slices.Equal(ids, []string{made.ID()}) {
		t.Fatalf("the second engine lists %q, want %q", ids, made.ID())
	}
	adopted := byID[made.ID()]
	want := Spec("python")
	want.Limits = limits
	if adopted.Spec() != want {
		t.Errorf("adopted with %+v, want %+v", adopted.Spec(), want)
	}
	if at := adopted.Created(); at.Before(began.Add(-time.Second)) || at.After(ended.Add(time.Second)) {
		t.Errorf("adopted as created at %v, was %v", at, made.Created())
	}
	for _, inst := range []sandbox.Instance{made, adopted} {
		if outdated, err := inst.Outdated(t.Context()); err != nil || outdated {
			t.Errorf("a sandbox that was just made is outdated: %v, %v", outdated, err)
		}
	}
	if adopted.Token() != made.Token() || adopted.Token() == "" {
		t.Errorf("adopted with the token %q, was %q", adopted.Token(), made.Token())
	}
	if h, p := adopted.Addr(); h != host || p != port {
		t.Errorf("adopted at %s:%d, was %s:%d", h, p, host, port)
	}
	var result int
	if Call(t, adopted, nil, &result); result != 2 {
		t.Errorf("result %d: want the second call's to the same process, 2", result)
	}
	if err := adopted.Resize(t.Context(), Spec("python").Limits); err != nil {
		t.Errorf("Resize: %v", err)
	}
	if err := adopted.Remove(t.Context()); err != nil {
		t.Fatalf("Remove: %v", err)
	}
	if exit, err := adopted.Exit(t.Context()); err != nil || !exit.Removed {
		t.Errorf("Exit is %+v, %v", exit, err)
	}
	if ids, _ := living(t, second); len(ids) != 0 {
		t.Errorf("after Remove there is %q", ids)
	}

	adopted = Create(t, second, Spec("python"))
	Load(t, adopted, exit3)
	third := h.reopen(t, aviary)
	_, byID = living(t, third)
	if adopted = byID[adopted.ID()]; adopted == nil {
		t.Fatal("the third engine does not list the sandbox")
	}
	End(t, adopted)
}

// clearing holds that a later engine can remove a sandbox that died between the two.
func (h Harness) clearing(t *testing.T) {
	first, aviary := h.open(t)
	inst := Create(t, first, Spec("python"))
	Load(t, inst, exit3)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Do(t.Context(), inst.Dial, http.MethodPost, "/", "", nil); err == nil {
		t.Fatal("the deadly call was answered")
	}
	second := h.reopen(t, aviary)
	Eventually(t, "the dead sandbox is known to be dead", func() bool {
		ids, _ := living(t, second)
		return len(ids) == 0
	})
	dead, err := second.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, inst := range dead {
		if err := inst.Remove(t.Context()); err != nil {
			t.Errorf("Remove: %v", err)
		}
	}
	if left, err := second.List(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("after Remove there is %v, %v", left, err)
	}
}

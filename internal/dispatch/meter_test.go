package dispatch

import (
	"context"
	"errors"
	"testing"

	"github.com/flockofbirds/fob/internal/sandbox"
	"github.com/flockofbirds/fob/internal/telemetry"
)

func TestMeter(t *testing.T) {
	metrics := telemetry.NewMetrics()
	fake := newFakeEngine()
	e := Meter(fake, metrics)
	ctx := t.Context()
	want := func(call string, times, failures int) {
		t.Helper()
		if n := counted(t, metrics, "fob_engine_call_seconds", call); n != times {
			t.Errorf("%d calls of %s, want %d", n, call, times)
		}
		if n := counted(t, metrics, "fob_engine_errors_total", call); n != failures {
			t.Errorf("%d failures of %s, want %d", n, call, failures)
		}
	}
	if err := e.Prepare(ctx, "python"); err != nil || e.Name() != "fake" {
		t.Errorf("%s: Prepare: %v", e.Name(), err)
	}
	want("prepare", 1, 0)

	made, err := e.Create(ctx, sandbox.Spec{Lang: "python"})
	if err != nil {
		t.Fatal(err)
	}
	fake.refusal = errors.New("full")
	if inst, err := e.Create(ctx, sandbox.Spec{}); inst != nil || !errors.Is(err, fake.refusal) {
		t.Errorf("the engine refused, and Create returns %v, %v", inst, err)
	}
	fake.refusal = context.Canceled // nobody waits for it any more
	if inst, err := e.Create(ctx, sandbox.Spec{}); inst != nil || !errors.Is(err, fake.refusal) {
		t.Errorf("given up, Create returns %v, %v", inst, err)
	}
	want("create", 3, 1)

	fake.refusal = nil
	other, err := fake.Create(ctx, sandbox.Spec{}) // as by an earlier dispatcher
	if err != nil {
		t.Fatal(err)
	}
	var lists [2][]sandbox.Instance
	for i := range lists {
		if lists[i], err = e.List(ctx); err != nil || len(lists[i]) != 2 {
			t.Fatalf("List: %v, %v", lists[i], err)
		}
	}
	if lists[0][0] != made || lists[0][1] != lists[1][1] || lists[0][1].ID() != other.ID() {
		t.Error("a sandbox is listed as another Instance than before")
	}
	want("list", 2, 0)

	for _, c := range []struct {
		call string
		do   func() error
	}{
		{"resize", func() error { return made.Resize(ctx, sandbox.Limits{}) }},
		{"pause", func() error { return made.Pause(ctx) }},
		{"resume", func() error { return made.Resume(ctx) }},
		{"remove", func() error { return made.Remove(ctx) }},
	} {
		if err := c.do(); err != nil {
			t.Errorf("%s: %v", c.call, err)
		}
		want(c.call, 1, 0)
	}
	fake.stuck = errors.New("stuck")
	if err := lists[0][1].Remove(ctx); !errors.Is(err, fake.stuck) {
		t.Errorf("Remove: %v", err)
	}
	want("remove", 2, 1)
	if n := len(e.(*meteredEngine).known); n != 1 {
		t.Errorf("%d sandboxes are remembered, want the one that is there", n)
	}
}

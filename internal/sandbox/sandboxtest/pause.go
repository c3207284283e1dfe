package sandboxtest

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/sandbox"
)

// hangs fails the test if a paused sandbox answers.
func hangs(t *testing.T, inst sandbox.Instance) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	conn := sandbox.NewConn(inst, 1<<20, nil)
	defer conn.Close()
	if health, err := conn.Health(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("paused, its health is %+v, %v", health, err)
	}
}

func (h Harness) pause(t *testing.T) {
	e, aviary := h.open(t)
	inst := Create(t, e, Spec("python"))
	Load(t, inst, counter)
	Call(t, inst, nil, nil)
	for round := range 2 {
		for range 2 { // twice is no error
			if err := inst.Pause(t.Context()); err != nil {
				t.Fatalf("Pause: %v", err)
			}
		}
		hangs(t, inst)
		type answer struct {
			status int
			body   string
			err    error
		}
		answered := make(chan answer, 1)
		go func() {
			status, body, err := Do(t.Context(), inst.Dial, http.MethodPost, "/", "", map[string]any{})
			answered <- answer{status, string(body), err}
		}()
		select {
		case a := <-answered:
			t.Fatalf("paused, it answers a call: %+v", a)
		case <-time.After(200 * time.Millisecond):
		}
		if ids, byID := living(t, e); !slices.Equal(ids, []string{inst.ID()}) || byID[inst.ID()] != inst {
			t.Errorf("paused, it is not listed, but %q", ids)
		}
		hangs(t, inst) // listing a known sandbox changes nothing
		for range 2 {
			if err := inst.Resume(t.Context()); err != nil {
				t.Fatalf("Resume: %v", err)
			}
		}
		if a := <-answered; a.err != nil || a.status != http.StatusOK {
			t.Errorf("resumed, it answers the call with %+v", a)
		}
		var n int
		if Call(t, inst, nil, &n); n != 3+2*round {
			t.Errorf("the next call is number %d, want %d", n, 3+2*round)
		}
	}
	for n := range 20 { // close together
		if err := inst.Pause(t.Context()); err != nil {
			t.Fatalf("Pause number %d: %v", n, err)
		}
		if err := inst.Resume(t.Context()); err != nil {
			t.Fatalf("Resume number %d: %v", n, err)
		}
		Call(t, inst, nil, nil)
	}
	if err := inst.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	base := h.Traces(t, aviary) // what stays, such as a network
	if inst.Pause(t.Context()) == nil || inst.Resume(t.Context()) == nil {
		t.Error("a removed sandbox can be paused or resumed")
	}

	inst = Create(t, e, Spec("python"))
	if err := inst.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := inst.Remove(t.Context()); err != nil {
		t.Errorf("Remove of a paused one: %v", err)
	}
	if exit, err := inst.Exit(t.Context()); err != nil || exit != (sandbox.Exit{Code: 137, Removed: true}) {
		t.Errorf("Exit is %+v, %v", exit, err)
	}
	if left := h.Traces(t, aviary); !slices.Equal(left, base) {
		t.Errorf("left of a paused one: %q, before there was %q", left, base)
	}

	inst = Create(t, e, Spec("python"))
	Load(t, inst, exit3)
	End(t, inst)
	if inst.Pause(t.Context()) == nil || inst.Resume(t.Context()) == nil {
		t.Error("a dead sandbox can be paused or resumed")
	}
	if err := inst.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

// A dispatcher has ended and left paused sandboxes. The next one's engine resumes or
// removes them.
func (h Harness) adoptPaused(t *testing.T) {
	first, aviary := h.open(t)
	one, other := Create(t, first, Spec("python")), Create(t, first, Spec("python"))
	for _, inst := range []sandbox.Instance{one, other} {
		Load(t, inst, counter)
		Call(t, inst, nil, nil)
		if err := inst.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := h.reopen(t, aviary)
	ids, byID := living(t, second)
	if len(ids) != 2 {
		t.Fatalf("the second engine lists %q", ids)
	}
	var n int
	if Call(t, byID[one.ID()], nil, &n); n != 2 {
		t.Errorf("the call is number %d, want the second to the same process", n)
	}
	if err := byID[one.ID()].Pause(t.Context()); err != nil {
		t.Errorf("Pause of an adopted one: %v", err)
	}
	hangs(t, byID[one.ID()])
	for _, inst := range byID {
		if err := inst.Remove(t.Context()); err != nil {
			t.Errorf("Remove of an adopted one: %v", err)
		}
	}
}

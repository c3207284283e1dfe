package docker_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/docker/docker/api/types/container"
	"go.uber.org/goleak"

	"github.com/flockofbirds/fob/internal/sandbox"
	"github.com/flockofbirds/fob/internal/sandbox/docker"
	"github.com/flockofbirds/fob/internal/sandbox/sandboxtest"
)

func TestDockerEventsBreakOff(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	api := dockerClient(t)
	c := &sandboxtest.Cable{Path: filepath.Join(shortDir(t), "d.sock"), Target: engineSocket(t, api)}
	c.Join(t)
	t.Cleanup(c.Cut)
	t.Setenv("DOCKER_HOST", "unix://"+c.Path)
	e, _ := open(t)

	killed := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	removed := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	later := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	killedID, removedID, laterID := inspect(t, api, killed).ID, inspect(t, api, removed).ID, inspect(t, api, later).ID

	c.Cut()
	if _, err := e.Create(t.Context(), sandboxtest.Spec("python")); !errors.Is(err, sandbox.ErrNoEngine) {
		t.Errorf("Create without an engine: %v", err)
	}
	if _, err := e.List(t.Context()); !errors.Is(err, sandbox.ErrNoEngine) {
		t.Errorf("List without an engine: %v", err)
	}
	if err := later.Remove(t.Context()); !errors.Is(err, sandbox.ErrNoEngine) {
		t.Errorf("Remove without an engine: %v", err)
	}
	// What lives still serves.
	if state := sandboxtest.State(t, later); state != "blank" {
		t.Errorf("it is %q", state)
	}
	if err := api.ContainerKill(t.Context(), killedID, "KILL"); err != nil {
		t.Fatal(err)
	}
	if err := api.ContainerRemove(t.Context(), removedID, container.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	c.Join(t)
	ctx, cancel := context.WithTimeout(t.Context(), sandboxtest.Patience)
	defer cancel()
	for name, inst := range map[string]sandbox.Instance{"killed": killed, "removed": removed} {
		exit, err := inst.Exit(ctx)
		if err != nil || exit != (sandbox.Exit{Code: 137}) {
			t.Errorf("%s while nobody listened: Exit is %+v, %v", name, exit, err)
		}
	}
	// The stream is a live one again.
	if err := api.ContainerKill(t.Context(), laterID, "KILL"); err != nil {
		t.Fatal(err)
	}
	if _, err := later.Exit(ctx); err != nil {
		t.Errorf("killed after the break: %v", err)
	}
}

func TestDockerEngineNotThere(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
	_, err := docker.New(t.Context(), config("tnone", shortDir(t)))
	if !errors.Is(err, sandbox.ErrNoEngine) {
		t.Errorf("New: %v, want ErrNoEngine", err)
	}
}

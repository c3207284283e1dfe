package docker_test

import (
	"context"
	"sync"
	"testing"

	"github.com/flockofbirds/fob/internal/sandbox/docker"
	"github.com/flockofbirds/fob/internal/sandbox/sandboxtest"
)

// The engine may still be making the network for a dispatcher that was killed
// when the next one asks for it.
func TestDockerNetworkAskedForTwice(t *testing.T) {
	for range 3 {
		first, c := open(t)
		second, err := docker.New(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { second.Close() })
		var all sync.WaitGroup
		for _, e := range []*docker.Engine{first, second} {
			all.Go(func() {
				inst, err := e.Create(t.Context(), sandboxtest.Spec("python"))
				if err != nil {
					t.Error(err)
					return
				}
				if err := inst.Remove(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
}

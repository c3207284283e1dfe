package docker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
)

// Purge implements sandbox.Engine: containers, networks and socket folders.
func (e *Engine) Purge(ctx context.Context) error {
	if err := e.purgeContainers(ctx); err != nil {
		return err
	}
	if err := e.removeNetworks(ctx); err != nil {
		return err
	}
	folders, err := e.sockets.list()
	if err != nil {
		return err
	}
	for _, id := range folders {
		if err := e.sockets.clear(id); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) purgeContainers(ctx context.Context) error {
	containers, err := e.api.ContainerList(ctx, container.ListOptions{All: true, Filters: e.ours()})
	if err != nil {
		return fault("listing what to purge", err)
	}
	work := make(chan container.Summary)
	failed := make(chan error, len(containers))
	var workers sync.WaitGroup
	// The engine takes longest to wait for each container's end; a few at a
	// time keep it busy without flooding it.
	for range min(8, len(containers)) {
		workers.Go(func() {
			for c := range work {
				if inst, known := e.get(c.Labels[labelSandbox]); known {
					failed <- inst.Remove(ctx)
				} else {
					failed <- e.removeContainer(ctx, c.ID)
				}
			}
		})
	}
	for _, c := range containers {
		work <- c
	}
	close(work)
	workers.Wait()
	close(failed)
	var all []error
	for err := range failed {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// removeContainer kills and removes a container with its volumes, and waits
// until it is gone. One that is gone already is no error.
func (e *Engine) removeContainer(ctx context.Context, nameOrID string) error {
	err := e.api.ContainerRemove(ctx, nameOrID, container.RemoveOptions{Force: true, RemoveVolumes: true})
	switch {
	case err == nil || errdefs.IsNotFound(err):
		return nil
	case !errdefs.IsConflict(err):
		return fault("removing a sandbox", err)
	}
	// Somebody else is removing it already.
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		_, inspectErr := e.api.ContainerInspect(ctx, nameOrID)
		if errdefs.IsNotFound(inspectErr) {
			return nil
		}
		if inspectErr != nil {
			return fault("waiting for a sandbox's removal", inspectErr)
		}
		select {
		case <-ctx.Done():
			return fault("removing a sandbox", errors.Join(err, ctx.Err()))
		case <-poll.C:
		}
	}
}

package docker

import (
	"context"
	"errors"

	"github.com/docker/docker/api/types/container"
	"golang.org/x/sync/errgroup"
)

// Purge implements sandbox.Engine. It removes containers, networks and socket folders.
// A failure to remove one does not stop it.
func (e *Engine) Purge(ctx context.Context) error {
	return errors.Join(e.purgeContainers(ctx), e.network.purge(ctx), e.sockets.purge())
}

func (e *Engine) purgeContainers(ctx context.Context) error {
	containers, err := e.api.ContainerList(ctx, container.ListOptions{All: true, Filters: ours(e.config.Aviary)})
	if err != nil {
		return fault("listing what to purge", err)
	}
	// Most of the time goes into waiting for containers to end. A few at a time keep
	// the engine busy without flooding it.
	var removing errgroup.Group
	removing.SetLimit(8)
	for _, c := range containers {
		removing.Go(func() error {
			if inst, known := e.get(c.Labels[labelSandbox]); known && inst.container() == c.ID {
				return inst.Remove(ctx)
			}
			return e.remover.remove(ctx, c.ID)
		})
	}
	return removing.Wait()
}

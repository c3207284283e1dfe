package docker

import (
	"context"
	"errors"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
)

// Purge implements sandbox.Engine: containers, networks and socket folders. What
// cannot be removed keeps nothing else from being.
func (e *Engine) Purge(ctx context.Context) error {
	return errors.Join(e.purgeContainers(ctx), e.removeNetworks(ctx), e.purgeFolders())
}

func (e *Engine) purgeContainers(ctx context.Context) error {
	containers, err := e.api.ContainerList(ctx, container.ListOptions{All: true, Filters: e.ours()})
	if err != nil {
		return fault("listing what to purge", err)
	}
	// The engine takes longest to wait for each container's end; a few at a
	// time keep it busy without flooding it.
	var removing errgroup.Group
	removing.SetLimit(8)
	for _, c := range containers {
		removing.Go(func() error {
			if inst, known := e.get(c.Labels[labelSandbox]); known && inst.container() == c.ID {
				return inst.Remove(ctx)
			}
			return e.removeContainer(ctx, c.ID)
		})
	}
	return removing.Wait()
}

func (e *Engine) purgeFolders() error {
	folders, err := e.sockets.list()
	if err != nil {
		return err
	}
	var all []error
	for _, id := range folders {
		all = append(all, e.sockets.clear(id))
	}
	return errors.Join(all...)
}

// evictTime is how long List waits for the removal of what is no sandbox.
const evictTime = 5 * time.Second

// evict removes a container that has our aviary's label and is none of its sandboxes.
// One that cannot be removed, or not soon, keeps nobody from its sandboxes.
func (e *Engine) evict(ctx context.Context, c container.Summary) {
	ctx, cancel := context.WithTimeout(ctx, evictTime)
	defer cancel()
	err := e.removeContainer(ctx, c.ID)
	if err == nil {
		e.log.Warn().Str("container", c.ID).Strs("names", c.Names).Msg("removed a container that had our aviary's label and was none of its sandboxes")
	}
	e.told(c.ID, err).Str("container", c.ID).Strs("names", c.Names).Msg("a container that has our aviary's label, and is none of its sandboxes, cannot be removed: it is tried again and again")
}

// told begins a line of the log about what cannot be removed: a warning the first
// time, and none without an error.
func (e *Engine) told(id string, err error) *zerolog.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil {
		delete(e.stuck, id)
		return nil
	}
	if e.stuck[id] {
		return e.log.Debug().Err(err)
	}
	e.stuck[id] = true
	return e.log.Warn().Err(err)
}

// removeContainer kills and removes a container with its volumes, and waits
// until it is gone. One that is gone already is no error.
func (e *Engine) removeContainer(ctx context.Context, id string) error {
	// gofail: var removeBegin struct{}
	// return errors.New("failpoint removeBegin")
	err := e.api.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
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
		_, inspectErr := e.api.ContainerInspect(ctx, id)
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

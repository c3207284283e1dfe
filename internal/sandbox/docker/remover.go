package docker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
	"github.com/rs/zerolog"
)

// remover removes containers. It logs each container or folder that it cannot remove
// once.
type remover struct {
	api *client.Client
	log zerolog.Logger

	mu    sync.Mutex
	stuck map[string]bool // containers and folders that could not be removed
}

func newRemover(api *client.Client, log zerolog.Logger) *remover {
	return &remover{api: api, log: log, stuck: map[string]bool{}}
}

// evictTime bounds how long List waits for the removal of a container that is not a
// sandbox.
const evictTime = 5 * time.Second

// evict removes a container that has our aviary's label but is not one of its
// sandboxes. If that fails or takes long, List goes on without it.
func (r *remover) evict(ctx context.Context, c container.Summary) {
	ctx, cancel := context.WithTimeout(ctx, evictTime)
	defer cancel()
	err := r.remove(ctx, c.ID)
	if err == nil {
		r.log.Warn().Str("container", c.ID).Strs("names", c.Names).Msg("removed a container that had our aviary's label but was not one of its sandboxes")
	}
	r.told(c.ID, err).Str("container", c.ID).Strs("names", c.Names).Msg("a container that has our aviary's label, but is not one of its sandboxes, cannot be removed; trying again")
}

// told begins a log line about something that could not be removed. It is a warning the
// first time. Without an error it logs nothing.
func (r *remover) told(id string, err error) *zerolog.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		delete(r.stuck, id)
		return nil
	}
	if r.stuck[id] {
		return r.log.Debug().Err(err)
	}
	r.stuck[id] = true
	return r.log.Warn().Err(err)
}

// remove kills and removes a container with its volumes, and waits until it is gone. It
// is no error if it is gone already.
func (r *remover) remove(ctx context.Context, id string) error {
	// gofail: var removeBegin struct{}
	// return errors.New("failpoint removeBegin")
	err := r.api.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
	switch {
	case err == nil || errdefs.IsNotFound(err):
		return nil
	case !errdefs.IsConflict(err):
		return fault("removing a sandbox", err)
	}
	// Somebody else is removing it.
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		_, inspectErr := r.api.ContainerInspect(ctx, id)
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

package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/docker/docker/client"
)

// The usual paths of the engine's socket. On most systems the second is the first by
// way of a link, which a container's image need not have.
var engineSockets = []string{"/var/run/docker.sock", "/run/docker.sock"}

// newClient returns a client of the engine that the environment names.
func newClient() (*client.Client, error) {
	opts := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if os.Getenv(client.EnvOverrideHost) == "" {
		if name := os.Getenv("DOCKER_CONTEXT"); name != "" && name != "default" {
			return nil, fmt.Errorf("DOCKER_CONTEXT=%s is the docker command's, which has its contexts in files: set DOCKER_HOST to what docker context inspect --format '{{.Endpoints.docker.Host}}' prints, or unset DOCKER_CONTEXT for this machine's engine", name)
		}
		if host := foundSocket(engineSockets); host != "" {
			opts = append(opts, client.WithHost("unix://"+host))
		}
	}
	api, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, fmt.Errorf("the Docker client's settings are not usable: %w; correct DOCKER_HOST and the other DOCKER_ variables", err)
	}
	return api, nil
}

// foundSocket returns the first path that exists, or "".
func foundSocket(paths []string) string {
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// checkKind fails if the engine is not Docker. Podman speaks the same API, but refuses
// options of our in-memory mounts: the number of files, and an owner.
func (e *Engine) checkKind(ctx context.Context) error {
	version, err := e.api.ServerVersion(ctx)
	if client.IsErrConnectionFailed(err) || ctx.Err() != nil {
		return unreachable(e.api.DaemonHost(), errors.Join(err, ctx.Err()))
	}
	if err != nil { // a proxy in front of the engine may refuse it; other causes show later
		e.log.Debug().Err(err).Msg("the engine does not say what it is")
		return nil
	}
	for _, part := range version.Components {
		if strings.Contains(part.Name, "Podman") {
			return fmt.Errorf("at %s is %s %s, and not Docker, and the dispatcher needs all of Docker's API: install Docker Engine, and set DOCKER_HOST to its socket", e.api.DaemonHost(), part.Name, part.Version)
		}
	}
	return nil
}

package docker

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
)

// locate finds out how the Docker engine calls our folder for sockets. When we
// run in a container ourselves that is not our own name for it, but the source
// of one of our mounts. Which container is ours is found by a file that we
// write and the engine then sees: names, cgroups and network settings differ
// between setups, and two containers can share them.
func (e *Engine) locate(ctx context.Context, engineHost string) error {
	dir, err := filepath.EvalSymlinks(e.sockets.path)
	if err != nil {
		return fmt.Errorf("finding the folder for sockets: %w", err)
	}
	marker := filepath.Join(dir, ".marker-"+rand.Text())
	if err := os.WriteFile(marker, nil, 0o600); err != nil {
		return fmt.Errorf("writing in the folder for sockets: %w; set FOB_SOCKETS to a folder of your own", err)
	}
	defer os.Remove(marker)
	e.sockets.source = dir
	for deadline := time.Now().Add(locatePatience); ; {
		source, err := e.seen(ctx, dir, marker)
		if err != nil {
			return err
		}
		if source != "" {
			e.sockets.source, e.inside = source, true
			return nil
		}
		// An engine of the same host name runs beside us, as on a plain
		// machine or in a container with an engine of its own.
		if own, _ := os.Hostname(); !inContainer() || own == engineHost {
			return nil
		}
		if time.Now().After(deadline) {
			return errNotShared(e.sockets.path)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// locatePatience is for an engine that has started our container, but not got
// round to noting so.
const locatePatience = 3 * time.Second

// seen returns what the engine calls our folder if a container sees the marker
// in it, and else "".
func (e *Engine) seen(ctx context.Context, dir, marker string) (string, error) {
	containers, err := e.api.ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		return "", fault("looking for the container that this runs in", err)
	}
	for _, c := range containers {
		mount, rest := covering(c.Mounts, dir)
		if mount == nil || mount.Source == "" {
			continue
		}
		if _, err := e.api.ContainerStatPath(ctx, c.ID, marker); err != nil {
			continue // not there, or the container has just ended
		}
		source := filepath.Join(mount.Source, rest)
		e.log.Debug().Str("container", c.ID[:12]).Str("folder", source).Msg("the socket folder is a mount of this container")
		return source, nil
	}
	return "", nil
}

// errNotShared says that sandboxes' sockets cannot be reached.
func errNotShared(dir string) error {
	return fmt.Errorf("the Docker engine does not see the folder %s: where the dispatcher runs in a container, mount a volume there (or where FOB_SOCKETS says); the engine must be on the same machine", dir)
}

// covering returns the innermost of the mounts that has path in it, and where
// in it that is.
func covering(mounts []container.MountPoint, path string) (*container.MountPoint, string) {
	var best *container.MountPoint
	var rest string
	for i, m := range mounts {
		r, err := filepath.Rel(m.Destination, path)
		if err != nil || r == ".." || strings.HasPrefix(r, "../") {
			continue
		}
		if best == nil || len(m.Destination) > len(best.Destination) {
			best, rest = &mounts[i], r
		}
	}
	return best, rest
}

func inContainer() bool {
	for _, sign := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Stat(sign); err == nil {
			return true
		}
	}
	return false
}

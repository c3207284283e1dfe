package docker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
	"github.com/rs/zerolog"
)

// locate finds out what the Docker engine calls our folder for sockets, and whether we
// run inside one of its containers. If we do, the engine's name for the folder is the
// source of one of our mounts. To find our container, we write a file and see in which
// container the engine finds it: names, cgroups and network settings differ between
// setups, and two containers can share them.
//
// An engine may be unable to look. Docker 28 cannot look into a container that has a
// mount below /var/run if its image has a link there. In that case we take the
// container whose ID the kernel tells us, provided that it has our mount.
func (d *socketDir) locate(ctx context.Context, api *client.Client, log zerolog.Logger, engineHost string) (inside bool, err error) {
	dir, err := filepath.EvalSymlinks(d.path)
	if err != nil {
		return false, fmt.Errorf("finding the folder for sockets: %w", err)
	}
	marker := filepath.Join(dir, ".marker-"+rand.Text())
	if err := os.WriteFile(marker, nil, 0o600); err != nil {
		return false, fmt.Errorf("writing in the folder for sockets: %w; set FOB_SOCKETS to a folder of your own", err)
	}
	defer os.Remove(marker)
	d.source = dir
	for deadline := time.Now().Add(locatePatience); ; {
		source, unseen, err := seen(ctx, api, log, dir, marker)
		if err != nil {
			return false, err
		}
		if source != "" {
			d.source = source
			return true, nil
		}
		// An engine with the same host name runs beside us: on a plain machine, or in a
		// container with an engine of its own.
		if own, _ := os.Hostname(); !inContainer() || own == engineHost {
			if unseen != nil {
				log.Warn().Err(unseen).Msg("the Docker engine cannot look into all containers; as this one runs beside it, that does not matter")
			}
			return false, nil
		}
		if time.Now().After(deadline) {
			return false, errors.Join(errNotShared(d.path), unseen)
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// locatePatience is for an engine that has started our container but not recorded it
// yet.
const locatePatience = 3 * time.Second

// seen returns the engine's name for our folder if a container has the marker file in
// it. Otherwise it returns "" and the reason if the engine could not look into a
// container that may be ours.
func seen(ctx context.Context, api *client.Client, log zerolog.Logger, dir, marker string) (source string, unseen, err error) {
	containers, err := api.ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		return "", nil, fault("looking for the container that this runs in", err)
	}
	var told string // according to the kernel
	for _, c := range containers {
		mount, rest := covering(c.Mounts, dir)
		if mount == nil || mount.Source == "" {
			continue
		}
		source := filepath.Join(mount.Source, rest)
		_, err := api.ContainerStatPath(ctx, c.ID, marker)
		switch {
		case err == nil:
			log.Debug().Str("container", c.ID[:12]).Str("folder", source).Msg("the socket folder is a mount of this container")
			return source, nil, nil
		case errdefs.IsNotFound(err): // it does not have the file, or has just ended
			continue
		case ctx.Err() != nil || client.IsErrConnectionFailed(err):
			return "", nil, fault("looking for the container that this runs in", err)
		}
		unseen = fmt.Errorf("the engine cannot look into the container %s, which may be this one: %w", c.ID[:12], err)
		if ours, err := isOwn(c.ID, mount); err != nil {
			return "", nil, err
		} else if ours {
			told = source
			log.Info().Err(unseen).Str("folder", source).Msg("the socket folder is a mount of this container, by its ID")
		}
	}
	return told, unseen, nil
}

// isOwn reports whether we run in a container, as far as the kernel tells: its ID is in
// the sources of our mounts, in our control group or in our host name, and the mount
// comes from the same place as our mount at that path.
func isOwn(id string, mount *container.MountPoint) (bool, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, fmt.Errorf("finding the container that this runs in: %w", err)
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return false, fmt.Errorf("finding the container that this runs in: %w", err)
	}
	host, _ := os.Hostname()
	named := len(host) >= 12 && strings.HasPrefix(id, host)
	return (named || strings.Contains(string(mounts)+string(groups), id)) && mountedFrom(string(mounts), mount), nil
}

// mountedFrom reports whether mountinfo has that mount, as far as this can be seen.
// mountinfo shows a source within its file system, and the engine shows it where the
// engine sees it, so only their ends agree. The last two names tell volumes apart.
func mountedFrom(mountinfo string, mount *container.MountPoint) bool {
	for line := range strings.Lines(mountinfo) {
		// A line reads "29 23 254:0 /docker/volumes/x/_data /sockets rw - ext4
		// /dev/vda1 rw".
		f := strings.Fields(line)
		if len(f) < 5 || f[4] != octal.Replace(mount.Destination) {
			continue
		}
		here, there := strings.Split(f[3], "/"), strings.Split(octal.Replace(mount.Source), "/")
		n := min(2, len(here)-1, len(there)-1)
		return f[3] == "/" || slices.Equal(here[len(here)-n:], there[len(there)-n:])
	}
	return false
}

// octal escapes a path as mountinfo does.
var octal = strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`)

// errNotShared says that the sandboxes' sockets cannot be reached.
func errNotShared(dir string) error {
	return fmt.Errorf("the Docker engine does not see the folder %s: where the dispatcher runs in a container, mount a volume there (or where FOB_SOCKETS says); the engine must be on the same machine", dir)
}

// covering returns the innermost mount that contains path, and path's place within it.
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

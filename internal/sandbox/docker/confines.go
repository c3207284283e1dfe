package docker

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"

	"github.com/flockofbirds/fob/internal/sandbox"
)

// confines is what keeps a sandbox in: all of a container's settings.
type confines struct {
	aviary  string
	user    string // UID:GID that drivers run as
	runtime string // the engine's own
	cpus    int    // of the machine
	sockets *socketDir
}

// container is what runs, as whom, and what marks it as ours.
func (c *confines) container(id, token string, spec sandbox.Spec, image string) *container.Config {
	return &container.Config{
		Image:    image,
		Hostname: id,
		User:     c.user,
		Env: []string{
			"FOB_SOCKET=" + socketMount + "/" + sandbox.SocketName,
			tokenVariable + token,
			"FOB_SECRETS=" + secretMount,
			"HOME=/tmp",
		},
		Labels: map[string]string{
			labelAviary:  c.aviary,
			labelSandbox: id,
			labelLang:    spec.Lang,
			labelRuntime: spec.Runtime,
		},
	}
}

// host is what a container may use of the machine, and all that it may not.
func (c *confines) host(id string, spec sandbox.Spec, network string) *container.HostConfig {
	resources := c.resources(spec.Runtime, spec.Limits)
	resources.Ulimits = []*container.Ulimit{
		{Name: "nofile", Soft: openFiles, Hard: openFiles},
		// With 0 the kernel would still hand a core to a program that the machine
		// has for them; 1 byte keeps it from that, and is too few for a file.
		{Name: "core", Soft: 1, Hard: 1},
	}
	init := true
	return &container.HostConfig{
		NetworkMode:    container.NetworkMode(network),
		IpcMode:        container.IPCModePrivate,
		RestartPolicy:  container.RestartPolicy{Name: container.RestartPolicyDisabled},
		Runtime:        spec.Runtime,
		ReadonlyRootfs: true,
		CapDrop:        []string{"ALL"},
		SecurityOpt:    []string{"no-new-privileges:true"},
		Init:           &init,
		Resources:      resources,
		Tmpfs: map[string]string{
			"/tmp":      "rw,noexec,nosuid,nodev,mode=1777,size=64m,nr_inodes=16384",
			secretMount: c.secretOptions(),
			// Private IPC brings these two, writable; /tmp is to be the only
			// place for files, with the only limit to keep.
			"/dev/shm":    "ro,noexec,nosuid,nodev,size=64k",
			"/dev/mqueue": "ro,noexec,nosuid,nodev,size=64k",
		},
		// A mount of this kind, unlike a bind in the older notation, is
		// refused when its source is missing rather than making one.
		Mounts: []mount.Mount{{
			Type:   mount.TypeBind,
			Source: c.sockets.engineFolder(id),
			Target: socketMount,
		}},
		LogConfig: container.LogConfig{
			Type: "json-file",
			Config: map[string]string{
				"max-size": "1m",
				"max-file": "2",
				"mode":     "non-blocking", // printing must never block a function
			},
		},
	}
}

// secretOptions are those of the mount for secrets, which is the driver's alone and
// holds what a version may have of them.
func (c *confines) secretOptions() string {
	uid, gid, _ := strings.Cut(c.user, ":")
	return "rw,noexec,nosuid,nodev,mode=0700,size=1m,uid=" + uid + ",gid=" + gid
}

// kernelPids is how many threads a runtime that brings a kernel of its own may
// have for itself. gVisor has about 70 with one process in it.
const kernelPids = 192

// ownPids is what the limit on processes and threads must allow on top for a
// runtime's own, which it counts as well.
func (c *confines) ownPids(runtime string) int64 {
	if runtime == "" {
		runtime = c.runtime
	}
	if strings.Contains(runtime, "runc") || runtime == "crun" {
		return 0
	}
	return kernelPids
}

// resources are the limits in Docker's terms. It refuses more processors than
// the machine has, which means no more than all of them.
func (c *confines) resources(runtime string, limits sandbox.Limits) container.Resources {
	pids := limits.Pids
	if pids == 0 { // which would be no limit to Docker
		pids = sandbox.DefaultPids
	}
	pids += c.ownPids(runtime)
	return container.Resources{
		Memory:     limits.Memory,
		MemorySwap: limits.Memory,
		NanoCPUs:   int64(min(limits.CPUs, float64(c.cpus)) * 1e9),
		PidsLimit:  &pids,
	}
}

// recipe is a digest of all that makes a sandbox what it is, but for what each has of
// its own and what can be changed while it lives: two with the same one differ in
// nothing that a function, or who confines it, could care about.
func (c *confines) recipe(image string, spec sandbox.Spec) (string, error) {
	spec.Limits = sandbox.Limits{}
	config, host := c.container("", "", spec, image), c.host("", spec, spec.Network)
	config.Labels = nil
	for i := range host.Mounts { // which may have moved
		host.Mounts[i].Source = ""
	}
	text, err := json.Marshal([]any{config, host})
	if err != nil {
		return "", err
	}
	digest := sha256.Sum256(text)
	return hex.EncodeToString(digest[:8]), nil
}

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

// confines is what keeps a sandbox in: all settings of its container.
type confines struct {
	aviary  string
	user    string // UID:GID that drivers run as
	runtime string // the engine's own
	cpus    int    // processors of the machine
	sockets *socketDir
}

// container returns what runs in a sandbox, as which user, and with our labels.
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

// host returns what a container may and may not use of the machine.
func (c *confines) host(id string, spec sandbox.Spec, network string) *container.HostConfig {
	resources := c.resources(spec.Runtime, spec.Limits)
	resources.Ulimits = []*container.Ulimit{
		{Name: "nofile", Soft: openFiles, Hard: openFiles},
		// With 0 the kernel could still pipe a core to a program of the machine's. 1
		// byte prevents that, and is too small for a file.
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
			// These two come with a private IPC namespace, writable. Files should go to
			// /tmp alone, so that only one limit has to hold.
			"/dev/shm":    "ro,noexec,nosuid,nodev,size=64k",
			"/dev/mqueue": "ro,noexec,nosuid,nodev,size=64k",
		},
		// Unlike a bind in the older notation, this kind of mount fails if its source
		// is missing, instead of creating it.
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
				"mode":     "non-blocking", // so that printing never blocks a function
			},
		},
	}
}

// secretOptions returns the options of the mount for secrets. It belongs to the driver
// alone, and is as large as a version's secrets may be.
func (c *confines) secretOptions() string {
	uid, gid, _ := strings.Cut(c.user, ":")
	return "rw,noexec,nosuid,nodev,mode=0700,size=1m,uid=" + uid + ",gid=" + gid
}

// kernelPids is how many threads a runtime with a kernel of its own may use for itself.
// gVisor uses about 70 with one process in it.
const kernelPids = 192

// ownPids returns how much the limit on processes and threads must be raised for a
// runtime's own threads, which count as well.
func (c *confines) ownPids(runtime string) int64 {
	if runtime == "" {
		runtime = c.runtime
	}
	if strings.Contains(runtime, "runc") || runtime == "crun" {
		return 0
	}
	return kernelPids
}

// resources returns the limits in Docker's terms. Docker refuses more processors than
// the machine has, so more are cut down to all of them.
func (c *confines) resources(runtime string, limits sandbox.Limits) container.Resources {
	pids := limits.Pids
	if pids == 0 { // to Docker 0 is no limit
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

// recipe returns a digest of everything that makes a sandbox what it is, except what
// each sandbox has for itself and what can be changed while it lives. Two sandboxes
// with the same recipe are interchangeable.
func (c *confines) recipe(image string, spec sandbox.Spec) (string, error) {
	spec.Limits = sandbox.Limits{}
	config, host := c.container("", "", spec, image), c.host("", spec, spec.Network)
	config.Labels = nil
	for i := range host.Mounts { // it may have moved
		host.Mounts[i].Source = ""
	}
	text, err := json.Marshal([]any{config, host})
	if err != nil {
		return "", err
	}
	digest := sha256.Sum256(text)
	return hex.EncodeToString(digest[:8]), nil
}

package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/sandbox"
)

const (
	// bootTime is how long a driver may take to accept connections. It is
	// long because a machine that starts many at once is slow.
	bootTime = 30 * time.Second

	// bootPoll is how often it is tried meanwhile. There is no asking the
	// kernel to be told that a socket listens.
	bootPoll = 2 * time.Millisecond

	// creationTime is how long the engine may take to create a container
	// before we forget about it and leave it to the next start to clear.
	creationTime = 2 * time.Minute

	// cleanUpTime is how long the clearing away after a failure may take.
	cleanUpTime = 30 * time.Second

	// socketMount is where a sandbox has its socket folder.
	socketMount = "/run/fob"

	// tokenVariable begins the entry of a sandbox's token in its environment.
	tokenVariable = "FOB_TOKEN="
	// secretMount is where it has the files with its secrets, in memory.
	secretMount = "/run/secrets"

	openFiles = 1024
)

// Create implements sandbox.Engine. A driver image that is missing is built.
func (e *Engine) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	image, err := e.image(ctx, spec.Lang)
	if err != nil {
		return nil, err
	}
	inst, err := e.create(ctx, spec, image)
	// All three can be taken away by others at any time; each costs one more try.
	if err != nil && errors.Is(err, sandbox.ErrNoFolder) {
		inst, err = e.create(ctx, spec, image)
	}
	if err != nil && e.imageLost(ctx, spec.Lang, err) {
		if image, err = e.image(ctx, spec.Lang); err == nil {
			inst, err = e.create(ctx, spec, image)
		}
	}
	if err != nil && e.networkLost(ctx, err) {
		inst, err = e.create(ctx, spec, image)
	}
	if err != nil {
		return nil, err
	}
	return inst, nil
}

// create makes one attempt and leaves nothing behind when it fails.
func (e *Engine) create(ctx context.Context, spec sandbox.Spec, image string) (*instance, error) {
	begin := time.Now()
	mode, err := e.mode(ctx, spec.Network)
	if err != nil {
		return nil, err
	}
	id := sandbox.NewID()
	inst := e.newInstance(id, sandbox.NewToken(), spec, begin)
	e.mu.Lock()
	e.known[id] = inst
	e.mu.Unlock()
	err = inst.boot(ctx, image, mode)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		cleanUp, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
		defer cancel()
		if failed := inst.Remove(cleanUp); failed != nil {
			level := zerolog.ErrorLevel
			if errors.Is(failed, sandbox.ErrNoEngine) { // whoever asked for the sandbox hears of that
				level = zerolog.DebugLevel
			}
			e.log.WithLevel(level).Err(failed).Str("sandbox", id).Msg("a sandbox that could not be created is still there; it is removed as soon as the engine does that")
			e.forget(id)
		}
		return nil, err
	}
	inst.ready.Store(true)
	// gofail: var bootDone struct{}
	return inst, nil
}

// boot brings the container up, up to the driver's first accepted connection.
func (i *instance) boot(ctx context.Context, image, network string) error {
	e := i.e
	var phases [3]time.Duration
	begin := time.Now()
	if err := e.ensureSockets(); err != nil {
		return err
	}
	var err error
	if i.recipe, err = e.recipe(image, i.Spec()); err != nil {
		return err
	}
	if err := e.sockets.open(i.id); err != nil {
		return err
	}
	// gofail: var createBegin struct{}
	// return errors.New("failpoint createBegin")

	// The engine finishes what it was asked to create even when nobody waits
	// for it any more, and it would do so after we had cleared up.
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), creationTime)
	defer cancel()
	name := "fob-" + e.config.Aviary + "-" + i.id // for people; we go by the ID
	config := e.containerConfig(i, image)
	config.Labels[labelRecipe] = i.recipe
	created, err := e.api.ContainerCreate(whole, config, e.hostConfig(i, network), nil, nil, name)
	if err != nil {
		if strings.Contains(err.Error(), "bind source path does not exist") {
			if _, gone := os.Stat(e.sockets.folder(i.id)); errors.Is(gone, fs.ErrNotExist) {
				return fmt.Errorf("creating a sandbox: %w: somebody removed its folder: %w", sandbox.ErrNoFolder, err)
			}
			return fmt.Errorf("creating a sandbox: %w: %w", errNotShared(e.sockets.path), err)
		}
		return fault("creating a sandbox", err)
	}
	i.mu.Lock()
	i.ref = created.ID
	i.mu.Unlock()
	phases[0] = time.Since(begin)
	// gofail: var createDone struct{}
	// return errors.New("failpoint createDone")
	if err := e.api.ContainerStart(ctx, created.ID, container.StartOptions{}); err != nil {
		return poolHint(fault("starting a sandbox", err))
	}
	i.started.Store(true)
	phases[1] = time.Since(begin)
	// gofail: var startDone struct{}
	// return errors.New("failpoint startDone")
	c, err := e.api.ContainerInspect(ctx, created.ID)
	if err != nil {
		return fault("looking at a new sandbox", err)
	}
	i.host, i.network = e.address(i.id, c)
	if err := i.awaitDriver(ctx); err != nil {
		return err
	}
	phases[2] = time.Since(begin)
	e.log.Debug().Str("sandbox", i.id).Dur("create", phases[0]).Dur("start", phases[1]-phases[0]).
		Dur("boot", phases[2]-phases[1]).Msg("sandbox created")
	return nil
}

// awaitDriver waits until the driver accepts connections, or dies.
func (i *instance) awaitDriver(ctx context.Context) error {
	booting, cancel := context.WithTimeoutCause(ctx, bootTime, errors.New("the driver did not listen on its socket within "+bootTime.String()))
	defer cancel()
	poll := time.NewTicker(bootPoll)
	defer poll.Stop()
	// Deaths come as events; this is for when their stream is broken.
	check := time.NewTicker(time.Second)
	defer check.Stop()
	for {
		conn, err := i.Dial(booting)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-i.done:
			exit, err := i.settle(ctx)
			if err != nil {
				return err
			}
			return fmt.Errorf("sandbox %s ended with status %d before its driver was up; %s", i.id, exit.Code, i.lastWords(ctx))
		case <-booting.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("sandbox %s: %w; %s", i.id, context.Cause(booting), i.lastWords(ctx))
		case <-check.C:
			if c, err := i.e.api.ContainerInspect(booting, i.container()); errdefs.IsNotFound(err) {
				i.died(codeUnknown)
			} else if err == nil && !alive(c.State.Status) {
				i.died(c.State.ExitCode)
			}
		case <-poll.C:
		}
	}
}

func (e *Engine) containerConfig(i *instance, image string) *container.Config {
	return &container.Config{
		Image:    image,
		Hostname: i.id,
		User:     e.user,
		Env: []string{
			"FOB_SOCKET=" + socketMount + "/" + sandbox.SocketName,
			tokenVariable + i.token,
			"FOB_SECRETS=" + secretMount,
			"HOME=/tmp",
		},
		Labels: map[string]string{
			labelAviary:  e.config.Aviary,
			labelSandbox: i.id,
			labelLang:    i.spec.Lang,
			labelRuntime: i.spec.Runtime,
		},
	}
}

// hostConfig is the design's "Sandbox, by default".
func (e *Engine) hostConfig(i *instance, network string) *container.HostConfig {
	resources := e.resources(i.spec.Runtime, i.spec.Limits)
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
		Runtime:        i.spec.Runtime,
		ReadonlyRootfs: true,
		CapDrop:        []string{"ALL"},
		SecurityOpt:    []string{"no-new-privileges:true"},
		Init:           &init,
		Resources:      resources,
		Tmpfs: map[string]string{
			"/tmp":      "rw,noexec,nosuid,nodev,mode=1777,size=64m,nr_inodes=16384",
			secretMount: e.secretOptions(),
			// Private IPC brings these two, writable; /tmp is to be the only
			// place for files, with the only limit to keep.
			"/dev/shm":    "ro,noexec,nosuid,nodev,size=64k",
			"/dev/mqueue": "ro,noexec,nosuid,nodev,size=64k",
		},
		// A mount of this kind, unlike a bind in the older notation, is
		// refused when its source is missing rather than making one.
		Mounts: []mount.Mount{{
			Type:   mount.TypeBind,
			Source: e.sockets.engineFolder(i.id),
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
func (e *Engine) secretOptions() string {
	uid, gid, _ := strings.Cut(e.user, ":")
	return "rw,noexec,nosuid,nodev,mode=0700,size=1m,uid=" + uid + ",gid=" + gid
}

// tail returns the last lines of a container's log.
func (e *Engine) tail(ctx context.Context, ref string) (string, error) {
	stream, err := e.api.ContainerLogs(ctx, ref, container.LogsOptions{ShowStdout: true, ShowStderr: true, Tail: strconv.Itoa(tailLines)})
	if err != nil {
		return "", err
	}
	defer stream.Close()
	var text bytes.Buffer
	if _, err := stdcopy.StdCopy(&text, &text, stream); err != nil {
		return "", err
	}
	return strings.TrimSpace(text.String()), nil
}

// tailLines is how much of a log goes into an error.
const tailLines = 20

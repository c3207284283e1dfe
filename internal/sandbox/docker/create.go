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
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/sandbox"
)

const (
	// bootTime bounds how long a driver may take to accept connections. It is generous
	// because a machine that starts many at once is slow.
	bootTime = 30 * time.Second

	// bootPoll is the pause between two attempts to connect. The kernel cannot tell us
	// when a socket begins to listen.
	bootPoll = 2 * time.Millisecond

	// creationTime bounds how long the engine may take to create a container. After
	// that we give up and leave it to the next start to remove it.
	creationTime = 2 * time.Minute

	// cleanUpTime bounds the cleaning up after a failure.
	cleanUpTime = 30 * time.Second

	// socketMount is where a sandbox sees its socket folder.
	socketMount = "/run/fob"

	// tokenVariable begins the environment entry that has the sandbox's token.
	tokenVariable = "FOB_TOKEN="
	// secretMount is where a sandbox has its secrets as files, in memory.
	secretMount = "/run/secrets"

	openFiles = 1024
)

// Create implements sandbox.Engine. It builds a driver image that is missing.
func (e *Engine) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	image, err := e.images.id(ctx, spec.Lang)
	if err != nil {
		return nil, err
	}
	inst, err := e.create(ctx, spec, image)
	// Others can remove all three at any time. Each is worth one more try.
	if err != nil && errors.Is(err, sandbox.ErrNoFolder) {
		inst, err = e.create(ctx, spec, image)
	}
	if err != nil && e.images.lost(ctx, spec.Lang, err) {
		if image, err = e.images.id(ctx, spec.Lang); err == nil {
			inst, err = e.create(ctx, spec, image)
		}
	}
	if err != nil && e.network.lost(ctx, err) {
		inst, err = e.create(ctx, spec, image)
	}
	if err != nil {
		return nil, err
	}
	return inst, nil
}

// create makes one attempt. If it fails, it leaves nothing behind.
func (e *Engine) create(ctx context.Context, spec sandbox.Spec, image string) (*instance, error) {
	begin := time.Now()
	mode, err := e.network.mode(ctx, spec.Network)
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
			if errors.Is(failed, sandbox.ErrNoEngine) { // whoever asked for the sandbox gets this error
				level = zerolog.DebugLevel
			}
			e.log.WithLevel(level).Err(failed).Str("sandbox", id).Msg("a sandbox that could not be created cannot be removed yet; trying again")
			e.forget(id)
		}
		return nil, err
	}
	inst.ready.Store(true)
	// gofail: var bootDone struct{}
	return inst, nil
}

// boot brings the container up, to the driver's first accepted connection.
func (i *instance) boot(ctx context.Context, image, network string) error {
	e := i.e
	var phases [3]time.Duration
	begin := time.Now()
	if err := e.ensureSockets(); err != nil {
		return err
	}
	var err error
	if i.recipe, err = e.confines.recipe(image, i.Spec()); err != nil {
		return err
	}
	if err := e.sockets.open(i.id); err != nil {
		return err
	}
	// gofail: var createBegin struct{}
	// return errors.New("failpoint createBegin")

	// The engine finishes a creation even if nobody waits for it any more, and would do
	// so after we had cleaned up.
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), creationTime)
	defer cancel()
	name := "fob-" + e.config.Aviary + "-" + i.id // for people; we go by the ID
	config := e.confines.container(i.id, i.token, i.spec, image)
	config.Labels[labelRecipe] = i.recipe
	created, err := e.api.ContainerCreate(whole, config, e.confines.host(i.id, i.spec, network), nil, nil, name)
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
	i.host, i.network = addressOf(i.id, c)
	if err := i.awaitDriver(ctx); err != nil {
		return err
	}
	phases[2] = time.Since(begin)
	e.log.Debug().Str("sandbox", i.id).Dur("create", phases[0]).Dur("start", phases[1]-phases[0]).
		Dur("boot", phases[2]-phases[1]).Msg("sandbox created")
	return nil
}

// awaitDriver waits until the driver accepts connections or dies.
func (i *instance) awaitDriver(ctx context.Context) error {
	booting, cancel := context.WithTimeoutCause(ctx, bootTime, errors.New("the driver did not listen on its socket within "+bootTime.String()))
	defer cancel()
	poll := time.NewTicker(bootPoll)
	defer poll.Stop()
	// Deaths are reported as events. This is for when the event stream is broken.
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

// tailLines is how many lines of a log an error quotes.
const tailLines = 20

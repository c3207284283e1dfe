package docker

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"golang.org/x/sync/semaphore"

	"github.com/flockofbirds/fob/internal/sandbox"
)

// driverPort is where a driver listens on TCP.
const driverPort = 8080

const (
	codeUnknown = -1
	codeKilled  = 128 + 9
)

// oomNotice is how long after a container's death the engine may take to say
// that memory was why: the two come to it from the kernel on different ways.
const oomNotice = 500 * time.Millisecond

// instance is one container. It implements sandbox.Instance.
type instance struct {
	e       *Engine
	id      string
	created time.Time
	host    string // set before ready is, and so is network
	network string // the engine's ID of the one that it joined; empty for none
	token   string
	recipe  string // how it was made; empty when an earlier engine value did not note it

	started atomic.Bool // the container has run
	ready   atomic.Bool // Create has finished with it
	sealed  atomic.Bool // its folder is

	done     chan struct{}
	oom      chan struct{}       // closed when the engine tells of an OOM kill in it
	removing *semaphore.Weighted // a lock that a context can end the wait for

	mu      sync.Mutex
	ref     string // the container's ID; empty until the engine has said it
	spec    sandbox.Spec
	exit    sandbox.Exit // Code is valid once done is closed
	oomed   bool         // oom is closed
	settled bool         // exit is final
}

// newInstance returns an instance without a container.
func (e *Engine) newInstance(id, token string, spec sandbox.Spec, created time.Time) *instance {
	return &instance{
		e: e, id: id, spec: spec, created: created, token: token,
		done:     make(chan struct{}),
		oom:      make(chan struct{}),
		removing: semaphore.NewWeighted(1),
		exit:     sandbox.Exit{Code: codeUnknown},
	}
}

// adopt makes an instance of a container that an earlier engine value made.
func (e *Engine) adopt(id string, c container.InspectResponse) *instance {
	spec := sandbox.Spec{Lang: c.Config.Labels[labelLang], Network: networkEgress, Runtime: c.Config.Labels[labelRuntime]}
	if c.HostConfig.NetworkMode.IsNone() {
		spec.Network = networkNone
	}
	spec.Limits = sandbox.Limits{Memory: c.HostConfig.Memory, CPUs: float64(c.HostConfig.NanoCPUs) / 1e9}
	if pids := c.HostConfig.PidsLimit; pids != nil && *pids-e.confines.ownPids(spec.Runtime) != sandbox.DefaultPids {
		spec.Limits.Pids = *pids - e.confines.ownPids(spec.Runtime)
	}
	created, err := time.Parse(time.RFC3339Nano, c.Created)
	if err != nil {
		e.log.Warn().Err(err).Str("sandbox", id).Msg("the engine's time of creation cannot be read")
	}
	inst := e.newInstance(id, tokenOf(c), spec, created)
	inst.ref = c.ID
	inst.recipe = c.Config.Labels[labelRecipe]
	inst.host, inst.network = addressOf(id, c)
	inst.started.Store(true)
	inst.ready.Store(true)
	if !alive(c.State.Status) {
		inst.died(c.State.ExitCode)
	}
	return inst
}

// tokenOf returns the token that a container was made with.
func tokenOf(c container.InspectResponse) string {
	for _, entry := range c.Config.Env {
		if token, found := strings.CutPrefix(entry, tokenVariable); found {
			return token
		}
	}
	return ""
}

// addressOf returns the container's address on the egress network, and that network's
// ID. Without one the address is the host name.
func addressOf(id string, c container.InspectResponse) (host, network string) {
	for _, end := range c.NetworkSettings.Networks { // it has joined one at most
		if end != nil && end.IPAddress != "" {
			return end.IPAddress, end.NetworkID
		}
	}
	return id, ""
}

// container returns the engine's ID of the container, or "" when that is not known
// yet. A name would not do: anybody can give it to another.
func (i *instance) container() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.ref
}

// ID implements sandbox.Instance.
func (i *instance) ID() string { return i.id }

// Created implements sandbox.Instance.
func (i *instance) Created() time.Time { return i.created }

// Done implements sandbox.Instance.
func (i *instance) Done() <-chan struct{} { return i.done }

// Addr implements sandbox.Instance.
func (i *instance) Addr() (string, int) { return i.host, driverPort }

// Token implements sandbox.Instance.
func (i *instance) Token() string { return i.token }

// Spec implements sandbox.Instance. Its limits are those last set.
func (i *instance) Spec() sandbox.Spec {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.spec
}

// Dial implements sandbox.Instance. The folder is sealed before the first
// connection is handed out, so that no user's code ever runs with it open,
// even when the engine value that created it was killed before it could.
func (i *instance) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", i.e.sockets.socket(i.id))
	if err != nil {
		return nil, fmt.Errorf("connecting to sandbox %s: %w", i.id, err)
	}
	if err := i.seal(); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// seal closes the folder to the driver's user, unless that is done.
func (i *instance) seal() error {
	if i.sealed.Load() {
		return nil
	}
	if err := i.e.sockets.seal(i.id); err != nil {
		return fmt.Errorf("closing the socket folder of sandbox %s: %w", i.id, err)
	}
	i.sealed.Store(true)
	return nil
}

// Listen implements sandbox.Instance. In the sealed folder the driver's user can
// connect, and put nothing in the socket's place.
func (i *instance) Listen(name string) (net.Listener, error) {
	if err := i.seal(); err != nil {
		return nil, err
	}
	return sandbox.ListenUnix(filepath.Join(i.e.sockets.folder(i.id), name))
}

// Resize implements sandbox.Instance.
func (i *instance) Resize(ctx context.Context, limits sandbox.Limits) error {
	select {
	case <-i.done:
		return fmt.Errorf("sandbox %s is dead: its limits cannot be changed", i.id)
	default:
	}
	_, err := i.e.api.ContainerUpdate(ctx, i.container(), container.UpdateConfig{Resources: i.e.confines.resources(i.Spec().Runtime, limits)})
	if err != nil {
		err = fault("changing the limits of sandbox "+i.id, err)
		if i.e.confines.ownPids(i.Spec().Runtime) > 0 { // gVisor knows no such command
			err = fmt.Errorf("%w: %w", sandbox.ErrFixedLimits, err)
		}
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.spec.Limits = limits
	return nil
}

// Pause implements sandbox.Instance.
func (i *instance) Pause(ctx context.Context) error {
	if err := i.setPaused(ctx, true, i.e.api.ContainerPause); err != nil {
		return fault("pausing sandbox "+i.id, err)
	}
	return nil
}

// Resume implements sandbox.Instance.
func (i *instance) Resume(ctx context.Context) error {
	if err := i.setPaused(ctx, false, i.e.api.ContainerUnpause); err != nil {
		return fault("resuming sandbox "+i.id, err)
	}
	return nil
}

// setPaused pauses or resumes the living container. Engines call it an error to
// do either twice. They also hear of each as an event and note it once more, so
// that after two close together one may claim for a moment the opposite of what
// is. So it is tried again, and an engine's word is taken once it stays the same.
func (i *instance) setPaused(ctx context.Context, paused bool, set func(ctx context.Context, id string) error) error {
	const tries = 4
	for n := 1; ; n++ {
		err := set(ctx, i.container())
		if err == nil {
			return nil
		}
		c, inspectErr := i.e.api.ContainerInspect(ctx, i.container())
		switch {
		case inspectErr != nil || !c.State.Running:
			return err
		case n == tries && c.State.Paused == paused:
			return nil
		case n == tries:
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (i *instance) dead() bool {
	select {
	case <-i.done:
		return true
	default:
		return false
	}
}

// died notes the sandbox's end.
func (i *instance) died(code int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.exit.Code == codeUnknown {
		i.exit.Code = code
	}
	select {
	case <-i.done:
	default:
		close(i.done)
	}
}

// outOfMem notes that the kernel killed a process in the sandbox.
func (i *instance) outOfMem() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.oomed {
		i.oomed = true
		close(i.oom)
	}
}

// Exit implements sandbox.Instance.
func (i *instance) Exit(ctx context.Context) (sandbox.Exit, error) {
	select {
	case <-i.done:
	case <-ctx.Done():
		return sandbox.Exit{}, ctx.Err()
	}
	return i.settle(ctx)
}

// settle finds out how a dead sandbox ended, while its container is there to
// be asked.
func (i *instance) settle(ctx context.Context) (sandbox.Exit, error) {
	i.mu.Lock()
	exit, settled := i.exit, i.settled
	i.mu.Unlock()
	if settled {
		return exit, nil
	}
	c, err := i.e.api.ContainerInspect(ctx, i.container())
	switch {
	case err == nil && c.State.Running: // it was given up, not ended
	case err == nil:
		exit.Code = c.State.ExitCode
		exit.OutOfMem = c.State.OOMKilled
	case !errdefs.IsNotFound(err):
		return sandbox.Exit{}, fault("asking how sandbox "+i.id+" ended", err)
	case exit.Code == codeUnknown:
		exit.Code = codeKilled // somebody removed it; that is how
	}
	// An engine's own verdict is about the container's first process, which
	// here is the init; the killed one is its child, and the init passes the
	// status on.
	if exit.Code == codeKilled && !exit.OutOfMem {
		notice := time.NewTimer(oomNotice)
		defer notice.Stop()
		select {
		case <-i.oom:
			exit.OutOfMem = true
		case <-notice.C:
		case <-ctx.Done():
			return sandbox.Exit{}, ctx.Err()
		}
	}
	exit.OutOfMem = exit.OutOfMem && exit.Code == codeKilled
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.settled {
		i.exit, i.settled = exit, true
	}
	return i.exit, nil
}

// Remove implements sandbox.Instance.
func (i *instance) Remove(ctx context.Context) error {
	if err := i.removing.Acquire(ctx, 1); err != nil {
		return fault("removing sandbox "+i.id, err)
	}
	defer i.removing.Release(1)
	select {
	case <-i.done:
		// After this there will be no container to ask.
		if _, err := i.settle(ctx); err != nil && ctx.Err() != nil {
			return err
		}
	default:
		i.mu.Lock()
		i.exit.Code, i.exit.Removed, i.settled = codeKilled, true, true
		i.mu.Unlock()
	}
	if err := i.removeContainer(ctx); err != nil {
		return err
	}
	i.died(codeKilled)
	// gofail: var removeDone struct{}
	if err := i.e.sockets.clear(i.id); err != nil {
		return err
	}
	// gofail: var clearDone struct{}
	i.e.forget(i.id)
	return nil
}

// removeContainer removes its container. When the engine was asked for one and did
// not say what came of it, that is looked for by its labels.
func (i *instance) removeContainer(ctx context.Context) error {
	if id := i.container(); id != "" {
		return i.e.remover.remove(ctx, id)
	}
	mine := ours(i.e.config.Aviary)
	mine.Add("label", labelSandbox+"="+i.id)
	found, err := i.e.api.ContainerList(ctx, container.ListOptions{All: true, Filters: mine})
	if err != nil {
		return fault("looking for what was created", err)
	}
	for _, c := range found {
		if err := i.e.remover.remove(ctx, c.ID); err != nil {
			return err
		}
	}
	return nil
}

// lastWords returns the end of the sandbox's log on one line, for messages.
func (i *instance) lastWords(ctx context.Context) string {
	text, err := i.e.tail(ctx, i.container())
	if err != nil {
		return "its log cannot be read: " + err.Error()
	}
	if text == "" {
		return "its log is empty"
	}
	return "the end of its log: " + strings.ReplaceAll(text, "\n", " | ")
}

// Outdated implements sandbox.Instance.
func (i *instance) Outdated(ctx context.Context) (bool, error) {
	spec := i.Spec()
	image, err := i.e.images.id(ctx, spec.Lang)
	if err != nil {
		return false, err
	}
	today, err := i.e.confines.recipe(image, spec)
	if err != nil || i.recipe != today || spec.Network == networkNone {
		return i.recipe != today, err
	}
	network, err := i.e.network.ensure(ctx)
	return i.network != network, err
}

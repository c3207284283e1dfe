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

// driverPort is the TCP port on which drivers listen.
const driverPort = 8080

const (
	codeUnknown = -1
	codeKilled  = 128 + 9
)

// oomNotice is how long after a container's death the engine may take to report that it
// ran out of memory. The two reports reach it on different ways.
const oomNotice = 500 * time.Millisecond

// instance is one container. It implements sandbox.Instance.
type instance struct {
	e       *Engine
	id      string
	created time.Time
	host    string // set before ready, like network
	network string // the engine's ID of the network that it joined; empty if none
	token   string
	recipe  string // how it was made; empty if an earlier Engine did not note it

	started atomic.Bool // the container has run
	ready   atomic.Bool // Create is done with it
	sealed  atomic.Bool // its folder is sealed

	done     chan struct{}
	oom      chan struct{}       // closed when the engine reports an OOM kill in it
	removing *semaphore.Weighted // a lock; ctx can end the wait for it

	mu      sync.Mutex
	ref     string // the container's ID; empty until the engine has told it
	spec    sandbox.Spec
	exit    sandbox.Exit // Code is valid once done is closed
	oomed   bool         // oom is closed
	settled bool         // exit is final
}

// newInstance returns an instance that has no container yet.
func (e *Engine) newInstance(id, token string, spec sandbox.Spec, created time.Time) *instance {
	return &instance{
		e: e, id: id, spec: spec, created: created, token: token,
		done:     make(chan struct{}),
		oom:      make(chan struct{}),
		removing: semaphore.NewWeighted(1),
		exit:     sandbox.Exit{Code: codeUnknown},
	}
}

// adopt returns an instance for a container that an earlier Engine made.
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

// tokenOf returns the token in a container's environment.
func tokenOf(c container.InspectResponse) string {
	for _, entry := range c.Config.Env {
		if token, found := strings.CutPrefix(entry, tokenVariable); found {
			return token
		}
	}
	return ""
}

// addressOf returns the container's address on the egress network and that network's
// ID. Without a network the address is the host name.
func addressOf(id string, c container.InspectResponse) (host, network string) {
	for _, end := range c.NetworkSettings.Networks { // there is at most one
		if end != nil && end.IPAddress != "" {
			return end.IPAddress, end.NetworkID
		}
	}
	return id, ""
}

// container returns the engine's ID of the container, or "" if it is not known yet. A
// name would not do, because anybody can give it to another container.
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

// Spec implements sandbox.Instance. The limits are those that were set last.
func (i *instance) Spec() sandbox.Spec {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.spec
}

// Dial implements sandbox.Instance. It seals the folder before it returns the first
// connection, so that no user's code ever runs while the folder is open, even if the
// Engine that created it was killed before it could seal it.
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

// seal closes the folder to the driver's user, once.
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
// connect to the socket, but not replace it.
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
		if i.e.confines.ownPids(i.Spec().Runtime) > 0 { // gVisor does not support the command
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

// setPaused pauses or resumes the living container. Engines report an error if it is in
// that state already. They also learn of each change as an event and note it once more,
// so after two changes close together an engine may claim the wrong state for a moment.
// Therefore setPaused tries again, and believes an engine that keeps saying the same.
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

// died records the sandbox's end.
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

// outOfMem records that the kernel killed a process in the sandbox.
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

// settle finds out how a dead sandbox ended, as long as its container can be asked.
func (i *instance) settle(ctx context.Context) (sandbox.Exit, error) {
	i.mu.Lock()
	exit, settled := i.exit, i.settled
	i.mu.Unlock()
	if settled {
		return exit, nil
	}
	c, err := i.e.api.ContainerInspect(ctx, i.container())
	switch {
	case err == nil && c.State.Running: // it was given up for dead, but runs
	case err == nil:
		exit.Code = c.State.ExitCode
		exit.OutOfMem = c.State.OOMKilled
	case !errdefs.IsNotFound(err):
		return sandbox.Exit{}, fault("asking how sandbox "+i.id+" ended", err)
	case exit.Code == codeUnknown:
		exit.Code = codeKilled // somebody removed the container, which kills it
	}
	// The engine's own verdict concerns the container's first process, the init. The
	// killed process is the init's child, whose status the init passes on.
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
		// Afterwards there is no container to ask.
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

// removeContainer removes the container. If the engine was asked for one and did not
// report its ID, it looks for it by its labels.
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

// lastWords returns the end of the sandbox's log as one line, for messages.
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

// Package docker makes sandboxes that are Docker containers.
package docker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/flockofbirds/fob/internal/sandbox"
)

// The labels on what the engine makes. Only what has exactly our aviary's
// label is ever touched.
const (
	labelAviary  = "fob.aviary"
	labelSandbox = "fob.sandbox"
	labelLang    = "fob.lang"
	labelRuntime = "fob.runtime" // that was asked for
	labelRecipe  = "fob.recipe"  // how it was made
)

// Config says how to make sandboxes.
type Config struct {
	// Aviary tells our sandboxes from others': 1 to 24 letters, digits, _
	// and -. It is part of the names of containers, networks and folders.
	Aviary string

	// SocketDir holds one folder per sandbox with its driver's socket. It is
	// made if missing. A Unix socket's path has at most 107 bytes, so this
	// has to be short.
	SocketDir string

	// BaseImage is what driver images are built from, such as
	// debian:trixie-slim.
	BaseImage string

	// Runtimes are the OCI runtimes that a Spec may name, such as runsc; New
	// makes sure that the engine knows them.
	Runtimes []string

	// Owner is the identity of the data folder that the aviary is of, and Place its
	// name for people. While an engine value with one Owner is open, New fails with
	// another; without an Owner there is no such check.
	Owner, Place string

	Log zerolog.Logger
}

// Engine makes sandboxes on one Docker engine. It implements sandbox.Engine.
type Engine struct {
	config  Config
	log     zerolog.Logger
	api     *client.Client
	sockets *socketDir
	machine sandbox.Machine // that runs the containers
	inside  bool            // we are one of the engine's containers

	claim    *claim // nil when there is none to keep
	stop     context.CancelFunc
	watching sync.WaitGroup
	images   *images
	network  *network
	confines *confines
	remover  *remover

	mu    sync.Mutex
	known map[string]*instance // by sandbox ID, those being created included
}

// New connects to the Docker engine that the environment names (DOCKER_HOST
// and so on, or the local one). When that cannot be reached the error wraps
// sandbox.ErrNoEngine and says what to do.
func New(ctx context.Context, config Config) (*Engine, error) {
	if err := sandbox.CheckAviary(config.Aviary); err != nil {
		return nil, err
	}
	sockets, err := newSocketDir(config.SocketDir, config.Aviary)
	if err != nil {
		return nil, err
	}
	api, err := newClient()
	if err != nil {
		return nil, err
	}
	e := &Engine{
		config:  config,
		log:     config.Log,
		api:     api,
		sockets: sockets,
		network: newNetwork(api, config.Log, config.Aviary),
		remover: newRemover(api, config.Log),
		known:   map[string]*instance{},
	}
	err = e.greet(ctx)
	if err == nil && config.Owner != "" {
		err = e.own(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, api.Close())
	}
	watchCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	e.stop = stop
	e.watching.Go(func() { e.watch(watchCtx) })
	if e.claim != nil {
		e.watching.Go(func() { e.claim.keep(watchCtx) })
	}
	return e, nil
}

// own takes the aviary for our data folder. A proxy before the engine may refuse
// that, which costs no more than the check.
func (e *Engine) own(ctx context.Context) error {
	c := &claim{api: e.api, log: e.log, aviary: e.config.Aviary, owner: e.config.Owner, place: e.config.Place, renewal: renewal, time: claimTime}
	err := c.acquire(ctx)
	switch {
	case errdefs.IsPermissionDenied(err):
		e.log.Warn().Err(err).Msg("the aviary cannot be marked as this data folder's, so that a copy of it in use would not be noticed: let through the endpoints for volumes that SECURITY.md lists")
		return nil
	case err != nil:
		return fault("marking the aviary", err)
	}
	e.claim = c
	return nil
}

// greet finds out about the engine what the rest needs to know.
func (e *Engine) greet(ctx context.Context) error {
	info, err := e.api.Info(ctx)
	if err != nil {
		return unreachable(e.api.DaemonHost(), err)
	}
	if err := e.checkKind(ctx); err != nil {
		return err
	}
	for _, runtime := range e.config.Runtimes {
		if _, known := info.Runtimes[runtime]; !known {
			return fmt.Errorf("the Docker engine has no runtime %q: install it and list it in /etc/docker/daemon.json, or take it out of FOB_RUNTIME and FOB_RUNTIMES", runtime)
		}
	}
	e.machine = sandbox.Machine{CPUs: info.NCPU, Memory: info.MemTotal}
	e.confines = &confines{aviary: e.config.Aviary, user: driverUser(os.Geteuid()), runtime: info.DefaultRuntime, cpus: info.NCPU, sockets: e.sockets}
	if e.images, err = newImages(e.api, e.log, e.config.BaseImage); err != nil {
		return err
	}
	if err := e.meet(ctx); err != nil {
		return err
	}
	e.inside, err = e.sockets.locate(ctx, e.api, e.log, info.Name)
	return err
}

// meet tells the log of other aviaries on the engine: whoever wonders at sandboxes
// that this dispatcher does not know, or whose data folder is another than before,
// finds them there.
func (e *Engine) meet(ctx context.Context) error {
	all, err := e.api.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", labelAviary))})
	if err != nil {
		return fault("listing sandboxes", err)
	}
	others := map[string]int{}
	for _, c := range all {
		if aviary := c.Labels[labelAviary]; aviary != e.config.Aviary {
			others[aviary]++
		}
	}
	if len(others) > 0 {
		e.log.Info().Interface("sandboxes", others).Msg("there are other aviaries on this engine, which are left alone")
	}
	return nil
}

// driverUser is who runs a driver: nobody that exists, and never ourselves,
// because the owner of the socket folders could change their mode.
func driverUser(own int) string {
	if own == 65532 {
		return "65533:65533"
	}
	return "65532:65532"
}

// unreachable explains why there is no talking to the engine.
func unreachable(host string, err error) error {
	advice := "start Docker, or set DOCKER_HOST to where it is"
	switch {
	case errors.Is(err, fs.ErrPermission):
		advice = "add this user to the group that owns the socket (usually: usermod -aG docker USER, then log in again), or run as root"
	case !client.IsErrConnectionFailed(err):
		return fmt.Errorf("asking the Docker engine at %s about itself: %w", host, err)
	}
	return fmt.Errorf("%w: Docker at %s: %w; %s", sandbox.ErrNoEngine, host, err, advice)
}

// fault gives an error of the Docker client a subject, and marks what means
// that the engine is not there.
func fault(doing string, err error) error {
	if client.IsErrConnectionFailed(err) {
		return fmt.Errorf("%s: %w: %w", doing, sandbox.ErrNoEngine, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// Name returns "docker".
func (e *Engine) Name() string { return "docker" }

// Machine implements sandbox.Engine. The engine knows the machine. What limits us
// limits the engine as well when the two run side by side, perhaps in one
// container, but not when we are in one of its own.
func (e *Engine) Machine() (sandbox.Machine, error) {
	machine := e.machine
	if !e.inside {
		own, err := sandbox.ThisMachine()
		if err != nil {
			return machine, err
		}
		machine.Memory = min(machine.Memory, own.Memory)
	}
	return machine, nil
}

// Close ends the watching of the engine's events and leaves all sandboxes
// running.
func (e *Engine) Close() error {
	e.stop()
	e.watching.Wait()
	var err error
	if e.claim != nil {
		err = e.claim.release()
	}
	return errors.Join(err, e.api.Close())
}

// ours selects what belongs to an aviary.
func ours(aviary string) filters.Args {
	return filters.NewArgs(filters.Arg("label", labelAviary+"="+aviary))
}

// List implements sandbox.Engine. It also clears the socket folders of
// sandboxes that are no more.
func (e *Engine) List(ctx context.Context) ([]sandbox.Instance, error) {
	if err := e.ensureSockets(); err != nil {
		return nil, err
	}
	folders, err := e.sockets.list()
	if err != nil {
		return nil, err
	}
	running, err := e.reconcile(ctx)
	if err != nil {
		return nil, err
	}
	listed := make(map[string]bool, len(running))
	instances := make([]*instance, len(running))
	var looking errgroup.Group
	looking.SetLimit(8)
	for n, c := range running {
		id := c.Labels[labelSandbox]
		if !sandbox.IsID(id) || e.isCopy(c, running) { // in our aviary, but no sandbox of ours
			looking.Go(func() error { e.remover.evict(ctx, c); return nil })
			continue
		}
		listed[id] = true
		looking.Go(func() (err error) {
			instances[n], err = e.lookUp(ctx, id, c.ID)
			return err
		})
	}
	if err := looking.Wait(); err != nil {
		return nil, err
	}
	var found []sandbox.Instance
	for _, inst := range instances {
		if inst != nil {
			found = append(found, inst)
		}
	}
	for _, id := range folders {
		e.mu.Lock()
		_, inUse := e.known[id]
		e.mu.Unlock()
		if inUse || listed[id] {
			continue
		}
		e.remover.told(id, e.sockets.clear(id)).Str("sandbox", id).Msg("the socket folder of a removed sandbox cannot be cleared: it is tried again and again")
	}
	return found, nil
}

// isCopy reports whether a container only has the labels of a sandbox that is another
// one, as what is run from an image of it has.
func (e *Engine) isCopy(c container.Summary, all []container.Summary) bool {
	id := c.Labels[labelSandbox]
	if inst, known := e.get(id); known {
		ours := inst.container()
		return ours != "" && ours != c.ID
	}
	return !e.hasFolder(c) && slices.ContainsFunc(all, func(other container.Summary) bool {
		return other.ID != c.ID && other.Labels[labelSandbox] == id && e.hasFolder(other)
	})
}

// hasFolder reports whether a container has the socket folder of the sandbox that it is
// labelled to be.
func (e *Engine) hasFolder(c container.Summary) bool {
	return slices.ContainsFunc(c.Mounts, func(m container.MountPoint) bool {
		return m.Destination == socketMount && filepath.Base(m.Source) == e.sockets.prefix+c.Labels[labelSandbox]
	})
}

// lookUp returns the instance that a listed container is, adopting it when it
// is not known, or nil when it is still being created or just went.
func (e *Engine) lookUp(ctx context.Context, id, containerID string) (*instance, error) {
	if inst, known := e.get(id); known {
		if !inst.ready.Load() {
			return nil, nil
		}
		return inst, nil
	}
	inspect, err := e.api.ContainerInspect(ctx, containerID)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fault("looking at a sandbox found running", err)
	}
	inst := e.adopt(id, inspect)
	if inspect.State.Paused {
		if err := inst.Resume(ctx); err != nil { // perhaps it has just died
			e.log.Warn().Err(err).Str("sandbox", id).Msg("a sandbox that was found paused cannot be resumed")
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if other, known := e.known[id]; known { // by another List, meanwhile
		return other, nil
	}
	e.known[id] = inst
	return inst, nil
}

func (e *Engine) get(id string) (*instance, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	inst, known := e.known[id]
	return inst, known
}

// reconcile lists the aviary's containers and marks those of our sandboxes as
// dead that do not run any more.
func (e *Engine) reconcile(ctx context.Context) ([]container.Summary, error) {
	// Only what was running before the list was made must be in it.
	expected := map[string]*instance{}
	e.mu.Lock()
	for id, inst := range e.known {
		if inst.started.Load() {
			expected[id] = inst
		}
	}
	e.mu.Unlock()
	containers, err := e.api.ContainerList(ctx, container.ListOptions{All: true, Filters: ours(e.config.Aviary)})
	if err != nil {
		return nil, fault("listing sandboxes", err)
	}
	for _, c := range containers {
		id := c.Labels[labelSandbox]
		if inst := expected[id]; inst != nil && inst.container() == c.ID && alive(c.State) {
			delete(expected, id)
		}
	}
	for _, inst := range expected {
		inst.died(codeUnknown)
	}
	return containers, nil
}

func alive(state container.ContainerState) bool {
	return state == container.StateRunning || state == container.StatePaused
}

// forget drops a removed sandbox.
func (e *Engine) forget(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.known, id)
}

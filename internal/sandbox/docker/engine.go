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

// The labels on what the engine makes. We touch only what has exactly our aviary's
// label.
const (
	labelAviary  = "fob.aviary"
	labelSandbox = "fob.sandbox"
	labelLang    = "fob.lang"
	labelRuntime = "fob.runtime" // that was asked for
	labelRecipe  = "fob.recipe"  // how it was made
)

// Config says how to make sandboxes.
type Config struct {
	// Aviary distinguishes our sandboxes from others': 1 to 24 letters, digits, _ and
	// -. It is part of the names of containers, networks and folders.
	Aviary string

	// SocketDir holds a folder for each sandbox, with its driver's socket. New creates
	// it if it is missing. It has to be short, because a Unix socket's path has at most
	// 107 bytes.
	SocketDir string

	// BaseImage is the image on which driver images are built, for example
	// debian:trixie-slim.
	BaseImage string

	// Runtimes are the OCI runtimes that a Spec may name. New makes sure that the
	// engine knows them.
	Runtimes []string

	// Owner identifies the data folder to which the aviary belongs, and Place is its
	// name for people. While an Engine with one Owner is open, New fails for another
	// Owner. If Owner is empty, nothing is checked.
	Owner, Place string

	Log zerolog.Logger
}

// Engine makes sandboxes on one Docker engine. It implements sandbox.Engine.
type Engine struct {
	config  Config
	log     zerolog.Logger
	api     *client.Client
	sockets *socketDir
	machine sandbox.Machine // the machine that runs the containers
	inside  bool            // we run in one of the engine's containers

	claim    *claim // nil without an Owner
	stop     context.CancelFunc
	watching sync.WaitGroup
	images   *images
	network  *network
	confines *confines
	remover  *remover

	mu    sync.Mutex
	known map[string]*instance // by sandbox ID, including those being created
}

// New connects to the Docker engine that the environment names (DOCKER_HOST and
// others), or to the local one. If the engine cannot be reached, the error wraps
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

// own claims the aviary for our data folder. A proxy in front of the engine may refuse
// that; then only the check is lost.
func (e *Engine) own(ctx context.Context) error {
	c := &claim{api: e.api, log: e.log, aviary: e.config.Aviary, owner: e.config.Owner, place: e.config.Place, renewal: renewal, time: claimTime}
	err := c.acquire(ctx)
	switch {
	case errdefs.IsPermissionDenied(err):
		e.log.Warn().Err(err).Msg("the aviary cannot be marked as this data folder's, so a copy of the folder that is in use would go unnoticed: allow the endpoints for volumes that SECURITY.md lists")
		return nil
	case err != nil:
		return fault("marking the aviary", err)
	}
	e.claim = c
	return nil
}

// greet asks the engine for what we need to know about it.
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

// meet logs the other aviaries on the engine. The log line helps whoever wonders about
// sandboxes that this dispatcher does not know, or has switched to another data folder.
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

// driverUser returns the user and group as which drivers run: one that does not exist,
// and never our own, because the owner of the socket folders could change their mode.
func driverUser(own int) string {
	if own == 65532 {
		return "65533:65533"
	}
	return "65532:65532"
}

// unreachable explains why the engine cannot be reached.
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

// fault adds what was being done to an error of the Docker client, and wraps
// sandbox.ErrNoEngine if the engine is away.
func fault(doing string, err error) error {
	if client.IsErrConnectionFailed(err) {
		return fmt.Errorf("%s: %w: %w", doing, sandbox.ErrNoEngine, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// Name returns "docker".
func (e *Engine) Name() string { return "docker" }

// Machine implements sandbox.Engine. The engine reports its machine. If it runs beside
// us, perhaps in the same container, our own limits are its limits, too; if we run in
// one of its containers, they are not.
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

// Close stops watching the engine's events and leaves all sandboxes running.
func (e *Engine) Close() error {
	e.stop()
	e.watching.Wait()
	var err error
	if e.claim != nil {
		err = e.claim.release()
	}
	return errors.Join(err, e.api.Close())
}

// ours returns the filter that selects what belongs to an aviary.
func ours(aviary string) filters.Args {
	return filters.NewArgs(filters.Arg("label", labelAviary+"="+aviary))
}

// List implements sandbox.Engine. It also removes the socket folders of sandboxes that
// no longer exist.
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
		if !sandbox.IsID(id) || e.isCopy(c, running) { // it has our label, but is not a sandbox of ours
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
		e.remover.told(id, e.sockets.clear(id)).Str("sandbox", id).Msg("the socket folder of a removed sandbox cannot be cleared; trying again")
	}
	return found, nil
}

// isCopy reports whether a container has a sandbox's labels only because it was made
// from an image of that sandbox.
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

// hasFolder reports whether a container has the socket folder of the sandbox that its
// labels name.
func (e *Engine) hasFolder(c container.Summary) bool {
	return slices.ContainsFunc(c.Mounts, func(m container.MountPoint) bool {
		return m.Destination == socketMount && filepath.Base(m.Source) == e.sockets.prefix+c.Labels[labelSandbox]
	})
}

// lookUp returns the instance of a listed container. It adopts a container that it does
// not know. It returns nil if the container is still being created or has just gone.
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
		if err := inst.Resume(ctx); err != nil { // it may just have died
			e.log.Warn().Err(err).Str("sandbox", id).Msg("a sandbox that was found paused cannot be resumed")
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if other, known := e.known[id]; known { // another List was faster
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

// reconcile lists the aviary's containers, and marks our sandboxes as dead whose
// containers no longer run.
func (e *Engine) reconcile(ctx context.Context) ([]container.Summary, error) {
	// Only containers that ran before the listing have to be in it.
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

// Package process makes sandboxes that are plain processes of this machine: the same
// drivers, without any isolation. It is for tests and trials.
//
// Memory and processor limits are not enforced. A function may do whatever the
// dispatcher's user may. A process that it starts in a session of its own outlives it.
package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/sandbox"
)

// Config says where sandboxes live.
type Config struct {
	// Dir holds a folder for each sandbox, with its driver's socket and its temporary
	// files, and the unpacked drivers. New creates it if it is missing. It has to be
	// short, because a Unix socket's path has at most 107 bytes (103 on macOS).
	Dir string

	// Aviary distinguishes our sandboxes from others' in the same Dir: 1 to 24 letters,
	// digits, _ and -.
	Aviary string

	Log zerolog.Logger
}

// Engine makes sandboxes that are processes. It implements sandbox.Engine.
type Engine struct {
	dir    string // absolute
	prefix string // with which our sandboxes' folders begin: AVIARY-
	log    zerolog.Logger

	stop     context.CancelFunc
	watching sync.WaitGroup

	unpacking sync.Mutex

	mu    sync.Mutex
	known map[string]*instance // by ID, including those being created
}

const (
	// maxSocketPath is the longest path that sockaddr_un holds on every system, without
	// the NUL.
	maxSocketPath = 103

	// checkEvery is how often the sandboxes are checked for life. For those that this
	// Engine started, a signal also tells their end.
	checkEvery = 100 * time.Millisecond
)

// New returns an engine for the sandboxes of an aviary in a directory.
func New(config Config) (*Engine, error) {
	if err := sandbox.CheckAviary(config.Aviary); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(config.Dir)
	if err != nil {
		return nil, err
	}
	e := &Engine{dir: dir, prefix: config.Aviary + "-", log: config.Log, known: map[string]*instance{}}
	if n := len(e.path("0123456789abcdef", sandbox.SocketName)); n > maxSocketPath {
		return nil, fmt.Errorf("the sockets in %s would have paths of %d bytes, and a Unix socket's has at most %d: set FOB_SOCKETS to a folder with a path that is %d bytes shorter",
			dir, n, maxSocketPath, n-maxSocketPath)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the sandboxes' folder: %w; set FOB_SOCKETS to one that can be made", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("closing the sandboxes' folder to others: %w; set FOB_SOCKETS to one of your own", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	e.stop = stop
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	e.watching.Go(func() {
		defer signal.Stop(ended)
		e.watch(ctx, ended)
	})
	e.log.Warn().Msg("sandboxes are plain processes: functions are not isolated from this machine or from one another")
	return e, nil
}

// Name returns "process".
func (e *Engine) Name() string { return "process" }

// Machine implements sandbox.Engine.
func (e *Engine) Machine() (sandbox.Machine, error) { return sandbox.ThisMachine() }

// Prepare implements sandbox.Engine. It looks for the interpreters and unpacks the
// drivers.
func (e *Engine) Prepare(ctx context.Context, langs ...string) error {
	for _, lang := range langs {
		if _, err := e.command(lang); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Check implements sandbox.Engine. It checks that the folder for the sandboxes is
// there.
func (e *Engine) Check(context.Context) error {
	if _, err := os.Stat(e.dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	e.log.Warn().Str("folder", e.dir).Msg("somebody removed the sandboxes' folder: it is made again")
	if err := os.MkdirAll(e.dir, 0o700); err != nil {
		return fmt.Errorf("%w: making it: %w", sandbox.ErrNoFolder, err)
	}
	return nil
}

// watch notices deaths until ctx ends.
func (e *Engine) watch(ctx context.Context, ended <-chan os.Signal) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ended:
		case <-tick.C:
		}
		for _, inst := range e.all() {
			inst.check()
		}
	}
}

func (e *Engine) all() []*instance {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]*instance, 0, len(e.known))
	for _, inst := range e.known {
		all = append(all, inst)
	}
	return all
}

func (e *Engine) get(id string) (*instance, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	inst, known := e.known[id]
	return inst, known
}

// add makes an instance known and returns it, or returns the instance that has its ID
// already.
func (e *Engine) add(inst *instance) *instance {
	e.mu.Lock()
	defer e.mu.Unlock()
	if other, known := e.known[inst.id]; known {
		return other
	}
	e.known[inst.id] = inst
	return inst
}

func (e *Engine) forget(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.known, id)
}

// path returns the path of a file in a sandbox's folder.
func (e *Engine) path(id string, name ...string) string {
	return filepath.Join(append([]string{e.dir, e.prefix + id}, name...)...)
}

// folders returns the IDs of the aviary's sandboxes that have a folder.
func (e *Engine) folders() ([]string, error) {
	entries, err := os.ReadDir(e.dir)
	if errors.Is(err, fs.ErrNotExist) { // then there are no sandboxes
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing sandboxes: %w", err)
	}
	var ids []string
	for _, entry := range entries {
		if id, ours := strings.CutPrefix(entry.Name(), e.prefix); ours && sandbox.IsID(id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// List implements sandbox.Engine. It removes the folders of dead sandboxes that an
// earlier Engine started.
func (e *Engine) List(ctx context.Context) ([]sandbox.Instance, error) {
	ids, err := e.folders()
	if err != nil {
		return nil, err
	}
	var found []sandbox.Instance
	for _, id := range ids {
		inst, known := e.get(id)
		if !known {
			if inst, err = e.adopt(ctx, id); err != nil {
				return nil, err
			}
		}
		if inst != nil && inst.ready.Load() {
			inst.check()
			found = append(found, inst)
		}
	}
	return found, nil
}

// Purge implements sandbox.Engine.
func (e *Engine) Purge(ctx context.Context) error {
	ids, err := e.folders()
	if err != nil {
		return err
	}
	var all []error
	for _, id := range ids {
		inst, known := e.get(id)
		if !known {
			inst, err = e.adopt(ctx, id)
			all = append(all, err)
		}
		if inst != nil {
			all = append(all, inst.Remove(ctx))
		}
	}
	return errors.Join(all...)
}

// Close implements sandbox.Engine. What sandboxes print after it is lost.
func (e *Engine) Close() error {
	e.stop()
	e.watching.Wait()
	for _, inst := range e.all() {
		if inst.log != nil {
			inst.log.stop()
		}
	}
	return nil
}

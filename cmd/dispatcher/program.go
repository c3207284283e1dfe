package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/drivers"
	"github.com/flockofbirds/fob/internal/audit"
	"github.com/flockofbirds/fob/internal/auth"
	"github.com/flockofbirds/fob/internal/buffer"
	"github.com/flockofbirds/fob/internal/catalogue"
	"github.com/flockofbirds/fob/internal/dispatch"
	"github.com/flockofbirds/fob/internal/egress"
	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/front"
	"github.com/flockofbirds/fob/internal/httpapi"
	"github.com/flockofbirds/fob/internal/sandbox"
	"github.com/flockofbirds/fob/internal/sandbox/docker"
	"github.com/flockofbirds/fob/internal/sandbox/process"
	"github.com/flockofbirds/fob/internal/secret"
	"github.com/flockofbirds/fob/internal/store"
	"github.com/flockofbirds/fob/internal/telemetry"
)

// release is the version of this program.
const release = "0.1.0"

// commit is what it was built from; the linker sets it (-X main.commit=…).
var commit = "unknown"

// prepareAgain is how long to wait after driver images could not be built.
const prepareAgain = 10 * time.Second

// engineAgain is how long to wait for an engine that is not there before the next look.
const engineAgain = time.Second

// controlTimeout is how long what the control socket is asked may take to
// finish, once all else is closed.
const controlTimeout = time.Second

// Program is the dispatcher, wired up. Tests boot it as main does.
type Program struct {
	cfg      Config
	log      zerolog.Logger
	metrics  *telemetry.Metrics
	listener net.Listener
	api      *httpapi.API
	server   *front.Server
	buffers  *buffer.Budget
	heap     *heapLimit

	control *http.Server // of the control socket

	// Set once Run has opened them.
	store      faas.Store
	audit      *audit.Log
	engine     sandbox.Engine
	catalogue  *catalogue.Catalogue
	dispatcher *dispatch.Dispatcher
}

// New checks the settings and listens, so that a wrong one or a busy port is
// known at once. Run must be called.
func New(cfg Config, log zerolog.Logger) (*Program, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := cfg.ownPlaces(); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", cfg.Addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is in use, perhaps by another dispatcher: stop that, or choose another address with FOB_ADDR", cfg.Addr)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on FOB_ADDR=%s: %w", cfg.Addr, err)
	}
	proxies, err := cfg.trustedProxies()
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	p := &Program{cfg: cfg, log: log, metrics: telemetry.NewMetrics(), listener: listener}
	held, err := cfg.buffers(sandbox.ThisMachine)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	p.buffers = buffer.New(held)
	p.heap = newHeapLimit(held)
	p.buffers.Tell(p.heap.leave)
	p.metrics.Holds(p.buffers.Total(), p.buffers.Used)
	p.api = httpapi.New(httpapi.Config{
		Log:     log,
		Metrics: p.metrics.Handler(),
		Build:   build(cfg.Engine),
		MaxBody: int64(cfg.MaxBody),
		Buffers: p.buffers,
		Port:    listener.Addr().(*net.TCPAddr).Port,
		Hosts:   cfg.Hosts,

		TrustedProxies: proxies,

		RateToken:   cfg.RateToken,
		RateAddress: cfg.RateAddress,
	})
	if cfg.Standby {
		p.onStandby(nil)
	}
	files, err := maxFiles()
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	connections := min(cfg.MaxConnections, files/2)
	if connections < cfg.MaxConnections {
		log.Warn().Int("connections", connections).Int("files", files).
			Msg("there may be fewer connections than FOB_MAX_CONNECTIONS says, half as many as files may be open: raise that limit (ulimit -n)")
	}
	if most := int(held / 4 * 3 / buffer.Connection); most < connections {
		connections = most
		log.Info().Int("connections", connections).Stringer("buffer", faas.Bytes(held)).
			Msg("there may be fewer connections than FOB_MAX_CONNECTIONS says, as many as take three quarters of FOB_MAX_BUFFER")
	}
	p.server = newServer(p.api, connections)
	p.server.Buffers = p.buffers
	p.server.HTTP.ErrorLog = telemetry.Standard(log)
	p.control = &http.Server{
		Handler: p.api.Local(), ErrorLog: p.server.HTTP.ErrorLog, ReadHeaderTimeout: p.server.HTTP.ReadHeaderTimeout,
		MaxHeaderBytes: p.server.HTTP.MaxHeaderBytes, DisableGeneralOptionsHandler: true,
	}
	return p, nil
}

// newServer returns the server in front of the API. What no client may take its
// time for has its limit here, but for bodies and answers, which have theirs in
// the API.
func newServer(api *httpapi.API, maxConns int) *front.Server {
	return &front.Server{
		Prefix:   httpapi.CallPrefix,
		Refuse:   api.Malformed,
		MaxConns: maxConns,
		Full:     api.Refusal(faas.Errorf(faas.CodeNoCapacity, "there are %d connections, and FOB_MAX_CONNECTIONS (or FOB_MAX_BUFFER, three quarters of which they may take) allows no more", maxConns).After(time.Second)),
		HTTP: &http.Server{
			Handler:           api,
			ReadHeaderTimeout: 10 * time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    128 << 10,
			// Else OPTIONS * would be answered past the API, and its limits.
			DisableGeneralOptionsHandler: true,
		},
	}
}

// exposed reports whether others than those on this machine may reach the
// program, as far as can be told from here.
func (p *Program) exposed() bool {
	return !p.cfg.Anonymous && !p.listener.Addr().(*net.TCPAddr).IP.IsLoopback()
}

// URL is where the program answers, on this machine.
func (p *Program) URL() string {
	addr := p.listener.Addr().(*net.TCPAddr)
	host := addr.IP.String()
	if addr.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(addr.Port))
}

// Run serves until ctx ends, then drains and closes everything. It calls ready
// once, when functions can be registered and called.
func (p *Program) Run(ctx context.Context, ready func()) error {
	served := make(chan error, 1)
	go func() { served <- p.server.Serve(p.listener) }()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stopWatch := make(chan struct{})
	go func() {
		select {
		case err := <-served:
			cancel(fmt.Errorf("serving HTTP: %w", err))
		case <-stopWatch:
		}
	}()

	err := p.open(ctx)
	if err == nil {
		p.prepare(ctx, ready)
		<-ctx.Done()
	}
	close(stopWatch)
	interrupted := errors.Is(context.Cause(ctx), context.Canceled)
	p.close()
	switch {
	case err != nil && !(interrupted && errors.Is(err, context.Canceled)):
		return err
	case ctx.Err() != nil && !interrupted:
		return context.Cause(ctx)
	}
	return nil
}

// open opens the store, waiting for its lock on standby, then the engine, and
// takes up the functions and sandboxes that are there.
func (p *Program) open(ctx context.Context) error {
	stopWatching := func() {}
	if p.cfg.Standby {
		p.log.Info().Str("data", p.cfg.Data).Msg("waiting for the data folder's lock, or for the dispatcher that has it to end")
		stopWatching = p.watchActive(ctx)
	}
	// As soon as the lock is had, for to a standby it is the sign that we live,
	// and to read a large database takes a while.
	var controlErr error
	db, err := store.Open(ctx, filepath.Join(p.cfg.Data, databaseName), p.cfg.Standby, func() { controlErr = p.openControl() })
	stopWatching()
	if err != nil {
		return err
	}
	p.store = db
	if controlErr != nil {
		return p.advise(controlErr)
	}
	if m := db.Migrated(); m.From != 0 {
		p.log.Warn().Int("from", m.From).Int("to", m.To).Str("backup", m.Backup).
			Msg("the database was migrated to a newer schema, which older dispatchers do not read; what it was is in the backup")
	}
	tokens, err := auth.Open(ctx, db, p.exposed())
	if err != nil {
		return err
	}
	if p.exposed() && !tokens.Required() {
		return fmt.Errorf("FOB_ADDR=%s can be reached by others, and they could run code here, for there is no token yet: make one with\n\n"+
			"  dispatcher token create admin --grant admin --data %q\n\n"+
			"or, if the network itself keeps others out, set FOB_ANONYMOUS=true", p.cfg.Addr, p.cfg.Data)
	}
	if p.audit, err = audit.Open(p.cfg.Data, audit.MaxSize, p.auditFailed); err != nil {
		return p.advise(err)
	}
	aviary := p.cfg.Aviary
	if aviary == "" {
		if aviary, err = db.Aviary(ctx); err != nil {
			return err
		}
	}
	p.log.Info().Str("data", p.cfg.Data).Str("aviary", aviary).Str("engine", p.cfg.Engine).Msg("starting")
	engine, err := p.newEngine(ctx, aviary)
	if err != nil {
		return err
	}
	p.engine = dispatch.Meter(engine, p.metrics)
	maxSandboxes, maxMemory, err := p.cfg.caps(engine.Machine)
	if err != nil {
		return err
	}
	p.log.Info().Int("sandboxes", maxSandboxes).Stringer("memory", faas.Bytes(maxMemory)).Msg("there may be at most")
	network, maxNetwork, private, err := p.cfg.networks()
	if err != nil {
		return err
	}
	files, err := maxFiles()
	if err != nil {
		return err
	}
	keeper, unreadable, err := secret.New(ctx, db, p.cfg.KeyFile)
	if err != nil {
		return err
	}
	if len(unreadable) > 0 {
		p.log.Error().Strs("secrets", unreadable).Str("key_file", p.cfg.KeyFile).
			Msg("there are secrets that cannot be opened: put the key file back from a backup, or delete the secrets and set them again")
	}
	p.catalogue, err = catalogue.Open(ctx, catalogue.Config{
		Store: db, Secrets: keeper, Log: p.log,
		Policy: catalogue.Policy{
			Langs: drivers.Langs(), Network: network, MaxNetwork: maxNetwork,
			Runtime: p.cfg.Runtime, Runtimes: p.cfg.Runtimes, MaxMemory: faas.Bytes(maxMemory),
		},
	})
	if err != nil {
		return err
	}
	p.dispatcher, err = dispatch.New(ctx, dispatch.Config{
		Engine:      p.engine,
		Catalogue:   p.catalogue,
		Store:       db,
		Log:         p.log,
		Metrics:     p.metrics,
		Langs:       drivers.Langs(),
		Pool:        p.cfg.Pool,
		PoolMax:     p.cfg.PoolMax,
		Buffers:     p.buffers,
		MaxBody:     int64(p.cfg.MaxBody),
		Network:     network,
		Egress:      egress.New(egress.Config{Private: private, MaxConnections: int64(files) / 4}), // each needs two
		Runtime:     p.cfg.Runtime,
		LoadTimeout: p.cfg.LoadTimeout,
		Tick:        time.Second,

		MaxSandboxes: maxSandboxes,
		MaxMemory:    maxMemory,
	})
	if err != nil {
		return err
	}
	p.metrics.Watch(maxSandboxes, maxMemory, p.dispatcher.Snapshot)
	p.heap.measure() // all functions are read
	p.api.Open(httpapi.Backend{
		Registry: catalogue.NewRegistrar(p.catalogue, p.dispatcher),
		Locator:  p.dispatcher,
		Invoker:  dispatch.Observe(p.dispatcher, p.metrics, p.log),
		Tokens:   tokens,
		Audit:    p.audit,
		Secrets:  p.catalogue,
		Storage:  db,
		Engine:   p.dispatcher,
	})
	return nil
}

// maxFiles is how many files we may have open. Clients' connections get half of
// them and functions' the half of that, so that sandboxes and files find some left.
func maxFiles() (int, error) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return 0, fmt.Errorf("finding out how many files may be open: %w", err)
	}
	return int(min(files.Cur, 1<<20)), nil
}

// advise adds what to do about a failure in the data folder, if it is known.
func (p *Program) advise(err error) error {
	if faas.DiskFull(err) {
		return fmt.Errorf("%w; free space in %s", err, p.cfg.Data)
	}
	return err
}

// auditFailed is told of what the audit log lacks. What was to be recorded is
// done already, so there is nobody to refuse it to.
func (p *Program) auditFailed(err error) {
	p.metrics.AuditFailures.Inc()
	p.log.Error().Err(err).Msg("the audit log is not complete")
}

func (p *Program) newEngine(ctx context.Context, aviary string) (sandbox.Engine, error) {
	if p.cfg.Engine == "process" {
		engine, err := process.New(process.Config{Dir: p.cfg.Sockets, Aviary: aviary, Log: p.log})
		if err != nil {
			return nil, err // not a nil *process.Engine, which is no nil sandbox.Engine
		}
		return engine, nil
	}
	owner, err := folderIdentity(p.cfg.Data)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	waits := false
	for {
		engine, err := docker.New(ctx, docker.Config{
			Aviary:    aviary,
			SocketDir: p.cfg.Sockets,
			BaseImage: p.cfg.BaseImage,
			Runtimes:  p.cfg.runtimes(),
			Owner:     owner,
			Place:     p.cfg.Data + " on " + host,
			Log:       p.log,
		})
		switch {
		case err == nil:
			if waits {
				p.log.Info().Msg("the engine answers")
			}
			return engine, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !errors.Is(err, sandbox.ErrNoEngine) || errors.Is(err, fs.ErrPermission): // which no wait mends
			return nil, err
		case !waits:
			waits = true
			p.log.Error().Err(err).Msg("the engine is not there yet: waiting for it")
			p.api.Unready(faas.Errorf(faas.CodeStarting, "the engine that makes sandboxes cannot be reached, and the dispatcher waits for it; its log says more").After(engineAgain))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(engineAgain):
		}
	}
}

// prepare makes sure that sandboxes can be created, and then is ready. Until it
// succeeds, sandboxes that live on serve already.
func (p *Program) prepare(ctx context.Context, ready func()) {
	for told := false; ; told = true {
		p.api.Unready(faas.Errorf(faas.CodeStarting, "driver images are being prepared").After(time.Second))
		err := p.dispatcher.Prepare(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			break
		}
		if !told {
			p.log.Error().Err(err).Dur("again_in", prepareAgain).Msg("sandboxes cannot be made yet; it is tried until they can")
		}
		p.api.Unready(faas.Errorf(faas.CodeStarting, "driver images could not be prepared; the dispatcher's log says why").After(prepareAgain))
		select {
		case <-ctx.Done():
			return
		case <-time.After(prepareAgain):
		}
	}
	p.api.Unready(nil)
	p.log.Info().Str("url", p.URL()).Msg("ready")
	ready()
}

// close finishes calls in flight and closes everything that was opened.
func (p *Program) close() {
	p.api.Unready(faas.Errorf(faas.CodeDraining, "the dispatcher is shutting down").After(time.Second))
	p.log.Info().Dur("drain_timeout", p.cfg.DrainTimeout).Msg("shutting down: finishing calls in flight")
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.DrainTimeout)
	defer cancel()
	if err := p.server.Shutdown(ctx); err != nil {
		p.log.Warn().Err(err).Msg("not all calls finished in time")
		p.server.Close()
	}
	p.listener.Close() // in case Serve never had it
	if p.dispatcher != nil {
		p.dispatcher.Close()
	}
	if p.engine != nil {
		if p.cfg.RemoveSandboxes {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := p.engine.Purge(ctx); err != nil {
				p.log.Error().Err(err).Msg("could not remove all sandboxes")
			}
		}
		p.engine.Close()
	}
	p.closeControl()
	if p.audit != nil {
		if err := p.audit.Close(); err != nil {
			p.log.Error().Err(err).Msg("closing the audit log")
		}
	}
	if p.store != nil {
		if err := p.store.Close(); err != nil {
			p.log.Error().Err(err).Msg("closing the store")
		}
	}
	p.log.Info().Msg("stopped")
}

// openControl listens on the control socket, once the data folder's lock is had.
func (p *Program) openControl() error {
	p.api.Unready(faas.Errorf(faas.CodeStarting, "the dispatcher is starting").After(time.Second)) // and no standby any more
	control, err := listenControl(p.cfg.Data)
	if err != nil {
		return err
	}
	go p.control.Serve(front.Listen(control, p.control, p.api.Malformed))
	return nil
}

// closeControl finishes what the control socket is asked. That is late: to a
// standby it is the sign that we live, for as long as we have the lock.
func (p *Program) closeControl() {
	ctx, cancel := context.WithTimeout(context.Background(), controlTimeout)
	defer cancel()
	if err := p.control.Shutdown(ctx); err != nil {
		p.control.Close()
	}
}

// build says which dispatcher this is.
func build(engine string) httpapi.Build {
	return httpapi.Build{Version: release, Commit: commit, Go: runtime.Version(), Engine: engine}
}

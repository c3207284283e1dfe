package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/audit"
	"github.com/flockofbirds/fob/internal/auth"
	"github.com/flockofbirds/fob/internal/buffer"
	"github.com/flockofbirds/fob/internal/catalogue"
	"github.com/flockofbirds/fob/internal/dispatch"
	"github.com/flockofbirds/fob/internal/egress"
	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/front"
	"github.com/flockofbirds/fob/internal/history"
	"github.com/flockofbirds/fob/internal/httpapi"
	"github.com/flockofbirds/fob/internal/logs"
	"github.com/flockofbirds/fob/internal/sandbox"
	"github.com/flockofbirds/fob/internal/secret"
	"github.com/flockofbirds/fob/internal/store"
	"github.com/flockofbirds/fob/internal/telemetry"
	"github.com/flockofbirds/fob/internal/trace"
)

// release is the version of this program.
const release = "0.1.0"

// commit is the commit that this was built from. The linker sets it (-X main.commit=…).
var commit = "unknown"

// Program is the wired-up dispatcher. Tests boot it just as main does.
type Program struct {
	cfg      Config
	log      zerolog.Logger
	metrics  *telemetry.Metrics
	listener net.Listener
	api      *httpapi.API
	server   *front.Server
	buffers  *buffer.Budget
	heap     *heapLimit

	control *http.Server // serves the control socket

	services services

	// Run sets these as it opens them.
	store      *store.Store
	tokens     *auth.Keeper
	audit      *audit.Log
	engine     sandbox.Engine
	secrets    *secret.Keeper
	catalogue  *catalogue.Catalogue
	history    *history.History // nil if none is kept
	traces     *trace.Traces    // nil if none are collected
	logs       *logs.Logs       // nil if none are kept
	egress     *egress.Proxy
	dispatcher *dispatch.Dispatcher

	maxSandboxes int   // at a time
	maxMemory    int64 // bytes, for all sandboxes together
}

// New checks the settings and listens, so that a wrong setting or a busy port is known
// at once. The caller must call Run.
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
	p.buffers.Tell(p.heap.setMapped)
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
		p.metrics.Standby.Set(1)
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
	p.services = p.parts()
	return p, nil
}

// newServer returns the HTTP server in front of the API. It limits everything that a
// slow client could hold up, except bodies and answers, which the API limits.
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
			// Otherwise net/http would answer OPTIONS * itself, past the API and its
			// limits.
			DisableGeneralOptionsHandler: true,
		},
	}
}

// exposed reports whether other machines may be able to reach the program, as far as
// this can be told from here.
func (p *Program) exposed() bool {
	return !p.cfg.Anonymous && !p.listener.Addr().(*net.TCPAddr).IP.IsLoopback()
}

// URL returns the address at which the program answers on this machine.
func (p *Program) URL() string {
	addr := p.listener.Addr().(*net.TCPAddr)
	host := addr.IP.String()
	if addr.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(addr.Port))
}

// Run serves until ctx ends, then drains and closes everything. It calls ready once,
// when functions can be registered and called.
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

	err := p.services.open(ctx)
	if err == nil {
		p.prepare(ctx, ready)
		<-ctx.Done()
	}
	close(stopWatch)
	interrupted := errors.Is(context.Cause(ctx), context.Canceled)
	p.drain()
	p.services.close()
	p.log.Info().Msg("stopped")
	switch {
	case err != nil && !(interrupted && errors.Is(err, context.Canceled)):
		return err
	case ctx.Err() != nil && !interrupted:
		return context.Cause(ctx)
	}
	return nil
}

// drain stops accepting connections and waits for calls in flight to finish.
func (p *Program) drain() {
	p.api.Unready(faas.Errorf(faas.CodeDraining, "the dispatcher is shutting down").After(time.Second))
	p.log.Info().Dur("drain_timeout", p.cfg.DrainTimeout).Msg("shutting down: finishing calls in flight")
	p.api.Leave()
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.DrainTimeout)
	defer cancel()
	if err := p.server.Shutdown(ctx); err != nil {
		p.log.Warn().Err(err).Msg("not all calls finished in time")
		p.server.Close()
	}
	p.listener.Close() // Serve may never have had it
}

// build returns what /api/version answers.
func build(engine string) api.Build {
	return api.Build{Version: release, Commit: commit, Go: runtime.Version(), Engine: engine}
}

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"github.com/flockofbirds/fob/drivers"
	"github.com/flockofbirds/fob/internal/audit"
	"github.com/flockofbirds/fob/internal/auth"
	"github.com/flockofbirds/fob/internal/catalogue"
	"github.com/flockofbirds/fob/internal/dispatch"
	"github.com/flockofbirds/fob/internal/egress"
	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/front"
	"github.com/flockofbirds/fob/internal/history"
	"github.com/flockofbirds/fob/internal/httpapi"
	"github.com/flockofbirds/fob/internal/logs"
	"github.com/flockofbirds/fob/internal/observe"
	"github.com/flockofbirds/fob/internal/secret"
	"github.com/flockofbirds/fob/internal/store"
	"github.com/flockofbirds/fob/internal/trace"
)

// parts lists the program's services in the order in which they are opened. The HTTP
// server is not among them: it answers before the first service is opened, and finishes
// all calls before the last is closed.
func (p *Program) parts() services {
	// The control socket comes after everything that a command over it needs, so that a
	// command that runs at shutdown can finish. It listens earlier, though: as soon as
	// the lock is held.
	control := &service{name: "control socket", runs: onActive, open: p.openControl}
	return services{
		{name: "takeover", runs: onStandby, open: p.openTakeover},
		{name: "store", runs: onAny, open: func(ctx context.Context) (func(), error) { // a standby waits here
			return p.openStore(ctx, func() { control.start(ctx) }) // if it fails, it fails again when its turn comes
		}},
		{name: "tokens", runs: onActive, open: p.openTokens},
		{name: "audit log", runs: onActive, open: p.openAudit},
		control,
		{name: "engine", runs: onActive, open: p.openEngine},
		{name: "secrets", runs: onActive, open: p.openSecrets},
		{name: "catalogue", runs: onActive, open: p.openCatalogue},
		{name: "history", runs: onActive, open: p.openHistory},
		{name: "traces", runs: onActive, open: p.openTraces},
		{name: "logs", runs: onActive, open: p.openLogs},
		{name: "egress", runs: onActive, open: p.openEgress},
		{name: "dispatch", runs: onActive, open: p.openDispatch},
		{name: "API", runs: onActive, open: p.openAPI},
	}
}

// controlTimeout bounds how long requests on the control socket may take to finish once
// the engine is closed.
const controlTimeout = time.Second

// removeTimeout bounds how long the engine may take to remove all sandboxes at the end.
const removeTimeout = time.Minute

// tracesTimeout bounds how long the spans that wait may take to be sent at the end.
const tracesTimeout = 5 * time.Second

// historyRate is how many calls a second leave records at least. Above it, calls that
// went well and fast are sampled.
const historyRate = 5000

// openTakeover watches for a frozen active dispatcher while this one is on standby, and
// ends it.
func (p *Program) openTakeover(ctx context.Context) (func(), error) {
	if !p.cfg.Standby {
		return nil, nil
	}
	p.log.Info().Str("data", p.cfg.Data).Msg("waiting for the data folder's lock, or for the dispatcher that has it to end")
	if p.cfg.TakeoverAfter == 0 {
		return nil, nil
	}
	return p.watchActive(ctx), nil
}

// openStore opens the database and calls locked once it holds the lock. A standby waits
// here for the lock.
func (p *Program) openStore(ctx context.Context, locked func()) (func(), error) {
	db, err := store.Open(ctx, filepath.Join(p.cfg.Data, databaseName), p.cfg.Standby, locked)
	if err != nil {
		return nil, err
	}
	p.store = db
	p.metrics.Stores(func() bool { return db.Broken() != nil }, func() (free, size uint64) { return diskSpace(p.cfg.Data) })
	if m := db.Migrated(); m.From != 0 {
		p.log.Warn().Int("from", m.From).Int("to", m.To).Str("backup", m.Backup).
			Msg("the database was migrated to a newer schema, which older dispatchers cannot read; the old database is kept as a backup")
	}
	return func() {
		if err := db.Close(); err != nil {
			p.log.Error().Err(err).Msg("closing the store")
		}
	}, nil
}

// openTokens reads the tokens. It fails when anybody on the network could run code
// here.
func (p *Program) openTokens(ctx context.Context) (func(), error) {
	tokens, err := auth.Open(ctx, p.store, p.exposed())
	if err != nil {
		return nil, err
	}
	if p.exposed() && !tokens.Required() {
		return nil, fmt.Errorf("others can reach FOB_ADDR=%s, and could run code here, because there is no token yet: make one with\n\n"+
			"  dispatcher token create admin --grant admin --data %q\n\n"+
			"or, if the network itself keeps others out, set FOB_ANONYMOUS=true", p.cfg.Addr, p.cfg.Data)
	}
	p.tokens = tokens
	return nil, nil
}

// openAudit opens the audit log.
func (p *Program) openAudit(context.Context) (func(), error) {
	log, err := audit.Open(p.cfg.Data, audit.MaxBytes, p.auditFailed)
	if err != nil {
		return nil, p.advise(err)
	}
	p.audit = log
	return func() {
		if err := log.Close(); err != nil {
			p.log.Error().Err(err).Msg("closing the audit log")
		}
	}, nil
}

// openControl listens on the control socket. An open control socket is what tells a
// standby that this dispatcher lives. It is therefore opened as soon as the lock is
// held, since reading a large database takes a while, and closed late.
func (p *Program) openControl(context.Context) (func(), error) {
	p.metrics.Standby.Set(0)
	p.api.Unready(faas.Errorf(faas.CodeStarting, "the dispatcher is starting").After(time.Second)) // no longer "on standby"
	listener, err := listenControl(p.cfg.Data)
	if err != nil {
		return nil, p.advise(err)
	}
	go p.control.Serve(front.Listen(listener, p.control, p.api.Malformed))
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), controlTimeout)
		defer cancel()
		if err := p.control.Shutdown(ctx); err != nil {
			p.control.Close()
		}
	}, nil
}

// openEngine waits for the engine, and works out how many sandboxes there may be.
func (p *Program) openEngine(ctx context.Context) (func(), error) {
	aviary := p.cfg.Aviary
	if aviary == "" {
		var err error
		if aviary, err = p.store.Aviary(ctx); err != nil {
			return nil, err
		}
	}
	p.log.Info().Str("data", p.cfg.Data).Str("aviary", aviary).Str("engine", p.cfg.Engine).Msg("starting")
	engine, err := p.newEngine(ctx, aviary)
	if err != nil {
		return nil, err
	}
	if p.maxSandboxes, p.maxMemory, err = p.cfg.caps(engine.Machine); err != nil {
		engine.Close()
		return nil, err
	}
	p.log.Info().Int("sandboxes", p.maxSandboxes).Stringer("memory", faas.Bytes(p.maxMemory)).Msg("there may be at most")
	p.engine = dispatch.Meter(engine, p.metrics)
	return func() {
		if p.cfg.RemoveSandboxes {
			ctx, cancel := context.WithTimeout(context.Background(), removeTimeout)
			defer cancel()
			if err := p.engine.Purge(ctx); err != nil {
				p.log.Error().Err(err).Msg("could not remove all sandboxes")
			}
		}
		p.engine.Close()
	}, nil
}

// openSecrets finds the key of the secrets, and logs the secrets that it cannot open.
func (p *Program) openSecrets(ctx context.Context) (func(), error) {
	keeper, unreadable, err := secret.New(ctx, p.store, p.cfg.KeyFile)
	if err != nil {
		return nil, err
	}
	if len(unreadable) > 0 {
		p.log.Error().Strs("secrets", unreadable).Str("key_file", p.cfg.KeyFile).
			Msg("there are secrets that cannot be opened: put the key file back from a backup, or delete the secrets and set them again")
	}
	p.secrets = keeper
	return nil, nil
}

// openHistory opens the history of calls. Calls matter more: if it cannot be opened, they
// go on without it.
func (p *Program) openHistory(context.Context) (func(), error) {
	if p.cfg.History == 0 {
		return nil, nil
	}
	cfg := history.Config{
		Data: p.cfg.Data, MaxBytes: int64(p.cfg.History), MaxAge: time.Duration(p.cfg.HistoryAge), Rate: historyRate,
		Function: p.nameOf,
		Lost:     func(calls int) { p.metrics.HistoryLost.Add(float64(calls)) },
		Failed:   func(err error) { p.log.Error().Err(err).Msg("the history of calls is not complete") },
	}
	log, err := history.Open(cfg)
	if err != nil {
		p.log.Error().Err(p.advise(err)).Msg("calls leave no record until the next start")
		log = history.Broken(cfg)
	}
	p.history = log
	return func() {
		if err := log.Close(); err != nil {
			p.log.Error().Err(err).Msg("closing the history of calls")
		}
	}, nil
}

// nameOf returns the name of a function, or "".
func (p *Program) nameOf(id string) string {
	if fn, _, err := p.catalogue.Resolve(context.Background(), faas.Ref{ID: id}); err == nil {
		return fn.Name
	}
	return ""
}

// openTraces opens the way to an OpenTelemetry collector, if one is configured. The
// variables may be meant for other programs of the machine, too: if they are not for this
// one, it goes on without traces.
func (p *Program) openTraces(ctx context.Context) (func(), error) {
	traces, err := trace.Open(ctx, trace.Config{
		Version: release, Function: p.nameOf,
		Failed: func(spans int, err error) {
			p.log.Warn().Int("spans", spans).Err(err).Msg("spans of traces are lost")
		},
	})
	if err != nil {
		p.log.Warn().Err(err).Msg("no traces are sent until the next start")
		return nil, nil
	}
	if traces == nil {
		return nil, nil
	}
	p.traces = traces
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), tracesTimeout)
		defer cancel()
		traces.Close(ctx)
	}, nil
}

// openLogs opens the functions' logs. Calls matter more: if they cannot be opened, calls go
// on without them.
func (p *Program) openLogs(context.Context) (func(), error) {
	if p.cfg.Logs == 0 {
		return nil, nil
	}
	all, err := logs.Open(logs.Config{
		Data: p.cfg.Data, MaxBytes: int64(p.cfg.Logs), MaxAge: time.Duration(p.cfg.HistoryAge),
		Lost:   func(lines int) { p.metrics.LogsLost.Add(float64(lines)) },
		Failed: func(err error) { p.log.Error().Err(err).Msg("the functions' logs are not complete") },
	})
	if err != nil {
		p.log.Error().Err(p.advise(err)).Msg("nothing that functions print is kept until the next start")
	}
	p.logs = all
	return func() {
		if err := all.Close(); err != nil {
			p.log.Error().Err(err).Msg("closing the functions' logs")
		}
	}, nil
}

// openEgress makes the proxy that is the way out of sandboxes without a network. Each
// of these sandboxes has a gate in it, which dispatch closes.
func (p *Program) openEgress(context.Context) (func(), error) {
	_, _, private, err := p.cfg.networks()
	if err != nil {
		return nil, err
	}
	files, err := maxFiles()
	if err != nil {
		return nil, err
	}
	p.egress = egress.New(egress.Config{Private: private, MaxConnections: int64(files) / 4}) // each needs two files
	return nil, nil
}

// openCatalogue reads the functions.
func (p *Program) openCatalogue(ctx context.Context) (func(), error) {
	network, maxNetwork, _, err := p.cfg.networks()
	if err != nil {
		return nil, err
	}
	p.catalogue, err = catalogue.Open(ctx, catalogue.Config{
		Store: p.store, Secrets: p.secrets, Log: p.log,
		Policy: catalogue.Policy{
			Langs: drivers.Langs(), Network: network, MaxNetwork: maxNetwork,
			Runtime: p.cfg.Runtime, Runtimes: p.cfg.Runtimes, MaxMemory: faas.Bytes(p.maxMemory),
		},
	})
	return nil, err
}

// openDispatch adopts the sandboxes that are there, and starts the pool, the tick, the
// sweep and the watch of the engine. They end when it is closed.
func (p *Program) openDispatch(ctx context.Context) (func(), error) {
	network, _, _, err := p.cfg.networks()
	if err != nil {
		return nil, err
	}
	var lines faas.LogWriter // nil, and no pointer that is nil
	if p.logs != nil {
		lines = p.logs
	}
	p.dispatcher, err = dispatch.New(ctx, dispatch.Config{
		Logs:        lines,
		Engine:      p.engine,
		Catalogue:   p.catalogue,
		Store:       p.store,
		Log:         p.log,
		Metrics:     p.metrics,
		Langs:       drivers.Langs(),
		Pool:        p.cfg.Pool,
		PoolMax:     p.cfg.PoolMax,
		Buffers:     p.buffers,
		MaxBody:     int64(p.cfg.MaxBody),
		Network:     network,
		Egress:      p.egress,
		Runtime:     p.cfg.Runtime,
		LoadTimeout: p.cfg.LoadTimeout,
		Tick:        time.Second,

		MaxSandboxes: p.maxSandboxes,
		MaxMemory:    p.maxMemory,
	})
	if err != nil {
		return nil, err
	}
	p.metrics.Watch(p.maxSandboxes, p.maxMemory, p.dispatcher.Snapshot)
	return p.dispatcher.Close, nil
}

// openAPI lets requests in. The HTTP server and the control socket stop letting them in.
// What it closes is the log of calls that failed.
func (p *Program) openAPI(context.Context) (func(), error) {
	p.heap.measure() // all functions are read by now
	backend := httpapi.Backend{
		Registry: catalogue.NewRegistrar(p.catalogue, p.dispatcher),
		Locator:  p.dispatcher,
		Tokens:   p.tokens,
		Audit:    p.audit,
		Secrets:  p.catalogue,
		Storage:  p.store,
		Engine:   p.dispatcher,
	}
	var traces faas.Traces
	if p.history != nil {
		backend.History = p.history
	}
	if p.logs != nil {
		backend.Logs = p.logs
	}
	if p.traces != nil {
		traces, backend.Sample = p.traces, p.traces.Sample
	}
	failures := observe.NewFailures(p.log, p.nameOf)
	backend.Invoker = faas.Stack(p.dispatcher, observe.Metrics(p.metrics, failures), observe.Log(p.log), observe.Records(backend.History, traces))
	p.api.Open(backend)
	return failures.Close, nil
}

// auditFailed hears what the audit log could not record. The action itself is done by
// then, so it cannot be refused any more.
func (p *Program) auditFailed(err error) {
	p.metrics.AuditFailures.Inc()
	p.log.Error().Err(err).Msg("the audit log is not complete")
}

// advise adds what to do about a failure in the data folder, where that is known.
func (p *Program) advise(err error) error {
	if faas.DiskFull(err) {
		return fmt.Errorf("%w; free space in %s", err, p.cfg.Data)
	}
	return err
}

// diskSpace returns how many bytes of the file system that has a folder are free for us,
// and how many there are; 0 if it does not say.
func diskSpace(folder string) (free, size uint64) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(folder, &fs); err != nil {
		return 0, 0
	}
	block := uint64(fs.Bsize)
	return uint64(fs.Bavail) * block, uint64(fs.Blocks) * block
}

// maxFiles returns how many files the program may have open. Clients' connections get
// half of them, and functions' outgoing connections half of that, so that some are left
// for sandboxes and files.
func maxFiles() (int, error) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return 0, fmt.Errorf("finding out how many files may be open: %w", err)
	}
	return int(min(files.Cur, 1<<20)), nil
}

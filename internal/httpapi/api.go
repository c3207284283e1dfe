// Package httpapi is the HTTP contract: a chi router, and a file for each resource. It
// knows functions only through faas.Registry and faas.Invoker.
package httpapi

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/buffer"
	"github.com/flockofbirds/fob/internal/faas"
)

// Config is what the API needs from the start.
type Config struct {
	Log     zerolog.Logger
	Metrics http.Handler   // answers GET /metrics
	Build   api.Build      // the answer to GET /api/version
	MaxBody int64          // of any request, in bytes
	Buffers *buffer.Budget // for what is held of requests; nil for no bound

	Port int // the port that is listened on; 0 if unknown

	// Hosts are the names under which the API is reached, beside addresses and
	// localhost. A name may be *.example.com. CheckHost must accept each.
	Hosts []string

	// TrustedProxies are the addresses of proxies whose X-Forwarded-For, -Proto and
	// -Host count.
	TrustedProxies []netip.Prefix

	// How many requests a token and an address may make. The control socket, /healthz
	// and /readyz are exempt.
	RateToken, RateAddress Rate
}

// Backend is what the API serves. It may come later than the API: until Open, a request
// that needs it is answered with the reason given to Unready. In a command that works
// on a data folder without a dispatcher, Registry and Invoker are nil.
type Backend struct {
	Registry faas.Registry
	Locator  faas.Locator
	Invoker  faas.Invoker
	Tokens   faas.Tokens
	Audit    faas.AuditLog
	History  faas.History // nil if none is kept
	Logs     faas.Logs    // nil if none are kept
	Secrets  faas.SecretRegistry
	Storage  Storage
	Engine   Engine

	// Sample decides whether a call's trace is collected, given one whose TraceParent
	// has its caller's decision. It is nil if no traces are collected.
	Sample func(*faas.Invocation) bool
}

// Engine is what makes sandboxes.
type Engine interface {
	// Outage returns why no sandbox can be started at present, or nil.
	Outage() *faas.Error
}

// API is the handler of all routes.
type API struct {
	cfg    Config
	home   home
	guard  guard
	bodies bodies
	hidden *limits[string] // of redirects whose refusal is logged, by the function's ID
	page   *webpage

	router  *chi.Mux
	calls   http.Handler // handles calls as the router would
	opened  atomic.Pointer[opened]
	unready atomic.Pointer[faas.Error]

	leaving context.Context // ends with Leave
	leave   context.CancelFunc
}

// opened is a backend with the handlers that use it.
type opened struct {
	Backend
	has     Needs
	routes  []Route
	unready *atomic.Pointer[faas.Error]
}

// lacks returns why a request cannot be answered that needs so much of the backend, or
// nil.
func (o *opened) lacks(needs Needs) error {
	if needs <= o.has {
		return nil
	}
	if o.has == DataFolder {
		return faas.Errorf(faas.CodeStarting, "no dispatcher runs on this data folder: start one with dispatcher serve").After(time.Second)
	}
	if why := o.unready.Load(); why != nil {
		return why
	}
	return faas.Errorf(faas.CodeStarting, "the dispatcher is starting").After(time.Second)
}

// New returns an API that is not ready and has no backend yet.
func New(cfg Config) *API {
	a := &API{
		cfg:    cfg,
		home:   home{newHosts(cfg.Hosts), cfg.Port},
		bodies: bodies{cfg.MaxBody, cfg.Buffers},
		guard: guard{
			tokens:    newLimits[string](cfg.RateToken),
			addresses: newLimits[netip.Addr](cfg.RateAddress),
			failures:  newLimits[netip.Addr](failures),
		},
		hidden: newLimits[string](loggedErrors),
		page:   newWebpage(),
		router: chi.NewRouter(),
	}
	a.leaving, a.leave = context.WithCancel(context.Background())
	a.Unready(faas.Errorf(faas.CodeStarting, "the dispatcher is starting").After(time.Second))
	a.open(Backend{}, Nothing)
	r := a.router
	r.Use(a.recover, forgive)
	r.NotFound(a.anyone(func(_ http.ResponseWriter, r *http.Request) error {
		return unknownRoute(r)
	}))
	r.MethodNotAllowed(a.anyone(a.methodNotAllowed))
	for i, rt := range Routes() {
		h := a.serve(i, rt)
		for _, method := range rt.Methods() {
			r.Method(method, rt.Path, h)
		}
		if rt.Scope == faas.ScopeInvoke {
			a.calls = a.recover(h)
		}
	}
	return a
}

// Open gives the API its backend.
func (a *API) Open(b Backend) {
	if b.Registry != nil {
		a.open(b, Dispatcher)
	} else {
		a.open(b, DataFolder)
	}
}

func (a *API) open(b Backend, has Needs) {
	s := &resources{
		calls:     &calls{invoker: b.Invoker, registry: b.Registry, sample: b.Sample, bodies: &a.bodies, home: &a.home, hidden: a.hidden, log: a.cfg.Log, fail: a.problem},
		functions: &functions{registry: b.Registry, locator: b.Locator, bodies: &a.bodies, unauthorized: a.guard.unauthorized},
		secrets:   &secrets{secrets: b.Secrets, bodies: &a.bodies},
		tokens:    &tokens{tokens: b.Tokens, bodies: &a.bodies},
		history:   &history{history: b.History, logs: b.Logs, registry: b.Registry, tokens: b.Tokens, bodies: &a.bodies, leaving: a.leaving},
		page:      a.page,
		ops:       &ops{log: a.cfg.Log, build: a.cfg.Build, scrape: a.cfg.Metrics, journal: b.Audit, storage: b.Storage, engine: b.Engine, unready: &a.unready},
	}
	a.opened.Store(&opened{b, has, routes(s), &a.unready})
}

// Unready sets why /readyz answers 503, or with nil that it answers 200. Until Open it
// is also why requests are refused.
func (a *API) Unready(why *faas.Error) { a.unready.Store(why) }

// Leave ends the answers that otherwise go on until their clients leave.
func (a *API) Leave() { a.leave() }

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	limitBody(w, r)
	if a.screen(w, r) {
		a.route(w, r)
	}
}

// Local returns the handler for the control socket, on which the dispatcher's owner may
// do everything, without a rate limit.
func (a *API) Local() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		takeForwarded(r.Header)
		a.route(w, by(r, faas.Caller{Kind: faas.CallerLocal}))
	})
}

// route passes a request to its handler. Calls do not need the router, and may have
// methods that it does not know.
func (a *API) route(w http.ResponseWriter, r *http.Request) {
	if _, _, is := cutCall(r.URL); is && r.Method != http.MethodConnect && r.Method != http.MethodTrace {
		a.calls.ServeHTTP(w, r)
		return
	}
	a.router.ServeHTTP(w, r)
}

// forgive routes a path that ends with a slash like one without, and HEAD like GET. The
// server leaves out the body of an answer to HEAD.
func forgive(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := chi.RouteContext(r.Context())
		ctx.RoutePath = routedPath(r.URL)
		if r.Method == http.MethodHead {
			ctx.RouteMethod = http.MethodGet
		}
		next.ServeHTTP(w, r)
	})
}

func routedPath(u *url.URL) string {
	path := sentPath(u)
	if len(path) > 1 {
		path = strings.TrimSuffix(path, "/")
	}
	return path
}

// recover answers a panic with a problem, and logs the stack.
func (a *API) recover(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch p := recover(); p {
			case nil:
			case http.ErrAbortHandler:
				panic(p)
			default:
				a.cfg.Log.Error().Interface("panic", p).Bytes("stack", debug.Stack()).Msg("a request panicked")
				a.problem(w, r, faas.Errorf(faas.CodeInternal, "something went wrong in the dispatcher; its log says what"))
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// methodNotAllowed returns an error that lists the methods of a path.
func (a *API) methodNotAllowed(w http.ResponseWriter, r *http.Request) error {
	path := routedPath(r.URL)
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		if a.router.Match(chi.NewRouteContext(), method, path) {
			w.Header().Add("Allow", method)
			if method == "GET" {
				w.Header().Add("Allow", "HEAD")
			}
		}
	}
	if r.URL.Path == "" { // the target of a CONNECT has no path, which the router takes for the root
		return unknownRoute(r)
	}
	return faas.Errorf(faas.CodeMethodNotAllowed, "%.20q is not for this path; it has %v", r.Method, w.Header().Values("Allow"))
}

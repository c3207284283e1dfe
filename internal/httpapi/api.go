// Package httpapi is the HTTP contract: a chi router, and one file a resource.
// It knows functions only through faas.Registry and faas.Invoker.
package httpapi

import (
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/buffer"
	"github.com/flockofbirds/fob/internal/faas"
)

// Config is what the API needs to be there at all.
type Config struct {
	Log     zerolog.Logger
	Metrics http.Handler   // of GET /metrics
	Build   Build          // answered to GET /api/version
	MaxBody int64          // of any request, in bytes
	Buffers *buffer.Budget // for what is held of requests; nil for no bound

	Port int // that is listened on; 0 when that is not known

	// Hosts is which names it is reached by, beside addresses and localhost,
	// as in *.example.com. CheckHost must have nothing against them.
	Hosts []string

	// TrustedProxies are from where X-Forwarded-For, -Proto and -Host count.
	TrustedProxies []netip.Prefix

	// How many requests are answered to a token, and to an address. The control
	// socket, /healthz and /readyz are exempt.
	RateToken, RateAddress Rate
}

// Build says which dispatcher this is.
type Build struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
	Engine  string `json:"engine"`
}

// Backend is what the API serves. It may come later than the API: until Open,
// every request that needs it is answered with the reason given to Unready. A
// command that works on a data folder that no dispatcher uses has neither
// registry nor invoker.
type Backend struct {
	Registry faas.Registry
	Locator  faas.Locator
	Invoker  faas.Invoker
	Tokens   faas.Tokens
	Audit    faas.AuditLog
	Secrets  faas.SecretRegistry
	Storage  Storage
	Engine   Engine
}

// Engine is what sandboxes are made with.
type Engine interface {
	// Outage returns why none can be started at present, or nil.
	Outage() *faas.Error
}

// API is the handler of all routes.
type API struct {
	cfg     Config
	hosts   hosts
	router  *chi.Mux
	calls   http.Handler // what the router does with calls
	backend atomic.Pointer[Backend]
	unready atomic.Pointer[faas.Error]

	tokens    *limits[string]     // by ID; nil for no limit
	addresses *limits[netip.Addr] // nil for no limit
	failures  *limits[netip.Addr] // of those that show no good token
	hidden    *limits[string]     // errors that are logged, by the function's ID

	copying sync.Mutex // held while a backup is fetched
}

// New returns an API that is not ready and has no backend yet.
func New(cfg Config) *API {
	a := &API{
		cfg:       cfg,
		hosts:     newHosts(cfg.Hosts),
		router:    chi.NewRouter(),
		tokens:    newLimits[string](cfg.RateToken),
		addresses: newLimits[netip.Addr](cfg.RateAddress),
		failures:  newLimits[netip.Addr](failures),
		hidden:    newLimits[string](loggedErrors),
	}
	a.Unready(faas.Errorf(faas.CodeStarting, "the dispatcher is starting").After(time.Second))
	r := a.router
	r.Use(a.recover, forgive)
	r.NotFound(a.anyone(func(_ http.ResponseWriter, r *http.Request) error {
		return faas.Errorf(faas.CodeUnknownRoute, "there is nothing at %.200q; GET /api/openapi.yaml says what there is", r.URL.Path)
	}))
	r.MethodNotAllowed(a.anyone(a.methodNotAllowed))

	// What each route asks of its caller; SECURITY.md has it as a table.
	call := a.guard(access{scope: faas.ScopeInvoke, span: forOne}, a.call)
	a.calls = a.recover(call)
	r.Post("/api/gen", a.guard(access{scope: faas.ScopeDeploy, span: forSome}, a.audited("function.create", a.generate)))
	for _, method := range slices.Concat(callMethods, moreMethods) {
		r.Method(method, CallPrefix+"{ref}", call)
		r.Method(method, CallPrefix+"{ref}/*", call)
	}
	r.Get("/api/stats", a.guard(access{scope: faas.ScopeRead, span: forSome}, a.stats))
	r.Get("/api/meta/{ref}", a.guard(access{scope: faas.ScopeRead, span: forOne}, a.meta))
	r.Get("/api/cs/{ref}", a.guard(access{scope: faas.ScopeRead, span: forOne, sandboxes: true}, a.code))

	r.Get("/api/functions", a.guard(access{scope: faas.ScopeRead, span: forSome}, a.listFunctions))
	r.Get("/api/functions/{ref}", a.guard(access{scope: faas.ScopeRead, span: forOne}, a.getFunction))
	r.Get("/api/functions/{ref}/versions", a.guard(access{scope: faas.ScopeRead, span: forOne}, a.listVersions))
	r.Put("/api/functions/{ref}", a.guard(access{scope: faas.ScopeDeploy, span: forOne}, a.audited("function.put", a.putFunction)))
	r.Patch("/api/functions/{ref}", a.guard(access{scope: faas.ScopeDeploy, span: forOne}, a.audited("function.patch", a.patchFunction)))
	r.Delete("/api/functions/{ref}", a.guard(access{scope: faas.ScopeDeploy, span: forOne}, a.audited("function.delete", a.deleteFunction)))

	r.Post("/api/tokens", a.guard(access{scope: faas.ScopeAdmin, span: forAll}, a.audited("token.create", a.createToken)))
	r.Get("/api/tokens", a.guard(access{scope: faas.ScopeAdmin, span: forAll}, a.listTokens))
	r.Delete("/api/tokens/{id}", a.guard(access{scope: faas.ScopeAdmin, span: forAll}, a.audited("token.revoke", a.revokeToken)))

	r.Get("/api/audit", a.guard(access{scope: faas.ScopeAdmin, span: forAll}, a.audit))

	r.Get("/api/backup", a.guard(access{scope: faas.ScopeAdmin, span: forAll}, a.audited("backup", a.backup)))

	r.Get("/api/secrets", a.guard(access{scope: faas.ScopeDeploy, span: forAll}, a.listSecrets))
	r.Post("/api/secrets/rotate-key", a.guard(access{scope: faas.ScopeAdmin, span: forAll}, a.audited("secret.rotate_key", a.rotateKey)))
	r.Put("/api/secrets/{name}", a.guard(access{scope: faas.ScopeDeploy, span: forAll}, a.audited("secret.put", a.putSecret)))
	r.Delete("/api/secrets/{name}", a.guard(access{scope: faas.ScopeDeploy, span: forAll}, a.audited("secret.delete", a.deleteSecret)))

	r.Get("/healthz", a.handle(a.healthz))
	r.Get("/readyz", a.handle(a.readyz))
	r.Get("/metrics", a.guard(access{scope: faas.ScopeRead, span: forAll, standby: true}, func(w http.ResponseWriter, r *http.Request, _ faas.Caller) error {
		inert(w.Header())
		cfg.Metrics.ServeHTTP(w, r)
		return nil
	}))
	r.Get("/api/version", a.anyone(a.version))
	r.Get("/api/openapi.yaml", a.anyone(func(w http.ResponseWriter, _ *http.Request) error {
		inert(w.Header())
		w.Header().Set("Content-Type", "application/yaml")
		w.Header().Set("Content-Length", strconv.Itoa(len(api.OpenAPI)))
		w.Write(api.OpenAPI)
		return nil
	}))
	return a
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	limitBody(w, r)
	if a.screen(w, r) {
		a.route(w, r)
	}
}

// route hands a request to its handler. Calls need no router, and may have
// methods that it does not know.
func (a *API) route(w http.ResponseWriter, r *http.Request) {
	if _, _, is := cutCall(r.URL); is && r.Method != http.MethodConnect && r.Method != http.MethodTrace {
		a.calls.ServeHTTP(w, r)
		return
	}
	a.router.ServeHTTP(w, r)
}

// callMethods are those of calls that a function without the request takes, and
// those that one with it gets besides. It gets any other, too.
var (
	callMethods = []string{http.MethodGet, http.MethodHead, http.MethodPost}
	moreMethods = []string{http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions}
)

// forgive routes a path with a slash at its end as one without, and HEAD as GET,
// of whose answer the server then leaves the body out.
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

// Routes lists the routes.
func (a *API) Routes() chi.Routes { return a.router }

// Open gives the API its backend.
func (a *API) Open(b Backend) { a.backend.Store(&b) }

// Unready says why /readyz is to answer 503, or nil that it is not. Without a
// backend it is also why calls are refused.
func (a *API) Unready(why *faas.Error) { a.unready.Store(why) }

// open returns the backend, or why there is none.
func (a *API) open() (*Backend, error) {
	if b := a.backend.Load(); b != nil && b.Registry != nil {
		return b, nil
	} else if b != nil {
		return nil, faas.Errorf(faas.CodeStarting, "no dispatcher runs on this data folder: start one with dispatcher serve").After(time.Second)
	}
	if why := a.unready.Load(); why != nil {
		return nil, why
	}
	return nil, faas.Errorf(faas.CodeStarting, "the dispatcher is starting").After(time.Second)
}

// handle makes a handler of one that returns its error.
func (a *API) handle(h func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			a.problem(w, r, err)
		}
	}
}

// recover answers a panic with a problem, and logs where it was.
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

// methodNotAllowed says which methods a path has.
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
	return faas.Errorf(faas.CodeMethodNotAllowed, "%.20q is not for this path; it has %v", r.Method, w.Header().Values("Allow"))
}

// Package httpapi is the HTTP contract: a chi router, one file a resource, and
// the one table from error codes to statuses. It knows functions only through
// faas.Registry and faas.Invoker.
package httpapi

import (
	"net/http"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// Config is what the API needs to be there at all.
type Config struct {
	Log     zerolog.Logger
	Metrics http.Handler // of GET /metrics
	Build   Build        // answered to GET /api/version
	MaxBody int64        // of any request, in bytes
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
	Invoker  faas.Invoker
	Secrets  faas.SecretRegistry
}

// API is the handler of all routes.
type API struct {
	cfg       Config
	router    *chi.Mux
	plainCall http.Handler // what the router does with GET and POST of CallPrefix
	backend   atomic.Pointer[Backend]
	unready   atomic.Pointer[faas.Error]
}

// New returns an API that is not ready and has no backend yet.
func New(cfg Config) *API {
	a := &API{cfg: cfg, router: chi.NewRouter()}
	a.Unready(faas.Errorf(faas.CodeStarting, "the dispatcher is starting").After(time.Second))
	r := a.router
	r.Use(a.recover)
	r.NotFound(a.handle(func(_ http.ResponseWriter, r *http.Request) error {
		return faas.Errorf(codeUnknownRoute, "there is nothing at %.200q; GET /api/openapi.yaml says what there is", r.URL.Path)
	}))
	r.MethodNotAllowed(a.handle(a.methodNotAllowed))

	a.plainCall = a.recover(a.handle(a.call))

	r.Post("/api/gen", a.handle(a.generate))
	r.Get(CallPrefix+"{ref}", a.handle(a.call))
	r.Post(CallPrefix+"{ref}", a.handle(a.call))
	r.Get("/api/stats", a.handle(a.stats))
	r.Get("/api/meta/{ref}", a.handle(a.meta))
	r.Get("/api/cs/{ref}", a.handle(a.code))

	r.Get("/api/functions", a.handle(a.listFunctions))
	r.Get("/api/functions/{ref}", a.handle(a.getFunction))
	r.Put("/api/functions/{ref}", a.handle(a.putFunction))
	r.Patch("/api/functions/{ref}", a.handle(a.patchFunction))
	r.Delete("/api/functions/{ref}", a.handle(a.deleteFunction))

	r.Get("/api/secrets", a.handle(a.listSecrets))
	r.Post("/api/secrets/rotate-key", a.handle(a.rotateKey))
	r.Put("/api/secrets/{name}", a.handle(a.putSecret))
	r.Delete("/api/secrets/{name}", a.handle(a.deleteSecret))

	r.Get("/healthz", a.handle(a.healthz))
	r.Get("/readyz", a.handle(a.readyz))
	r.Method(http.MethodGet, "/metrics", cfg.Metrics)
	r.Get("/api/version", a.handle(a.version))
	r.Get("/api/openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		w.Write(api.OpenAPI)
	})
	return a
}

// CallPrefix is how the paths of calls begin. A ref follows.
const CallPrefix = "/api/call/"

// ServeHTTP implements http.Handler. Plain calls need no router.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if ref, is := strings.CutPrefix(r.URL.Path, CallPrefix); is && r.URL.RawPath == "" && ref != "" && strings.IndexByte(ref, '/') < 0 &&
		(r.Method == http.MethodGet || r.Method == http.MethodPost) {
		a.plainCall.ServeHTTP(w, r)
		return
	}
	a.router.ServeHTTP(w, r)
}

// Local returns the handler for the dispatcher's owner, who has come over the
// control socket.
func (a *API) Local() http.Handler { return a.router }

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
	path := r.URL.RawPath
	if path == "" {
		path = r.URL.Path
	}
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		if a.router.Match(chi.NewRouteContext(), method, path) {
			w.Header().Add("Allow", method)
		}
	}
	return faas.Errorf(codeMethodNotAllowed, "%.20q is not for this path; it has %v", r.Method, w.Header().Values("Allow"))
}

package httpapi

import (
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// ops answers the requests of those who run the dispatcher.
type ops struct {
	log     zerolog.Logger
	build   api.Build
	scrape  http.Handler // answers GET /metrics
	journal faas.AuditLog
	storage Storage                     // nil if there is none yet
	engine  Engine                      // nil if there is none, or none yet
	unready *atomic.Pointer[faas.Error] // why it is not ready, or nil

	copying sync.Mutex // held while a backup is sent
}

// healthz answers GET /healthz: the process lives.
func (s *ops) healthz(w http.ResponseWriter, _ *http.Request, _ asked) error {
	return answer(w, http.StatusOK, api.Status{Status: "ok"})
}

// readyz answers GET /readyz: it is ready, or why not.
func (s *ops) readyz(w http.ResponseWriter, _ *http.Request, _ asked) error {
	if why := s.unready.Load(); why != nil {
		return why
	}
	if s.storage != nil {
		if err := s.storage.Broken(); err != nil {
			return err
		}
	}
	if s.engine != nil {
		if why := s.engine.Outage(); why != nil {
			return why
		}
	}
	return answer(w, http.StatusOK, api.Status{Status: "ready"})
}

// metrics answers GET /metrics.
func (s *ops) metrics(w http.ResponseWriter, r *http.Request, _ asked) error {
	inert(w.Header())
	s.scrape.ServeHTTP(w, r)
	return nil
}

// version answers GET /api/version.
func (s *ops) version(w http.ResponseWriter, _ *http.Request, _ asked) error {
	return answer(w, http.StatusOK, s.build)
}

// openAPI answers GET /api/openapi.yaml.
func (s *ops) openAPI(w http.ResponseWriter, _ *http.Request, _ asked) error {
	inert(w.Header())
	w.Header().Set("Content-Type", "application/yaml")
	w.Header().Set("Content-Length", strconv.Itoa(len(api.OpenAPI)))
	w.Write(api.OpenAPI)
	return nil
}

package httpapi

import (
	"net/http"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// meta answers GET /api/meta/REF: where a function runs.
func (s *functions) meta(w http.ResponseWriter, r *http.Request, q asked) error {
	_, version, err := s.registry.Resolve(r.Context(), q.ref)
	if err != nil {
		return err
	}
	sandboxes, err := s.locator.Sandboxes(r.Context(), version)
	if err != nil {
		return err
	}
	where := api.Whereabouts{Sandboxes: []faas.SandboxInfo{}}
	if len(sandboxes) > 0 {
		where.Host, where.Port, where.Sandboxes = &sandboxes[0].Host, &sandboxes[0].Port, sandboxes
	}
	return answer(w, http.StatusOK, where)
}

package httpapi

import (
	"net/http"

	"github.com/flockofbirds/fob/internal/faas"
)

// meta answers GET /api/meta/REF: where a function runs.
func (a *API) meta(w http.ResponseWriter, r *http.Request, _ faas.Caller) error {
	backend, version, err := a.resolve(r)
	if err != nil {
		return err
	}
	sandboxes, err := backend.Locator.Sandboxes(r.Context(), version)
	if err != nil {
		return err
	}
	where := struct {
		Host      *string            `json:"host"` // null when none is running
		Port      *int               `json:"port"`
		Sandboxes []faas.SandboxInfo `json:"sandboxes"`
	}{Sandboxes: []faas.SandboxInfo{}}
	if len(sandboxes) > 0 {
		where.Host, where.Port, where.Sandboxes = &sandboxes[0].Host, &sandboxes[0].Port, sandboxes
	}
	return answer(w, http.StatusOK, where)
}

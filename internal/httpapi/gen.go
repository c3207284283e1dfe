package httpapi

import (
	"net/http"

	"github.com/flockofbirds/fob/internal/faas"
)

// generate answers POST /api/gen: it registers a function.
func (a *API) generate(w http.ResponseWriter, r *http.Request, entry *faas.AuditEntry) error {
	backend, err := a.open()
	if err != nil {
		return err
	}
	name, draft, err := a.readDraft(w, r)
	if err != nil {
		return err
	}
	entry.Name = name
	fn, err := backend.Registry.Create(r.Context(), name, draft)
	if err != nil {
		return err
	}
	about(entry, fn)
	w.Header().Set("Location", "/api/functions/"+fn.ID)
	return answer(w, http.StatusOK, struct {
		ID string `json:"id"`
	}{fn.ID})
}

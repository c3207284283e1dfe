package httpapi

import (
	"net/http"

	"github.com/flockofbirds/fob/internal/faas"
)

// stats answers GET /api/stats: the IDs of all functions that the caller may read.
func (a *API) stats(w http.ResponseWriter, r *http.Request, who faas.Caller) error {
	backend, err := a.open()
	if err != nil {
		return err
	}
	ids := []string{}
	if who.May(faas.ScopeRead, nil) {
		var all []string
		if all, err = backend.Registry.IDs(r.Context()); len(all) > 0 {
			ids = all
		}
	} else {
		var functions []*faas.Function
		functions, err = visible(r.Context(), backend.Registry, who)
		for _, fn := range functions {
			ids = append(ids, fn.ID)
		}
	}
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, struct {
		Functions []string `json:"functions"`
	}{ids})
}

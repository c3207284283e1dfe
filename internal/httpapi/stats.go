package httpapi

import (
	"net/http"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// stats answers GET /api/stats: the IDs of all functions that the caller may read.
func (s *functions) stats(w http.ResponseWriter, r *http.Request, q asked) error {
	ids := []string{}
	if q.who.May(faas.ScopeRead, nil) {
		all, err := s.registry.IDs(r.Context())
		if err != nil {
			return err
		}
		ids = append(ids, all...)
	} else {
		functions, err := visible(r.Context(), s.registry, q.who)
		if err != nil {
			return err
		}
		for _, fn := range functions {
			ids = append(ids, fn.ID)
		}
	}
	return answer(w, http.StatusOK, api.IDs{Functions: ids})
}

package httpapi

import "net/http"

// stats answers GET /api/stats: the IDs of all functions.
func (a *API) stats(w http.ResponseWriter, r *http.Request) error {
	backend, err := a.open()
	if err != nil {
		return err
	}
	ids, err := backend.Registry.IDs(r.Context())
	if err != nil {
		return err
	}
	if ids == nil {
		ids = []string{}
	}
	return answer(w, http.StatusOK, struct {
		Functions []string `json:"functions"`
	}{ids})
}

package httpapi

import "net/http"

// generate answers POST /api/gen: it registers a function.
func (a *API) generate(w http.ResponseWriter, r *http.Request) error {
	backend, err := a.open()
	if err != nil {
		return err
	}
	name, draft, err := a.readDraft(w, r)
	if err != nil {
		return err
	}
	fn, err := backend.Registry.Create(r.Context(), name, draft)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/api/functions/"+fn.ID)
	// gofail: var answerGen struct{}
	return answer(w, http.StatusOK, struct {
		ID string `json:"id"`
	}{fn.ID})
}

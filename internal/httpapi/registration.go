package httpapi

import (
	"net/http"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// generate answers POST /api/gen: it registers a function.
func (s *functions) generate(w http.ResponseWriter, r *http.Request, q asked) error {
	if !q.who.May(faas.ScopeDeploy, nil) {
		// The token may create the functions that it names. It must not learn whether
		// others exist, whatever their names.
		name := nameInQuery(r.URL.RawQuery)
		if name == "" || !q.who.May(faas.ScopeDeploy, &faas.Function{Name: name}) {
			return faas.Errorf(faas.CodeForbidden, "your token allows this only for functions that it names: give ?name= with one of these, or use a token with the grant deploy")
		}
	}
	name, draft, err := s.bodies.readDraft(w, r)
	if err != nil {
		return err
	}
	q.entry.Name = name
	fn, err := s.registry.Create(r.Context(), name, draft)
	if err != nil {
		return err
	}
	about(q.entry, fn)
	w.Header().Set("Location", "/api/functions/"+fn.ID)
	// gofail: var answerGen struct{}
	return answer(w, http.StatusOK, api.Registered{ID: fn.ID})
}

// nameInQuery returns the name in a query, or "". readDraft reports what is wrong with
// the query.
func nameInQuery(query string) (name string) {
	_ = eachParameter(query, func(string) error { return nil }, func(key, value string) error {
		if key == "name" {
			name = value
		}
		return nil
	})
	return name
}

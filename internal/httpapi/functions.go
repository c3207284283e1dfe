package httpapi

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

const (
	defaultPage = 100
	maxPage     = 1000
)

// functionDoc is how a function is shown. Version is the one that the ref
// named; Versions is left out of lists.
type functionDoc struct {
	ID       string          `json:"id"`
	Name     string          `json:"name,omitempty"`
	Created  time.Time       `json:"created"`
	Aliases  map[string]int  `json:"aliases"`
	Version  *faas.Version   `json:"version"`
	Versions []*faas.Version `json:"versions,omitempty"`
}

func document(fn *faas.Function, v *faas.Version) functionDoc {
	return functionDoc{ID: fn.ID, Name: fn.Name, Created: fn.Created, Aliases: fn.Aliases, Version: v, Versions: fn.Versions}
}

// listFunctions answers GET /api/functions, a page at a time.
func (a *API) listFunctions(w http.ResponseWriter, r *http.Request) error {
	backend, err := a.open()
	if err != nil {
		return err
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return faas.Errorf(faas.CodeBadRequest, "the query is not properly percent-encoded")
	}
	limit := defaultPage
	for name, values := range query {
		if len(values) > 1 || (name != "limit" && name != "after") {
			return faas.Errorf(faas.CodeBadRequest, "the query takes limit and after, each once, not %.80q", name)
		}
	}
	if query.Has("limit") {
		limit, err = strconv.Atoi(query.Get("limit"))
		if err != nil || limit < 1 || limit > maxPage {
			return faas.Errorf(faas.CodeBadRequest, "limit is a number from 1 to %d", maxPage)
		}
	}
	// One more than asked for tells whether there is a next page.
	functions, err := backend.Registry.List(r.Context(), query.Get("after"), limit+1)
	if err != nil {
		return err
	}
	page := struct {
		Functions []functionDoc `json:"functions"`
		Next      *string       `json:"next"` // the value of after for the next page, or null
	}{Functions: []functionDoc{}}
	for i, fn := range functions {
		if i == limit {
			page.Next = &functions[i-1].ID
			break
		}
		doc := document(fn, fn.Live())
		doc.Versions = nil
		page.Functions = append(page.Functions, doc)
	}
	return answer(w, http.StatusOK, page)
}

// getFunction answers GET /api/functions/REF.
func (a *API) getFunction(w http.ResponseWriter, r *http.Request) error {
	backend, ref, err := a.target(r)
	if err != nil {
		return err
	}
	fn, version, err := backend.Registry.Resolve(r.Context(), ref)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, document(fn, version))
}

// putFunction answers PUT /api/functions/REF: it creates a function by name,
// or adds a version to one.
func (a *API) putFunction(w http.ResponseWriter, r *http.Request) error {
	backend, ref, err := a.target(r)
	if err != nil {
		return err
	}
	name, draft, err := a.readDraft(w, r)
	if err != nil {
		return err
	}
	if name != "" && name != ref.Name {
		return faas.Errorf(faas.CodeBadRequest, "the path names the function, and a name cannot be changed: leave name=%.80s out", name)
	}
	fn, created, err := backend.Registry.Put(r.Context(), ref, draft)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	w.Header().Set("Location", "/api/functions/"+fn.ID)
	// gofail: var answerPut struct{}
	return answer(w, status, document(fn, fn.Live()))
}

// patchFunction answers PATCH /api/functions/REF: changed settings become a
// new version.
func (a *API) patchFunction(w http.ResponseWriter, r *http.Request) error {
	backend, ref, err := a.target(r)
	if err != nil {
		return err
	}
	settings, err := a.readPatch(w, r)
	if err != nil {
		return err
	}
	fn, err := backend.Registry.Patch(r.Context(), ref, settings)
	if err != nil {
		return err
	}
	// gofail: var answerPatch struct{}
	return answer(w, http.StatusOK, document(fn, fn.Live()))
}

// deleteFunction answers DELETE /api/functions/REF.
func (a *API) deleteFunction(w http.ResponseWriter, r *http.Request) error {
	backend, ref, err := a.target(r)
	if err != nil {
		return err
	}
	if err := backend.Registry.Delete(r.Context(), ref); err != nil {
		return err
	}
	// gofail: var answerDelete struct{}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

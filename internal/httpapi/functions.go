package httpapi

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
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

// listFor is Registry.List of what a caller may read. That a function is there
// which the caller may not read does not show, in the value of after either.
func listFor(ctx context.Context, registry faas.Registry, who faas.Caller, after string, limit int) ([]*faas.Function, error) {
	if who.May(faas.ScopeRead, nil) {
		return registry.List(ctx, after, limit)
	}
	functions, err := visible(ctx, registry, who)
	if err != nil {
		return nil, err
	}
	if after != "" {
		i := slices.IndexFunc(functions, func(fn *faas.Function) bool { return fn.ID == after })
		if i < 0 {
			return nil, faas.UnknownPlace(after)
		}
		functions = functions[i+1:]
	}
	return functions[:min(limit, len(functions))], nil
}

// listFunctions answers GET /api/functions, a page at a time: those that the
// caller may read.
func (a *API) listFunctions(w http.ResponseWriter, r *http.Request, who faas.Caller) error {
	backend, err := a.open()
	if err != nil {
		return err
	}
	after, limit, err := readPage(r.URL.RawQuery)
	if err != nil {
		return err
	}
	// One more than asked for tells whether there is a next page.
	functions, err := listFor(r.Context(), backend.Registry, who, after, limit+1)
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
func (a *API) getFunction(w http.ResponseWriter, r *http.Request, _ faas.Caller) error {
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
func (a *API) putFunction(w http.ResponseWriter, r *http.Request, entry *faas.AuditEntry) error {
	backend, ref, err := a.target(r)
	if err != nil {
		return err
	}
	entry.ID, entry.Name = ref.ID, ref.Name
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
	about(entry, fn)
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
func (a *API) patchFunction(w http.ResponseWriter, r *http.Request, entry *faas.AuditEntry) error {
	backend, ref, err := a.target(r)
	if err != nil {
		return err
	}
	entry.ID, entry.Name = ref.ID, ref.Name
	settings, err := a.readPatch(w, r)
	if err != nil {
		return err
	}
	fn, err := backend.Registry.Patch(r.Context(), ref, settings)
	if err != nil {
		return err
	}
	about(entry, fn)
	// gofail: var answerPatch struct{}
	return answer(w, http.StatusOK, document(fn, fn.Live()))
}

// deleteFunction answers DELETE /api/functions/REF.
func (a *API) deleteFunction(w http.ResponseWriter, r *http.Request, entry *faas.AuditEntry) error {
	backend, ref, err := a.target(r)
	if err != nil {
		return err
	}
	entry.ID, entry.Name = ref.ID, ref.Name
	if fn, _, err := backend.Registry.Resolve(r.Context(), ref); err == nil {
		about(entry, fn) // afterwards there is no asking; when there is no such function, Delete says so
	}
	if err := backend.Registry.Delete(r.Context(), ref); err != nil {
		return err
	}
	// gofail: var answerDelete struct{}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

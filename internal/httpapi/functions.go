package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// functionDoc is how a function is shown. Version is the one that the ref named.
type functionDoc struct {
	ID      string         `json:"id"`
	Name    string         `json:"name,omitempty"`
	Created time.Time      `json:"created"`
	Aliases map[string]int `json:"aliases"`
	Version *faas.Version  `json:"version"`
}

func document(fn *faas.Function, v *faas.Version) functionDoc {
	return functionDoc{ID: fn.ID, Name: fn.Name, Created: fn.Created, Aliases: fn.Aliases, Version: v}
}

// changeDoc is the answer to a change.
type changeDoc struct {
	functionDoc
	Changed bool `json:"changed"` // false: it was so before
}

// versionsDoc is a page of a function's versions, the newest first.
type versionsDoc struct {
	Versions []*faas.Version `json:"versions"`
	Next     *string         `json:"next"` // the value of after for the next page, or null
}

// shownVersions is how many a function is shown with.
const shownVersions = 10

func pageOfVersions(ctx context.Context, registry faas.Registry, fn *faas.Function, before, limit int) (versionsDoc, error) {
	// One more than asked for tells whether there is a next page.
	versions, err := registry.Versions(ctx, fn, before, limit+1)
	page := versionsDoc{Versions: append([]*faas.Version{}, versions...)}
	if len(versions) > limit {
		page.Versions = page.Versions[:limit]
		next := strconv.Itoa(versions[limit-1].Number)
		page.Next = &next
	}
	return page, err
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
		place, err := faas.ParsePlace(after, func(id string) *faas.Function {
			if i := slices.IndexFunc(functions, func(fn *faas.Function) bool { return fn.ID == id }); i >= 0 {
				return functions[i]
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		functions = slices.DeleteFunc(functions, func(fn *faas.Function) bool { return fn.Place().Compare(place) <= 0 })
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
			next := functions[i-1].Place().String()
			page.Next = &next
			break
		}
		page.Functions = append(page.Functions, document(fn, fn.Live()))
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
	versions, err := pageOfVersions(r.Context(), backend.Registry, fn, 0, shownVersions)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, struct {
		functionDoc
		versionsDoc
	}{document(fn, version), versions})
}

// listVersions answers GET /api/functions/REF/versions, a page at a time.
func (a *API) listVersions(w http.ResponseWriter, r *http.Request, _ faas.Caller) error {
	backend, ref, err := a.target(r)
	if err != nil {
		return err
	}
	after, limit, err := readPage(r.URL.RawQuery)
	if err != nil {
		return err
	}
	before := 0
	if after != "" {
		if before, err = strconv.Atoi(after); err != nil || before < 1 {
			return faas.Errorf(faas.CodeBadRequest, "after is the number of a version, which older ones follow")
		}
	}
	if !ref.Bare() {
		return faas.Errorf(faas.CodeBadRequest, "the versions are those of a whole function: use /api/functions/%s/versions", ref.ID+ref.Name)
	}
	fn, _, err := backend.Registry.Resolve(r.Context(), ref)
	if err != nil {
		return err
	}
	page, err := pageOfVersions(r.Context(), backend.Registry, fn, before, limit)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, page)
}

// putFunction answers PUT /api/functions/REF: it creates a function by name,
// or adds a version to one, unless the live version is the same.
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
	fn, change, err := backend.Registry.Put(r.Context(), ref, draft)
	if err != nil {
		return err
	}
	about(entry, fn)
	status := http.StatusOK
	if change == faas.Created {
		status = http.StatusCreated
	}
	w.Header().Set("Location", "/api/functions/"+fn.ID)
	// gofail: var answerPut struct{}
	return answer(w, status, changeDoc{document(fn, fn.Live()), change != faas.Unchanged})
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
	fn, change, err := backend.Registry.Patch(r.Context(), ref, settings)
	if err != nil {
		return err
	}
	about(entry, fn)
	// gofail: var answerPatch struct{}
	return answer(w, http.StatusOK, changeDoc{document(fn, fn.Live()), change != faas.Unchanged})
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

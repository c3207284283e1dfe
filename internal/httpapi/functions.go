package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// functions answers everything about functions except calls.
type functions struct {
	registry     faas.Registry
	locator      faas.Locator
	bodies       *bodies
	unauthorized func(*http.Request, faas.Scope) error
}

func document(fn *faas.Function, v *faas.Version) api.Function {
	return api.Function{ID: fn.ID, Name: fn.Name, Created: fn.Created, Aliases: fn.Aliases, Version: v}
}

// shownVersions is how many versions a function is shown with.
const shownVersions = 10

func (s *functions) pageOfVersions(ctx context.Context, fn *faas.Function, before, limit int) (api.Versions, error) {
	// Ask for one more, to know whether there is a next page.
	versions, err := s.registry.Versions(ctx, fn, before, limit+1)
	page := api.Versions{Versions: append([]*faas.Version{}, versions...)}
	if len(versions) > limit {
		page.Versions = page.Versions[:limit]
		next := strconv.Itoa(versions[limit-1].Number)
		page.Next = &next
	}
	return page, err
}

// listFor is Registry.List for the functions that a caller may read. Nothing shows that
// another function exists, not even its ID as the value of after.
func (s *functions) listFor(ctx context.Context, who faas.Caller, prefix, after string, limit int) ([]*faas.Function, error) {
	if who.May(faas.ScopeRead, nil) {
		return s.registry.List(ctx, prefix, after, limit)
	}
	functions, err := visible(ctx, s.registry, who)
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
	functions = slices.DeleteFunc(functions, func(fn *faas.Function) bool { return !strings.HasPrefix(fn.Name, prefix) })
	return functions[:min(limit, len(functions))], nil
}

// list answers GET /api/functions: a page of the functions that the caller may read and
// whose names begin with ?name=.
func (s *functions) list(w http.ResponseWriter, r *http.Request, q asked) error {
	after, limit, err := readPage(q.query)
	if err != nil {
		return err
	}
	// Ask for one more, to know whether there is a next page.
	functions, err := s.listFor(r.Context(), q.who, q.query["name"], after, limit+1)
	if err != nil {
		return err
	}
	page := api.Functions{Functions: []api.Function{}}
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

// get answers GET /api/functions/REF.
func (s *functions) get(w http.ResponseWriter, r *http.Request, q asked) error {
	fn, version, err := s.registry.Resolve(r.Context(), q.ref)
	if err != nil {
		return err
	}
	page, err := s.pageOfVersions(r.Context(), fn, 0, shownVersions)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, api.ShownFunction{Function: document(fn, version), Versions: page.Versions, Next: page.Next})
}

// versions answers GET /api/functions/REF/versions with a page of versions.
func (s *functions) versions(w http.ResponseWriter, r *http.Request, q asked) error {
	after, limit, err := readPage(q.query)
	if err != nil {
		return err
	}
	before := 0
	if after != "" {
		if before, err = strconv.Atoi(after); err != nil || before < 1 {
			return faas.Errorf(faas.CodeBadRequest, "after is the number of a version; the list goes on with older ones")
		}
	}
	if !q.ref.Bare() {
		return faas.Errorf(faas.CodeBadRequest, "the versions are those of a whole function: use /api/functions/%s/versions", q.ref.ID+q.ref.Name)
	}
	fn, _, err := s.registry.Resolve(r.Context(), q.ref)
	if err != nil {
		return err
	}
	page, err := s.pageOfVersions(r.Context(), fn, before, limit)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, page)
}

// put answers PUT /api/functions/REF. It creates a function by name, or adds a version
// to one unless the live version is the same already.
func (s *functions) put(w http.ResponseWriter, r *http.Request, q asked) error {
	name, draft, err := s.bodies.readDraft(w, r)
	if err != nil {
		return err
	}
	if name != "" && name != q.ref.Name {
		return faas.Errorf(faas.CodeBadRequest, "the path names the function: leave name=%.80s out, or PATCH /api/functions/%s?name=%[1]s to rename it", name, q.ref.ID+q.ref.Name)
	}
	fn, change, err := s.registry.Put(r.Context(), q.ref, draft)
	if err != nil {
		return err
	}
	about(q.entry, fn)
	status := http.StatusOK
	if change == faas.Created {
		status = http.StatusCreated
	}
	w.Header().Set("Location", "/api/functions/"+fn.ID)
	// gofail: var answerPut struct{}
	return answer(w, status, api.ChangedFunction{Function: document(fn, fn.Live()), Changed: change != faas.Unchanged})
}

// patch answers PATCH /api/functions/REF. Changed settings become a new version; a name
// renames the function.
func (s *functions) patch(w http.ResponseWriter, r *http.Request, q asked) error {
	name, settings, err := s.bodies.readPatch(w, r)
	if err != nil {
		return err
	}
	var fn *faas.Function
	var change faas.Change
	if name != "" {
		q.entry.Action, q.entry.Name = "function.rename", name
		fn, change, err = s.registry.Rename(r.Context(), q.ref, name)
	} else {
		fn, change, err = s.registry.Patch(r.Context(), q.ref, settings)
	}
	if err != nil {
		return err
	}
	about(q.entry, fn)
	// gofail: var answerPatch struct{}
	return answer(w, http.StatusOK, api.ChangedFunction{Function: document(fn, fn.Live()), Changed: change != faas.Unchanged})
}

// delete answers DELETE /api/functions/REF.
func (s *functions) delete(w http.ResponseWriter, r *http.Request, q asked) error {
	if fn, _, err := s.registry.Resolve(r.Context(), q.ref); err == nil {
		about(q.entry, fn) // it cannot be looked up afterwards; Delete reports if it does not exist
	}
	if err := s.registry.Delete(r.Context(), q.ref); err != nil {
		return err
	}
	// gofail: var answerDelete struct{}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

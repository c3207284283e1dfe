package httpapi

import (
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/flockofbirds/fob/internal/faas"
)

// handler answers a request that was let in, or returns an error.
type handler func(w http.ResponseWriter, r *http.Request, q asked) error

// asked is what a handler is told of a request besides the request itself.
type asked struct {
	who   faas.Caller
	ref   faas.Ref          // of a path that has one
	query map[string]string // those of the route's parameters that are given
	entry *faas.AuditEntry  // for what is done, and to what; nil where nothing changes
}

// serve returns what a request to a route goes through: the guard, the audit log
// and the backend's part, as the route's row says, and then its handler. number
// is the row's.
func (a *API) serve(number int, rt Route) http.HandlerFunc {
	hasRef := strings.Contains(rt.Path, "{ref}")
	parsed := rt.Query != nil && !rt.Settings // else by the handler
	answer := func(w http.ResponseWriter, r *http.Request, o *opened, q asked) (err error) {
		if err = o.lacks(rt.Needs); err != nil {
			return err
		}
		if hasRef {
			if q.ref, err = refOf(r); err != nil {
				return err
			}
		}
		if e := q.entry; e != nil && hasRef {
			e.ID, e.Name = q.ref.ID, q.ref.Name
		} else if e != nil {
			e.ID, e.Name = chi.URLParam(r, "id"), chi.URLParam(r, "name")
		}
		if parsed {
			if q.query, err = readParameters(r.URL.RawQuery, rt.Query...); err != nil {
				return err
			}
		}
		return o.routes[number].handle(w, r, q)
	}
	return func(w http.ResponseWriter, r *http.Request) {
		o := a.opened.Load()
		who, refused := a.guard.admit(o, r, &rt)
		err := refused
		switch {
		case refused != nil:
		case rt.Action == "":
			err = answer(w, r, o, asked{who: who})
		default:
			err = a.audited(rt.Action, w, by(r, who), func(c *change) error {
				return answer(c, c.request, o, asked{who: who, entry: &c.entry})
			})
		}
		if err == nil {
			return
		}
		r = by(r, who)
		if rt.Scope == faas.ScopeInvoke && w.Header()["X-Call-Id"] == nil {
			markCall(w.Header(), r)
		}
		if refused != nil && faas.CodeOf(err) == faas.CodeUnknownFunction { // which problem does not know to be a refusal
			a.refused(w, r, faas.CodeUnknownFunction)
		}
		a.problem(w, r, err)
	}
}

// anyone returns what a request goes through that is for no route: it is answered
// as often as an address may ask.
func (a *API) anyone(why func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, err := a.guard.admit(nil, r, &Route{})
		if err == nil {
			err = why(w, r)
		}
		a.problem(w, r, err)
	}
}

package httpapi

import (
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/flockofbirds/fob/internal/faas"
)

// A handler answers a request that was let in, or returns an error.
type handler func(w http.ResponseWriter, r *http.Request, q asked) error

// asked is what a handler gets besides the request.
type asked struct {
	who   faas.Caller
	ref   faas.Ref          // of the path, if it has one
	query map[string]string // the route's parameters that were given
	entry *faas.AuditEntry  // to be completed with what is changed; nil if the route changes nothing
}

// serve returns the handler of a route. It passes a request through the guard, the
// audit log and the check for the backend, as the route says, and then to the route's
// own handler. number is the route's index.
func (a *API) serve(number int, rt Route) http.HandlerFunc {
	hasRef := strings.Contains(rt.Path, "{ref}")
	parsed := rt.Query != nil && !rt.Settings // otherwise the handler parses it
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
		if refused != nil && faas.CodeOf(err) == faas.CodeUnknownFunction { // problem cannot tell that it is a refusal
			a.refused(w, r, faas.CodeUnknownFunction)
		}
		a.problem(w, r, err)
	}
}

// anyone returns a handler for requests that match no route. It counts them towards the
// limit of their address.
func (a *API) anyone(why func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, err := a.guard.admit(nil, r, &Route{})
		if err == nil {
			err = why(w, r)
		}
		a.problem(w, r, err)
	}
}

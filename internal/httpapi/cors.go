package httpapi

import (
	"net/http"
	"strings"

	"github.com/flockofbirds/fob/internal/faas"
)

// What pages of other sites may send and read, if a function lets them call it (CORS).
// Credentials are not among it, so a browser does not send any by itself.
const (
	corsMethods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
	corsHeaders = "Authorization, Content-Type, Fob-Timeout, X-Call-Id, Traceparent"
	corsExposed = "X-Call-Id, Fob-Version, Server-Timing, Traceparent, Fob-Error, Retry-After"
	corsMaxAge  = "600" // for how many seconds a browser need not ask again
)

// crossSite refuses a request that another site's page made a browser send, or may
// have, unless the called function allows that page. It reports whether the request may
// go on. The refusal is the same whether or not the function exists.
func (a *API) crossSite(w http.ResponseWriter, r *http.Request, origins []string) bool {
	preflight := r.Method == http.MethodOptions && r.Header["Access-Control-Request-Method"] != nil
	if ref, is := calledRef(r); is {
		o := a.opened.Load()
		if err := o.lacks(Dispatcher); err != nil { // so that nothing runs
			a.turnAway(w, r, err)
			return false
		}
		origin := strings.Join(origins, ", ") // several are never allowed
		fn, _, err := o.Registry.Resolve(r.Context(), faas.Ref{ID: ref.ID, Name: ref.Name})
		if err == nil && fn.Live().Settings.CORS.Allows(origin) {
			allowOrigin(w.Header(), fn.Live().Settings.CORS, origin)
			if !preflight {
				return true
			}
			if err := a.guard.addresses.allow(addressOf(r), "from your address"); err != nil {
				a.problem(w, r, err)
				return false
			}
			h := w.Header()
			h.Set("Access-Control-Allow-Methods", corsMethods)
			h.Set("Access-Control-Allow-Headers", corsHeaders)
			h.Set("Access-Control-Max-Age", corsMaxAge)
			w.WriteHeader(http.StatusNoContent)
			return false
		}
	}
	a.turnAway(w, r, faas.Errorf(faas.CodeCrossSite, "a page of another site made this request; such a page may only call functions whose setting cors lists its origin"))
	return false
}

// allowOrigin lets the page that made the request read its answer.
func allowOrigin(h http.Header, cors faas.Origins, origin string) {
	h["Vary"] = []string{"Origin"}
	if origin == "" {
		return // the page does not want to read it
	}
	if cors == faas.AnyOrigin {
		origin = "*"
	}
	h["Access-Control-Allow-Origin"] = []string{origin}
	h["Access-Control-Expose-Headers"] = []string{corsExposed}
}

// calledRef returns the ref that a request calls, if it is a call.
func calledRef(r *http.Request) (ref faas.Ref, is bool) {
	if _, _, is := cutCall(r.URL); !is {
		return ref, false
	}
	ref, err := refOf(r)
	return ref, err == nil
}

package httpapi

import (
	"context"
	"net/http"
	"strings"

	"github.com/flockofbirds/fob/internal/faas"
)

// access is what a route asks of whoever calls it.
type access struct {
	scope     faas.Scope
	span      span
	sandboxes bool // also a sandbox may, with its own token: the handler sees to what
	standby   bool // open on standby, where it tells nothing of functions
}

// span is which functions somebody must hold the scope for.
type span int

const (
	forAll  span = iota // all of them
	forOne              // the one that the path names; it is said to be missing when not
	forSome             // any: the handler sees to it which
)

// handler answers a request of somebody who was let in, or returns an error.
type handler func(w http.ResponseWriter, r *http.Request, who faas.Caller) error

// guard makes a handler of one for which access is needed.
func (a *API) guard(need access, h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		who, err := a.admit(r, need)
		if err == nil {
			err = h(w, r, who)
		} else {
			if need.scope == faas.ScopeInvoke {
				markCall(w.Header(), r)
			}
			if faas.CodeOf(err) == faas.CodeUnknownFunction { // which problem does not know to be a refusal
				a.refused(w, by(r, who), faas.CodeUnknownFunction)
			}
		}
		if err != nil {
			a.problem(w, by(r, who), err)
		}
	}
}

// anyone makes a handler of one that everybody may call, as often as an address
// may.
func (a *API) anyone(h func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return a.handle(func(w http.ResponseWriter, r *http.Request) error {
		if callerOf(r).Kind != faas.CallerLocal {
			if err := a.addresses.allow(addressOf(r), "from your address"); err != nil {
				return err
			}
		}
		return h(w, r)
	})
}

// markCall sets the headers that every answer to a call has, for a call that
// ends before it began.
func markCall(h http.Header, r *http.Request) {
	id, trace := identify(r)
	timing, _ := sizes(faas.Timing{}, -1)
	h.Set("X-Call-Id", id)
	h.Set("Traceparent", trace)
	h.Set("Server-Timing", timing)
}

// admit says who makes a request, or why it is refused. It is on the way of every
// call, and looks at functions only for those who may not do everything.
func (a *API) admit(r *http.Request, need access) (faas.Caller, error) {
	secret := bearer(r.Header)
	if who := callerOf(r); who.Kind == faas.CallerLocal {
		return who, nil
	}
	if a.addresses != nil {
		if err := a.addresses.allow(addressOf(r), "from your address"); err != nil {
			return faas.Caller{}, err
		}
	}
	backend, err := a.open()
	if err != nil {
		if need.standby && faas.CodeOf(err) == faas.CodeStandby {
			err = nil
		}
		return faas.Caller{}, err // who may do what is not known yet
	}
	if !backend.Tokens.Required() {
		return faas.Caller{Kind: faas.CallerTrusted}, nil
	}
	token := backend.Tokens.Find(secret)
	if token == nil {
		return a.admitStranger(r, backend, need, secret)
	}
	who := faas.Caller{Kind: faas.CallerToken, Token: token}
	if a.tokens != nil {
		if err := a.tokens.allow(token.ID, "with this token"); err != nil {
			return who, err
		}
	}
	switch {
	case token.May(need.scope, nil) || need.span == forSome && token.MaySome(need.scope):
		return who, nil
	case need.span == forOne:
		return who, a.admitToOne(r, backend, need, token)
	}
	return who, forbidden(need.scope)
}

// admitStranger lets in, without a token of ours, whoever calls a public
// function, and a sandbox where these may come. Everybody else hears the same,
// whatever there is behind the path.
func (a *API) admitStranger(r *http.Request, backend *Backend, need access, secret string) (faas.Caller, error) {
	if need.scope == faas.ScopeInvoke && need.span == forOne {
		if _, fn, err := a.function(r, backend); err == nil && isPublic(fn) {
			return faas.Caller{Kind: faas.CallerStranger}, nil
		}
	}
	if need.sandboxes && secret != "" && !strings.HasPrefix(secret, faas.TokenPrefix) {
		if id, holds, ok := backend.Locator.Holder(r.Context(), secret); ok {
			return faas.Caller{Kind: faas.CallerSandbox, Sandbox: id, Holds: holds}, nil
		}
	}
	return faas.Caller{}, a.unauthorized(r, need.scope)
}

// admitToOne decides about a token that holds its grants for some functions. One
// that it does not hold any for is missing, as far as it goes.
func (a *API) admitToOne(r *http.Request, backend *Backend, need access, token *faas.Token) error {
	ref, fn, err := a.function(r, backend)
	switch {
	case need.scope == faas.ScopeInvoke && isPublic(fn):
		return nil
	case !token.MaySome(need.scope):
		return forbidden(need.scope)
	case err != nil:
		return err
	case fn == nil:
		fn = &faas.Function{ID: ref.ID, Name: ref.Name} // which it may be allowed to make
	}
	if !token.May(need.scope, fn) {
		return faas.UnknownFunction(ref)
	}
	return nil
}

// function finds the function that the path names; fn is nil when there is none.
func (a *API) function(r *http.Request, backend *Backend) (ref faas.Ref, fn *faas.Function, err error) {
	if ref, err = refOf(r); err != nil {
		return ref, nil, err
	}
	fn, _, err = backend.Registry.Resolve(r.Context(), faas.Ref{ID: ref.ID, Name: ref.Name})
	if faas.CodeOf(err) == faas.CodeUnknownFunction {
		return ref, nil, nil
	}
	return ref, fn, err
}

func isPublic(fn *faas.Function) bool { return fn != nil && fn.Live().Settings.Public }

// unauthorized refuses a request with no good token, and counts it. What it says
// depends on the route alone, and not on what there is.
func (a *API) unauthorized(r *http.Request, scope faas.Scope) error {
	if err := a.failures.allow(addressOf(r), "without a good token from your address"); err != nil {
		return err
	}
	return faas.Errorf(faas.CodeUnauthorized, "this needs a token that there is, and that has not expired: send it as Authorization: Bearer fob_…; "+
		"dispatcher token create NAME --grant %s makes one", scope)
}

// visible returns the functions that a caller may read, in order of creation.
func visible(ctx context.Context, registry faas.Registry, who faas.Caller) ([]*faas.Function, error) {
	ids, err := registry.IDs(ctx)
	if err != nil {
		return nil, err
	}
	var functions []*faas.Function
	for _, id := range ids {
		fn, _, err := registry.Resolve(ctx, faas.Ref{ID: id})
		switch {
		case faas.CodeOf(err) == faas.CodeUnknownFunction: // deleted meanwhile
		case err != nil:
			return nil, err
		case who.May(faas.ScopeRead, fn):
			functions = append(functions, fn)
		}
	}
	return functions, nil
}

func forbidden(scope faas.Scope) error {
	return faas.Errorf(faas.CodeForbidden, "your token does not allow this: it takes one with the grant %s, which dispatcher token create NAME --grant %[1]s makes", scope)
}

// bearer returns the bearer token that a request shows, or "" when it shows none
// or several. A header with one of ours anywhere in it, also where we do not look
// for it, is dropped, so that no function ever gets to see it; anything else
// stays, for a function may do its own authentication.
func bearer(h http.Header) (secret string) {
	values := h["Authorization"]
	if len(values) == 0 {
		return ""
	}
	for _, value := range values {
		if strings.Contains(value, faas.TokenPrefix) {
			delete(h, "Authorization")
		}
		if scheme, rest, _ := strings.Cut(value, " "); strings.EqualFold(scheme, "Bearer") {
			secret = strings.Trim(rest, " \t")
		}
	}
	if len(values) > 1 {
		return ""
	}
	return secret
}

// by notes who makes a request.
func by(r *http.Request, who faas.Caller) *http.Request {
	return r.WithContext(faas.WithCaller(r.Context(), who))
}

// callerOf is who makes a request, as it was noted; else it is a stranger.
func callerOf(r *http.Request) faas.Caller { return faas.CallerOf(r.Context()) }

// Local returns the handler for the dispatcher's owner, who has come over the
// control socket: everything is allowed there, at any rate.
func (a *API) Local() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		takeForwarded(r.Header)
		a.route(w, by(r, faas.Caller{Kind: faas.CallerLocal}))
	})
}

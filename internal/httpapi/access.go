package httpapi

import (
	"context"
	"net/http"
	"net/netip"
	"strings"

	"github.com/flockofbirds/fob/internal/faas"
)

// guard decides who may come in.
type guard struct {
	tokens    *limits[string]     // by ID; nil for no limit
	addresses *limits[netip.Addr] // nil for no limit
	failures  *limits[netip.Addr] // of those that show no good token
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

// admit says who makes a request to a route, or why it is refused. It is on the
// way of every call, and looks at functions only for those who may not do
// everything.
func (g *guard) admit(o *opened, r *http.Request, rt *Route) (faas.Caller, error) {
	secret := bearer(r.Header)
	if who := callerOf(r); who.Kind == faas.CallerLocal || rt.Unlimited {
		return who, nil
	}
	if g.addresses != nil {
		if err := g.addresses.allow(addressOf(r), "from your address"); err != nil {
			return faas.Caller{}, err
		}
	}
	if rt.Scope == "" {
		return faas.Caller{}, nil
	}
	if err := o.lacks(Dispatcher); err != nil {
		if rt.Standby && faas.CodeOf(err) == faas.CodeStandby {
			err = nil
		}
		return faas.Caller{}, err // who may do what is not known yet
	}
	if !o.Tokens.Required() {
		return faas.Caller{Kind: faas.CallerTrusted}, nil
	}
	token := o.Tokens.Find(secret)
	if token == nil {
		return g.admitStranger(o, r, rt, secret)
	}
	who := faas.Caller{Kind: faas.CallerToken, Token: token}
	if g.tokens != nil {
		if err := g.tokens.allow(token.ID, "with this token"); err != nil {
			return who, err
		}
	}
	switch {
	case token.May(rt.Scope, nil) || (rt.Span == Listed || rt.Span == Named) && token.MaySome(rt.Scope):
		return who, nil
	case rt.Span == ForOne:
		return who, g.admitToOne(o, r, rt, token)
	}
	return who, forbidden(rt.Scope)
}

// admitStranger lets in, without a token of ours, whoever calls a public
// function, and a sandbox where these may come. Everybody else hears the same,
// whatever there is behind the path.
func (g *guard) admitStranger(o *opened, r *http.Request, rt *Route, secret string) (faas.Caller, error) {
	if rt.Scope == faas.ScopeInvoke && rt.Span == ForOne {
		if _, fn, err := o.function(r); err == nil && isPublic(fn) {
			return faas.Caller{Kind: faas.CallerStranger}, nil
		}
	}
	if rt.Sandboxes && secret != "" && !strings.HasPrefix(secret, faas.TokenPrefix) {
		if id, holds, ok := o.Locator.Holder(r.Context(), secret); ok {
			return faas.Caller{Kind: faas.CallerSandbox, Sandbox: id, Holds: holds}, nil
		}
	}
	return faas.Caller{}, g.unauthorized(r, rt.Scope)
}

// admitToOne decides about a token that holds its grants for some functions. One
// that it does not hold any for is missing, as far as it goes.
func (g *guard) admitToOne(o *opened, r *http.Request, rt *Route, token *faas.Token) error {
	ref, fn, err := o.function(r)
	switch {
	case rt.Scope == faas.ScopeInvoke && isPublic(fn):
		return nil
	case !token.MaySome(rt.Scope):
		return forbidden(rt.Scope)
	case err != nil:
		return err
	case fn == nil:
		fn = &faas.Function{ID: ref.ID, Name: ref.Name} // which it may be allowed to make
	}
	if !token.May(rt.Scope, fn) {
		return faas.UnknownFunction(ref)
	}
	return nil
}

// function finds the function that the path names; fn is nil when there is none.
func (o *opened) function(r *http.Request) (ref faas.Ref, fn *faas.Function, err error) {
	if ref, err = refOf(r); err != nil {
		return ref, nil, err
	}
	fn, _, err = o.Registry.Resolve(r.Context(), faas.Ref{ID: ref.ID, Name: ref.Name})
	if faas.CodeOf(err) == faas.CodeUnknownFunction {
		return ref, nil, nil
	}
	return ref, fn, err
}

func isPublic(fn *faas.Function) bool { return fn != nil && fn.Live().Settings.Public }

// unauthorized refuses a request with no good token, and counts it. What it says
// depends on the route alone, and not on what there is.
func (g *guard) unauthorized(r *http.Request, scope faas.Scope) error {
	if err := g.failures.allow(addressOf(r), "without a good token from your address"); err != nil {
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

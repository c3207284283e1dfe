package httpapi

import (
	"context"
	"net/http"
	"net/netip"
	"strings"

	"github.com/flockofbirds/fob/internal/faas"
)

// guard decides who may make which request.
type guard struct {
	tokens    *limits[string]     // by token ID; nil for no limit
	addresses *limits[netip.Addr] // nil for no limit
	failures  *limits[netip.Addr] // of requests without a good token
}

// markCall sets the headers that every answer to a call has, for a call that is refused
// before it began.
func markCall(h http.Header, r *http.Request) {
	id := identify(r)
	timing, _ := sizes(faas.Timing{}, -1)
	h.Set("X-Call-Id", id.call)
	h.Set("Traceparent", id.traceparent)
	h.Set("Server-Timing", timing)
}

// admit returns who makes a request to a route, or why the request is refused. Every
// call goes through it. It looks functions up only for callers who may not do
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
		return faas.Caller{}, err // it is not known yet who may do what
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

// admitStranger admits two kinds of callers without a token of ours: callers of a
// public function, and sandboxes on routes for them. All others get the same refusal,
// whatever the path names.
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

// admitToOne decides about a token that has its grants for some functions. A function
// for which it has none seems not to exist.
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
		fn = &faas.Function{ID: ref.ID, Name: ref.Name} // the token may be allowed to create it
	}
	if !token.May(rt.Scope, fn) {
		return faas.UnknownFunction(ref)
	}
	return nil
}

// function looks up the function that the path names. fn is nil if there is none.
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

// unauthorized refuses a request without a good token, and counts it. What it says
// depends only on the route, not on what exists.
func (g *guard) unauthorized(r *http.Request, scope faas.Scope) error {
	if err := g.failures.allow(addressOf(r), "without a good token from your address"); err != nil {
		return err
	}
	return faas.Errorf(faas.CodeUnauthorized, "this needs a token that exists and has not expired: send it as Authorization: Bearer fob_…; "+
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
		case faas.CodeOf(err) == faas.CodeUnknownFunction: // it was deleted meanwhile
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

// bearer returns the bearer token that a request shows, or "" if it shows none or
// several. It removes every header that has one of our tokens anywhere in it, so that
// no function ever sees one. Other headers stay, because a function may do its own
// authentication.
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

// by stores in a request who makes it.
func by(r *http.Request, who faas.Caller) *http.Request {
	return r.WithContext(faas.WithCaller(r.Context(), who))
}

// callerOf returns who makes a request: the caller that by stored, or a stranger.
func callerOf(r *http.Request) faas.Caller { return faas.CallerOf(r.Context()) }

package faas

import (
	"context"
	"slices"
	"strings"
	"time"
)

// Scope is a kind of thing that one may do.
type Scope string

// The scopes. But for admin, which includes every other, none includes another.
const (
	ScopeAdmin  Scope = "admin"
	ScopeDeploy Scope = "deploy" // register, change and delete functions
	ScopeRead   Scope = "read"   // see them, their code and where they run
	ScopeInvoke Scope = "invoke" // call them
)

// Scopes lists the scopes.
func Scopes() []Scope { return []Scope{ScopeAdmin, ScopeDeploy, ScopeRead, ScopeInvoke} }

// Grant allows a scope for all functions or for one. Its text, also in JSON, is
// "read" or "read:hello".
type Grant struct {
	Scope    Scope
	Function string // a name or an ID; empty for all functions
}

// ParseGrant reads a grant. What is none is CodeBadRequest.
func ParseGrant(text string) (Grant, error) {
	scope, name, one := strings.Cut(text, ":")
	g := Grant{Scope: Scope(scope)}
	if !slices.Contains(Scopes(), g.Scope) {
		return Grant{}, Errorf(CodeBadRequest, "%q is no grant: give one of %v, or one for a single function, such as invoke:hello", clip(text, 80), Scopes())
	}
	if !one {
		return g, nil
	}
	ref, err := ParseRef(name)
	if err != nil || !ref.Bare() {
		return Grant{}, Errorf(CodeBadRequest, "%q is no grant: behind the colon comes the name or the ID of a function, and no version or alias", clip(text, 80))
	}
	g.Function = ref.ID + ref.Name
	return g, nil
}

// String returns the grant's text.
func (g Grant) String() string {
	if g.Function == "" {
		return string(g.Scope)
	}
	return string(g.Scope) + ":" + g.Function
}

// MarshalText implements encoding.TextMarshaler.
func (g Grant) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (g *Grant) UnmarshalText(text []byte) (err error) {
	*g, err = ParseGrant(string(text))
	return err
}

// Token is what somebody may do who shows the secret that belongs to it. It is
// immutable.
type Token struct {
	ID      string    `json:"id"` // 16 hexadecimal digits; no secret
	Name    string    `json:"name"`
	Grants  []Grant   `json:"grants"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // a date of the wall clock; zero is never
}

// Expired reports whether the token was no longer good at that time.
func (t *Token) Expired(now time.Time) bool { return !t.Expires.IsZero() && !now.Before(t.Expires) }

// May reports whether the token allows a scope for a function, or for all
// functions when fn is nil. Of one that is yet to be made, fn has only the name.
func (t *Token) May(scope Scope, fn *Function) bool {
	for i := range t.Grants {
		g := &t.Grants[i]
		if g.Scope != scope && g.Scope != ScopeAdmin {
			continue
		}
		// No name looks like an ID, so one is never taken for the other.
		if g.Function == "" || fn != nil && (g.Function == fn.ID || g.Function == fn.Name) {
			return true
		}
	}
	return false
}

// MaySome reports whether the token allows a scope for any function at all,
// whether that function exists or not.
func (t *Token) MaySome(scope Scope) bool {
	return slices.ContainsFunc(t.Grants, func(g Grant) bool { return g.Scope == scope || g.Scope == ScopeAdmin })
}

// CheckToken says what is wrong with what a token is to be, or nil.
func CheckToken(name string, grants []Grant, expires, now time.Time) error {
	const maxGrants = 100
	switch {
	case !namePattern.MatchString(name):
		return Errorf(CodeBadRequest, "%q is no name for a token: use 1 to 63 letters, digits, - and _, beginning with a letter or digit", clip(name, 80))
	case len(grants) == 0:
		return Errorf(CodeBadRequest, "the token is granted nothing: give one or more of %v, for all functions or as in invoke:hello", Scopes())
	case len(grants) > maxGrants:
		return Errorf(CodeBadRequest, "a token has up to %d grants, not %d", maxGrants, len(grants))
	case !expires.IsZero() && !expires.After(now):
		return Errorf(CodeBadRequest, "the token would have expired already: give a time to come, or a duration such as 720h")
	}
	for _, g := range grants {
		if _, err := ParseGrant(g.String()); err != nil { // as of a null in JSON
			return err
		}
	}
	return nil
}

// Caller is who makes a request.
type Caller struct {
	Kind    CallerKind
	Token   *Token     // of CallerToken
	Sandbox string     // its ID, of CallerSandbox
	Holds   VersionKey // what that sandbox was loaded with
}

// CallerKind is how somebody was let in.
type CallerKind int

// The kinds of callers.
const (
	CallerStranger CallerKind = iota // showed nothing, and may do what everybody may
	CallerTrusted                    // showed nothing, and may do everything, for there is no token yet
	CallerLocal                      // came over the control socket, and may do everything
	CallerToken
	CallerSandbox // showed a sandbox's own token
)

// May is what Token.May is for a token.
func (c *Caller) May(scope Scope, fn *Function) bool {
	switch c.Kind {
	case CallerTrusted, CallerLocal:
		return true
	case CallerToken:
		return c.Token.May(scope, fn)
	}
	return false
}

// ForSomeOnly reports whether the caller holds the scope for functions that its
// token names, and for no others.
func (c *Caller) ForSomeOnly(scope Scope) bool {
	return c.Kind == CallerToken && !c.Token.May(scope, nil)
}

// callerKey is the key of a context under which the caller is.
type callerKey struct{}

// WithCaller returns a context that says for whom something is done.
func WithCaller(ctx context.Context, who Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, who)
}

// CallerOf returns for whom something is done, or a stranger when the context
// does not say.
func CallerOf(ctx context.Context) Caller {
	who, _ := ctx.Value(callerKey{}).(Caller)
	return who
}

// String tells who it is, for logs: nothing in it is secret or needs escaping.
func (c *Caller) String() string {
	switch c.Kind {
	case CallerLocal:
		return "local"
	case CallerToken:
		return "token " + c.Token.ID + " (" + c.Token.Name + ")"
	case CallerSandbox:
		return "sandbox " + c.Sandbox
	}
	return "anonymous"
}

// Tokens is who may do what. Errors are (or wrap) *Error.
type Tokens interface {
	// Required reports whether a token must be shown. That is so from the
	// first one that is made, even when it has expired, until the last one is
	// revoked.
	Required() bool

	// Find returns the token that a text is the secret of, or nil when there
	// is none, or it has expired.
	Find(secret string) *Token

	// Create makes a token. The secret is not to be had again. A zero expires
	// is never.
	Create(ctx context.Context, name string, grants []Grant, expires time.Time) (token *Token, secret string, err error)

	// List returns all tokens, expired ones included, in order of creation.
	List(ctx context.Context) ([]*Token, error)

	// Revoke ends a token. An unknown ID is CodeUnknownToken. It fails with
	// CodeLastToken where nobody would need one any more who should.
	Revoke(ctx context.Context, id string) error
}

// TokenPrefix is how the secret of every token begins, so that one can be told
// from what others put into an Authorization header.
const TokenPrefix = "fob_"

// StoredToken is a token as it is kept: of its secret there is only the SHA-256.
type StoredToken struct {
	Token
	Hash [32]byte
}

// TokenStore keeps tokens. Every change is synced to disk before it returns.
type TokenStore interface {
	// Tokens returns all tokens in order of creation.
	Tokens(ctx context.Context) ([]*StoredToken, error)

	// CreateToken stores a new token. It fails with CodeConflict when there
	// is one with its ID.
	CreateToken(ctx context.Context, token *StoredToken) error

	// DeleteToken removes a token; one that is not there is no error.
	DeleteToken(ctx context.Context, id string) error
}

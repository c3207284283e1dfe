package faas

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Scope is a kind of action that a token may allow.
type Scope string

// The scopes. ScopeAdmin includes the others; the others do not include one another.
const (
	ScopeAdmin  Scope = "admin"
	ScopeDeploy Scope = "deploy" // register, change and delete functions
	ScopeRead   Scope = "read"   // see them, their code and where they run
	ScopeInvoke Scope = "invoke" // call them
)

// Scopes lists the scopes.
func Scopes() []Scope { return []Scope{ScopeAdmin, ScopeDeploy, ScopeRead, ScopeInvoke} }

// Grant allows a scope for all functions or for one. As text, and in JSON, it is "read"
// or "read:hello".
type Grant struct {
	Scope    Scope
	Function string // a name or an ID; empty for all functions
}

// ParseGrant reads a grant. It fails with CodeBadRequest if text is not one.
func ParseGrant(text string) (Grant, error) {
	scope, name, one := strings.Cut(text, ":")
	g := Grant{Scope: Scope(scope)}
	if !slices.Contains(Scopes(), g.Scope) {
		return Grant{}, Errorf(CodeBadRequest, "%q is not a grant: give one of %v, or one for a single function, such as invoke:hello", clip(text, 80), Scopes())
	}
	if !one {
		return g, nil
	}
	ref, err := ParseRef(name)
	if err != nil || !ref.Bare() {
		return Grant{}, Errorf(CodeBadRequest, "%q is not a grant: after the colon comes the name or ID of a function, without a version or alias", clip(text, 80))
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

// Token says what its bearer may do. Whoever shows the token's secret is its bearer. It
// is immutable.
type Token struct {
	ID      string    `json:"id"` // 16 hexadecimal digits; not secret
	Name    string    `json:"name"`
	Grants  []Grant   `json:"grants"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // by the wall clock; zero for never
}

// Expired reports whether the token has expired at the time now.
func (t *Token) Expired(now time.Time) bool { return !t.Expires.IsZero() && !now.Before(t.Expires) }

// May reports whether the token allows a scope for a function, or for all functions if
// fn is nil. A function that is about to be created has only its name in fn.
func (t *Token) May(scope Scope, fn *Function) bool {
	for i := range t.Grants {
		g := &t.Grants[i]
		if g.Scope != scope && g.Scope != ScopeAdmin {
			continue
		}
		// A name never looks like an ID, so the two cannot be confused.
		if g.Function == "" || fn != nil && (g.Function == fn.ID || g.Function == fn.Name) {
			return true
		}
	}
	return false
}

// MaySome reports whether the token allows a scope for any function, whether or not
// that function exists.
func (t *Token) MaySome(scope Scope) bool {
	return slices.ContainsFunc(t.Grants, func(g Grant) bool { return g.Scope == scope || g.Scope == ScopeAdmin })
}

// CheckToken returns what is wrong with the description of a new token, or nil.
func CheckToken(name string, grants []Grant, expires, now time.Time) error {
	const maxGrants = 100
	switch {
	case !namePattern.MatchString(name):
		return Errorf(CodeBadRequest, "%q is not a name for a token: use 1 to 63 letters, digits, - and _, beginning with a letter or digit", clip(name, 80))
	case len(grants) == 0:
		return Errorf(CodeBadRequest, "the token is granted nothing: give one or more of %v, for all functions or as in invoke:hello", Scopes())
	case len(grants) > maxGrants:
		return Errorf(CodeBadRequest, "a token has up to %d grants, not %d", maxGrants, len(grants))
	case !expires.IsZero() && !expires.After(now):
		return Errorf(CodeBadRequest, "the token would have expired already: give a time in the future, or a duration such as 720h")
	}
	for _, g := range grants {
		if _, err := ParseGrant(g.String()); err != nil { // JSON null makes an empty one
			return err
		}
	}
	return nil
}

// Caller is who makes a request.
type Caller struct {
	Kind    CallerKind
	Token   *Token     // of a CallerToken
	Sandbox string     // ID of a CallerSandbox
	Holds   VersionKey // what that sandbox has loaded
}

// CallerKind says how a caller was let in.
type CallerKind int

// The kinds of callers.
const (
	CallerStranger CallerKind = iota // showed no token, and may do what everybody may
	CallerTrusted                    // showed no token, and may do everything, because no token exists yet
	CallerLocal                      // came over the control socket, and may do everything
	CallerToken
	CallerSandbox // showed a sandbox's token
)

// May is like Token.May.
func (c *Caller) May(scope Scope, fn *Function) bool {
	switch c.Kind {
	case CallerTrusted, CallerLocal:
		return true
	case CallerToken:
		return c.Token.May(scope, fn)
	}
	return false
}

// ForSomeOnly reports whether the caller has the scope for functions that its token
// names, and for no others.
func (c *Caller) ForSomeOnly(scope Scope) bool {
	return c.Kind == CallerToken && !c.Token.May(scope, nil)
}

// callerKey is the context key of the caller.
type callerKey struct{}

// WithCaller returns a context that tells on whose behalf something is done.
func WithCaller(ctx context.Context, who Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, who)
}

// CallerOf returns the caller that the context tells, or a stranger if it tells none.
func CallerOf(ctx context.Context) Caller {
	who, _ := ctx.Value(callerKey{}).(Caller)
	return who
}

// String describes the caller for logs. The text holds no secret and needs no escaping.
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

// MarshalText implements encoding.TextMarshaler: it is String.
func (c Caller) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler: it reads who String names. The
// grants of a token are not in the text, so it reads a token without any.
func (c *Caller) UnmarshalText(text []byte) error {
	kind, name, _ := strings.Cut(string(text), " ")
	switch kind {
	case "local":
		*c = Caller{Kind: CallerLocal}
	case "token":
		id, name, _ := strings.Cut(name, " (")
		*c = Caller{Kind: CallerToken, Token: &Token{ID: id, Name: strings.TrimSuffix(name, ")")}}
	case "sandbox":
		*c = Caller{Kind: CallerSandbox, Sandbox: name}
	case "anonymous":
		*c = Caller{}
	default:
		return fmt.Errorf("%.80q is no caller", text)
	}
	return nil
}

// Tokens keeps the tokens. Errors are (or wrap) *Error.
type Tokens interface {
	// Required reports whether requests must show a token. They must from when the
	// first token is made, even if it has expired, until the last one is revoked.
	Required() bool

	// Find returns the token to which a secret belongs. It returns nil if there is
	// none, or if it has expired.
	Find(secret string) *Token

	// Create makes a token and returns its secret, which cannot be read again. With a
	// zero expires it never expires.
	Create(ctx context.Context, name string, grants []Grant, expires time.Time) (token *Token, secret string, err error)

	// List returns all tokens, expired ones included, in order of creation.
	List(ctx context.Context) ([]*Token, error)

	// Revoke ends a token. It fails with CodeUnknownToken if there is none with that
	// ID, and with CodeLastToken if revoking it would let everybody in on a dispatcher
	// that others can reach.
	Revoke(ctx context.Context, id string) error
}

// TokenPrefix begins the secret of every token. It tells our tokens from other things
// in an Authorization header.
const TokenPrefix = "fob_"

// StoredToken is a token as it is stored: with the SHA-256 of its secret instead of the
// secret.
type StoredToken struct {
	Token
	Hash [32]byte
}

// TokenStore is the part of a Store that keeps tokens. A change is synced to disk
// before the method returns.
type TokenStore interface {
	// Tokens returns all tokens in order of creation.
	Tokens(ctx context.Context) ([]*StoredToken, error)

	// CreateToken stores a new token. It fails with CodeConflict if a token has its ID.
	CreateToken(ctx context.Context, token *StoredToken) error

	// DeleteToken removes a token. It does nothing if there is none.
	DeleteToken(ctx context.Context, id string) error
}

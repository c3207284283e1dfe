package faas

import (
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// Ref names what to call: ID, NAME, or either followed by @VERSION or :ALIAS, as in
// hello@3 and hello:live.
type Ref struct {
	ID      string // a UUID in its canonical form, or empty
	Name    string // or empty; exactly one of ID and Name is set
	Version int    // 0 if not given
	Alias   string // empty if not given
}

// ParseRef reads a ref. It fails with CodeBadRequest if s is not one.
func ParseRef(s string) (Ref, error) {
	bad := func(why string) (Ref, error) {
		return Ref{}, Errorf(CodeBadRequest, "%q is not a function reference: %s; use ID, NAME, NAME@3 or NAME:live", clip(s, 80), why)
	}
	var ref Ref
	base := s
	if i := strings.IndexAny(s, "@:"); i >= 0 {
		base = s[:i]
		suffix := s[i+1:]
		if s[i] == '@' {
			n, err := strconv.Atoi(suffix)
			if err != nil || n < 1 || suffix[0] == '+' || suffix[0] == '0' {
				return bad("after @ comes a version number, 1 or more")
			}
			ref.Version = n
		} else {
			if !namePattern.MatchString(suffix) {
				return bad("after : comes an alias")
			}
			ref.Alias = suffix
		}
	}
	// uuid.Validate also accepts braces, "urn:uuid:" and bare digits. An ID here has
	// only one spelling.
	if len(base) == 36 && uuid.Validate(base) == nil {
		ref.ID = strings.ToLower(base)
		return ref, nil
	}
	if !namePattern.MatchString(base) {
		return bad("names have 1 to 63 letters, digits, - and _")
	}
	ref.Name = base
	return ref, nil
}

// Bare reports whether the ref has neither a version nor an alias.
func (r Ref) Bare() bool { return r.Version == 0 && r.Alias == "" }

// String returns the ref as a caller would write it.
func (r Ref) String() string {
	s := r.ID + r.Name
	switch {
	case r.Version != 0:
		return s + "@" + strconv.Itoa(r.Version)
	case r.Alias != "":
		return s + ":" + r.Alias
	}
	return s
}

// MarshalText implements encoding.TextMarshaler: it is String.
func (r Ref) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler: it is ParseRef.
func (r *Ref) UnmarshalText(text []byte) (err error) {
	*r, err = ParseRef(string(text))
	return err
}

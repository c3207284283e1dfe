package faas

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The limits of secrets. A version's secrets have to fit into the megabyte that its
// sandbox has for them.
const (
	MaxSecrets          = 1000
	MaxSecretSize       = 64 << 10 // bytes of a value
	MaxSecretFunctions  = 100      // functions that one secret may be for
	MaxSecretsOfVersion = 16
)

// Secret is everything about a secret except its value. The API shows all of it.
type Secret struct {
	Name    string `json:"name"`
	Version int    `json:"version"` // how often its value was set

	// Functions are the names and IDs of the functions that may use it; empty for any.
	Functions []string `json:"functions"`

	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
}

// UsedSecret is a secret, with the functions whose live version uses it, by name, or by
// ID if they have no name.
type UsedSecret struct {
	*Secret
	UsedBy []string `json:"used_by"`
}

// SealedSecret is a secret as it is stored.
type SealedSecret struct {
	Secret
	Key    string `json:"key"`    // ID of the key that sealed it
	Sealed []byte `json:"sealed"` // nonce and ciphertext
}

// KeyRotation is the outcome of a key rotation.
type KeyRotation struct {
	Key      string `json:"key"`      // ID of the new key
	Resealed int    `json:"resealed"` // how many secrets
}

// For reports whether a function may use the secret.
func (s *Secret) For(fn *Function) bool {
	return len(s.Functions) == 0 || slices.Contains(s.Functions, fn.ID) || fn.Name != "" && slices.Contains(s.Functions, fn.Name)
}

// ForOnly reports whether the secret is for that function by name or ID, rather than
// for any function.
func (s *Secret) ForOnly(fn *Function) bool { return len(s.Functions) > 0 && s.For(fn) }

// SecretRegistry is what the API can do with secrets. None of its methods returns a
// value. Every error is (or wraps) an *Error.
type SecretRegistry interface {
	// PutSecret sets a secret's value, which has 1 to MaxSecretSize bytes. A nil list
	// of functions leaves the list as it is; an empty one allows any function. created
	// reports whether the secret is new. Sandboxes that run keep the value that they
	// have.
	PutSecret(ctx context.Context, name string, value []byte, functions []string) (secret *Secret, created bool, err error)

	// ListSecrets returns all secrets, sorted by name.
	ListSecrets(ctx context.Context) ([]UsedSecret, error)

	// DeleteSecret fails with CodeInUse while a live version uses the secret.
	DeleteSecret(ctx context.Context, name string) error

	// RotateKey makes a new key and seals all secrets with it.
	RotateKey(ctx context.Context) (KeyRotation, error)
}

// SecretKeeper seals and opens secrets. Every error is (or wraps) an *Error.
type SecretKeeper interface {
	// Put and Delete are like SecretRegistry's, but do not ask who uses the secret.
	Put(ctx context.Context, name string, value []byte, functions []string) (secret *Secret, created bool, err error)
	Delete(ctx context.Context, name string) error
	RotateKey(ctx context.Context) (KeyRotation, error)

	// List returns all secrets, sorted by name.
	List(ctx context.Context) ([]*Secret, error)

	// Get returns a secret, or nil if there is none of that name.
	Get(ctx context.Context, name string) (*Secret, error)

	// Open returns a secret with its value, or nil if there is none. The caller owns
	// the value and should overwrite it after use.
	Open(ctx context.Context, name string) (*Secret, []byte, error)
}

// SecretStore is the part of a Store that keeps sealed secrets.
type SecretStore interface {
	// Secrets returns all secrets, sorted by name.
	Secrets(ctx context.Context) ([]*SealedSecret, error)

	// Secret returns a secret, or nil if there is none of that name.
	Secret(ctx context.Context, name string) (*SealedSecret, error)

	// PutSecret stores a secret's first or next version. It fails with CodeConflict if
	// s is not the version that comes next.
	PutSecret(ctx context.Context, s *SealedSecret) error

	// ResealSecrets replaces stored secrets by newly sealed ones, in order and many at
	// a time. If it fails, some of the first may be replaced already; every secret is
	// then sealed with either its old or its new key. It fails with CodeConflict if a
	// secret has got another version meanwhile.
	ResealSecrets(ctx context.Context, all []*SealedSecret) error

	// DeleteSecret fails with CodeUnknownSecret if there is no such secret.
	DeleteSecret(ctx context.Context, name string) error
}

// CheckSecretFunctions returns what is wrong with the list of functions that a secret
// is for, or nil.
func CheckSecretFunctions(functions []string) error {
	if len(functions) > MaxSecretFunctions {
		return Errorf(CodeBadRequest, "a secret is for at most %d functions by name, or for all: leave functions empty", MaxSecretFunctions)
	}
	for _, name := range functions {
		ref, err := ParseRef(name)
		switch {
		case err == nil && ref.ID == name:
		case err == nil && ref.ID != "": // IDs are compared as they are spelled
			return Errorf(CodeBadRequest, "%q is not how the ID of a function is written: give %s", clip(name, 80), ref.ID)
		default:
			if err := CheckName(name); err != nil {
				return err
			}
		}
	}
	return nil
}

var variablePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// reservedVariables cannot be set, because they decide what runs and how, in the driver
// and in its children. PYTHON, and every entry that ends with _, is a prefix.
var reservedVariables = []string{"FOB_", "LD_", "PYTHON", "NODE_OPTIONS", "PATH"}

// CheckVariable returns what is wrong with the name of an environment variable, or of a
// secret, which becomes one; or nil.
func CheckVariable(name string) error {
	if !variablePattern.MatchString(name) {
		return Errorf(CodeBadRequest, "%q is not a name for a variable or secret: use 1 to 64 letters, digits and _, not beginning with a digit", clip(name, 80))
	}
	for _, reserved := range reservedVariables {
		prefix := strings.HasSuffix(reserved, "_") || reserved == "PYTHON"
		if name == reserved || prefix && strings.HasPrefix(name, reserved) {
			return Errorf(CodeBadRequest, "the name %s is reserved: variables that begin with FOB_, LD_ or PYTHON, and PATH and NODE_OPTIONS, cannot be set", name)
		}
	}
	return nil
}

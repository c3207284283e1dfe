package faas

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The limits of secrets. A version's have to fit into the megabyte that a
// sandbox has for them.
const (
	MaxSecrets          = 1000
	MaxSecretSize       = 64 << 10 // bytes of a value
	MaxSecretFunctions  = 100      // that one secret is for
	MaxSecretsOfVersion = 16
)

// Secret is all that is known of a secret, and shown, but its value.
type Secret struct {
	Name    string `json:"name"`
	Version int    `json:"version"` // 1, 2, 3 …: how often its value was set

	// Functions are the names and IDs of those that may name it; empty for any.
	Functions []string `json:"functions"`

	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
}

// UsedSecret is a secret with the functions whose live version names it, by
// name, or by ID where they have none.
type UsedSecret struct {
	*Secret
	UsedBy []string `json:"used_by"`
}

// SealedSecret is a secret as it is stored.
type SealedSecret struct {
	Secret
	Key    string `json:"key"`    // ID of the key that it is sealed with
	Sealed []byte `json:"sealed"` // nonce and ciphertext
}

// KeyRotation is what came of a rotation of the key.
type KeyRotation struct {
	Key      string `json:"key"`      // ID of the new one
	Resealed int    `json:"resealed"` // secrets
}

// For reports whether a function may name the secret.
func (s *Secret) For(fn *Function) bool {
	return len(s.Functions) == 0 || slices.Contains(s.Functions, fn.ID) || fn.Name != "" && slices.Contains(s.Functions, fn.Name)
}

// ForOnly reports whether the secret was set for that function by name or ID,
// rather than for any.
func (s *Secret) ForOnly(fn *Function) bool { return len(s.Functions) > 0 && s.For(fn) }

// SecretRegistry is what one can do with secrets over the API. Nothing in it
// gives a value. Every error is (or wraps) an *Error.
type SecretRegistry interface {
	// PutSecret sets a secret's value, 1 to MaxSecretSize bytes. A nil list of
	// functions leaves it as it is, and an empty one is for any. created says
	// whether the secret is new. Sandboxes that run keep the value they have.
	PutSecret(ctx context.Context, name string, value []byte, functions []string) (secret *Secret, created bool, err error)

	// ListSecrets returns all secrets by name.
	ListSecrets(ctx context.Context) ([]UsedSecret, error)

	// DeleteSecret fails with CodeInUse while a live version names the secret.
	DeleteSecret(ctx context.Context, name string) error

	// RotateKey makes a new key and seals all secrets with it.
	RotateKey(ctx context.Context) (KeyRotation, error)
}

// SecretKeeper seals and opens secrets. Every error is (or wraps) an *Error.
type SecretKeeper interface {
	// Put and Delete are as SecretRegistry's, whoever uses the secret.
	Put(ctx context.Context, name string, value []byte, functions []string) (secret *Secret, created bool, err error)
	Delete(ctx context.Context, name string) error
	RotateKey(ctx context.Context) (KeyRotation, error)

	// List returns all secrets by name.
	List(ctx context.Context) ([]*Secret, error)

	// Get returns a secret, or nil when there is none of that name.
	Get(ctx context.Context, name string) (*Secret, error)

	// Open returns a secret with its value, or nil when there is none. The
	// value is the caller's, to be overwritten after use.
	Open(ctx context.Context, name string) (*Secret, []byte, error)
}

// SecretStore keeps sealed secrets as Store keeps functions.
type SecretStore interface {
	// Secrets returns all by name.
	Secrets(ctx context.Context) ([]*SealedSecret, error)

	// Secret returns one, or nil when there is none of that name.
	Secret(ctx context.Context, name string) (*SealedSecret, error)

	// PutSecret stores the next version of a secret, or the first. It fails with
	// CodeConflict when that is not what is next.
	PutSecret(ctx context.Context, s *SealedSecret) error

	// ResealSecrets stores secrets anew that are there, in their order and many at a
	// time. When it fails the first of them may be stored, so that each is sealed
	// with its old key or with its new one. It fails with CodeConflict when one has
	// another version meanwhile.
	ResealSecrets(ctx context.Context, all []*SealedSecret) error

	// DeleteSecret fails with CodeUnknownSecret when there is none.
	DeleteSecret(ctx context.Context, name string) error
}

// CheckSecretFunctions says what is wrong with a list of functions that a secret
// is to be for, or nil.
func CheckSecretFunctions(functions []string) error {
	if len(functions) > MaxSecretFunctions {
		return Errorf(CodeBadRequest, "a secret is for at most %d functions by name, or for all: leave functions empty", MaxSecretFunctions)
	}
	for _, name := range functions {
		ref, err := ParseRef(name)
		switch {
		case err == nil && ref.ID == name:
		case err == nil && ref.ID != "": // an ID is compared as it is spelled
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

// reservedVariables cannot be set: they say what is run, and how, for the
// driver's children too. One that ends with _ or is PYTHON is a prefix.
var reservedVariables = []string{"FOB_", "LD_", "PYTHON", "NODE_OPTIONS", "PATH"}

// CheckVariable says what is wrong with the name of an environment variable, and
// so of a secret, or nil.
func CheckVariable(name string) error {
	if !variablePattern.MatchString(name) {
		return Errorf(CodeBadRequest, "%q is no name for a variable or secret: use 1 to 64 letters, digits and _, not beginning with a digit", clip(name, 80))
	}
	for _, reserved := range reservedVariables {
		prefix := strings.HasSuffix(reserved, "_") || reserved == "PYTHON"
		if name == reserved || prefix && strings.HasPrefix(name, reserved) {
			return Errorf(CodeBadRequest, "the name %s is reserved: variables that begin with FOB_, LD_ or PYTHON, and PATH and NODE_OPTIONS, cannot be set", name)
		}
	}
	return nil
}

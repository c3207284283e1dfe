// Package faas holds the words of Flock of Birds: functions, versions,
// aliases, refs, calls, results and errors, and the interfaces at which the
// other packages meet. It imports nothing of ours and does no I/O.
package faas

import "context"

// Invoker is the one spine: HTTP handlers, queue workers, triggers and replay
// all call functions through it, and metrics, tracing and recording wrap it.
// It is shaped like http.RoundTripper: a non-nil error means that there is no
// result, and is (or wraps) an *Error. The caller must close Result.Body.
type Invoker interface {
	Invoke(ctx context.Context, call *Call) (*Result, error)
}

// Registry is what one can do with functions besides calling them. Every error
// is (or wraps) an *Error. Functions and versions that it hands out are
// immutable snapshots.
type Registry interface {
	// Create registers a new function with one version, loaded and healthy
	// in a sandbox and safe on disk before it returns. An empty name is none.
	// It checks all of the draft: CheckCode, the language, the settings.
	Create(ctx context.Context, name string, draft Draft) (*Function, error)

	// Put adds a version to the function that ref names and moves the alias
	// live to it, or creates the function when ref is a name that is free.
	// Settings that the draft is silent on are kept. When the live version is
	// what the draft asks for, nothing changes.
	Put(ctx context.Context, ref Ref, draft Draft) (*Function, Change, error)

	// Patch adds a version with the code of the live one and changed settings,
	// unless these are the live one's, too.
	Patch(ctx context.Context, ref Ref, settings SettingsPatch) (*Function, Change, error)

	// Delete removes a function, its versions and its sandboxes; calls in
	// flight finish first. ref must name the function alone.
	Delete(ctx context.Context, ref Ref) error

	// Resolve finds what a ref names.
	Resolve(ctx context.Context, ref Ref) (*Function, *Version, error)

	// Versions returns up to limit of a function's versions, the newest first,
	// beginning with the one before the number before (0 for the first page).
	Versions(ctx context.Context, fn *Function, before, limit int) ([]*Version, error)

	// List returns up to limit functions whose names begin with prefix ("" for
	// all, also those without a name), in order of creation, beginning after the
	// function with the ID or place after ("" for the first page).
	List(ctx context.Context, prefix, after string, limit int) ([]*Function, error)

	// IDs returns the IDs of all functions in order of creation.
	IDs(ctx context.Context) ([]string, error)

	// Code returns a version's code as it was registered.
	Code(ctx context.Context, version *Version) (string, error)
}

// Proof is a version that is loaded in a sandbox, and which nobody can call yet. One
// of Publish and Discard must be called, once.
type Proof interface {
	// SandboxID names the sandbox.
	SandboxID() string

	// Publish gives the sandbox to fn's calls. fn, whose live version it holds, is
	// stored by then, and about to be seen.
	Publish(fn *Function)

	// Discard removes the sandbox.
	Discard()
}

// Locator tells where functions run.
type Locator interface {
	// Sandboxes tells where a version runs at this moment.
	Sandboxes(ctx context.Context, version *Version) ([]SandboxInfo, error)

	// Holder finds the sandbox whose own token this is, and what it is loaded
	// with. There is none (ok is false) for a sandbox that is blank or gone.
	Holder(ctx context.Context, token string) (sandboxID string, holds VersionKey, ok bool)
}

// Change is what a PUT or PATCH did.
type Change int

// The changes.
const (
	Unchanged Change = iota // it was so before
	Changed                 // there is a new version
	Created                 // there is a new function
)

// Store keeps everything through crash and failover. Every method that changes
// something returns once the change is synced to disk, and changes all or
// nothing. Errors are (or wrap) *Error.
type Store interface {
	FunctionStore
	SandboxStore
	TokenStore

	// Aviary returns the store's own name for its sandboxes, minted when
	// the store was first initialised: 8 hexadecimal digits.
	Aviary(ctx context.Context) (string, error)

	Close() error
}

// FunctionStore is the part of a Store that keeps functions.
type FunctionStore interface {
	// Functions returns all functions with their live versions, in order of
	// creation.
	Functions(ctx context.Context) ([]*Function, error)

	// Version returns one version.
	Version(ctx context.Context, functionID string, number int) (*Version, error)

	// Code returns one version's code.
	Code(ctx context.Context, functionID string, version int) (string, error)

	// CreateFunction stores a new function, its first version with its code,
	// and which sandbox that version is loaded in. It fails with CodeNameTaken
	// when another function has the name.
	CreateFunction(ctx context.Context, fn *Function, code string, sandboxID string) error

	// AddVersion stores fn, whose live version is new, with that version's code
	// and the sandbox that it is loaded in, and drops the versions that fn does
	// not have any more. Code that a version of the function has already is
	// there, and may be left out. It fails with CodeConflict when fn does not
	// follow directly on what is stored.
	AddVersion(ctx context.Context, fn *Function, code string, sandboxID string) error

	// DeleteFunction removes a function with all that belongs to it.
	DeleteFunction(ctx context.Context, id string) error
}

// SandboxStore is the part of a Store that keeps which sandbox holds what.
type SandboxStore interface {
	// Sandboxes returns the record of which sandbox holds which version.
	Sandboxes(ctx context.Context) (map[string]VersionKey, error)

	// RecordSandbox notes that a sandbox was loaded with a version. Losing
	// such a note in a power cut is harmless (the sandbox dies with it), so
	// it need not be synced.
	RecordSandbox(ctx context.Context, sandboxID string, version VersionKey) error

	// ForgetSandboxes drops the records of sandboxes that are gone.
	ForgetSandboxes(ctx context.Context, sandboxIDs ...string) error
}

// Package faas defines the terms of Flock of Birds: functions, versions, aliases, refs,
// calls, results and errors, and the interfaces at which the other packages meet. It
// imports no other package of this module and does no I/O.
package faas

import (
	"context"
	"slices"
)

// Invoker is the one way to call functions. HTTP handlers, queue workers, triggers and
// replay all go through it. It is shaped like http.RoundTripper: a non-nil error means
// that the function gave no answer, and is (or wraps) an *Error.
type Invoker interface {
	// Invoke makes a call. body is nil unless the caller still has the body. Invoke calls
	// its Receive before the call has a slot or a place in line, and only if the call
	// would get one of them. So a call that is refused at once costs no memory, and a slow
	// sender does not occupy a slot. Whether Invoke succeeds or fails, and also if it
	// panics before it sends the body, it makes sure that Drop is called once the body
	// has been sent or will not be sent.
	//
	// Even with an error the Result has the version and the timing. Without an error the
	// caller must close its Body.
	Invoke(ctx context.Context, call *Invocation, body LiveBody) (Result, error)
}

// Middleware wraps an Invoker: every call to it passes through what it adds.
type Middleware func(next Invoker) Invoker

// Stack wraps an Invoker in layers. The first one is the outermost.
func Stack(invoker Invoker, layers ...Middleware) Invoker {
	for _, layer := range slices.Backward(layers) {
		invoker = layer(invoker)
	}
	return invoker
}

// Registry is everything that can be done with functions besides calling them. Every
// error is (or wraps) an *Error. The functions and versions that it returns are
// immutable snapshots.
type Registry interface {
	// Create registers a function with one version. When it returns, the version is
	// loaded and healthy in a sandbox, and safe on disk. An empty name means that the
	// function has no name. Create checks the whole draft: code, language and settings.
	Create(ctx context.Context, name string, draft Draft) (*Function, error)

	// Put adds a version to the function that ref names and moves the alias live to it.
	// If ref is a free name, Put creates the function. Settings that the draft does not
	// give are kept. If the live version is already what the draft asks for, nothing
	// changes.
	Put(ctx context.Context, ref Ref, draft Draft) (*Function, Change, error)

	// Patch adds a version with the live version's code and changed settings. If the
	// settings are the live version's already, nothing changes.
	Patch(ctx context.Context, ref Ref, settings SettingsPatch) (*Function, Change, error)

	// Rename gives the function that ref names another name, which must be free. Its ID,
	// versions and sandboxes stay. If it has that name, nothing changes.
	Rename(ctx context.Context, ref Ref, name string) (*Function, Change, error)

	// Delete removes a function with its versions and sandboxes. Calls in flight finish
	// first. ref must name the function alone, without a version or an alias.
	Delete(ctx context.Context, ref Ref) error

	// Resolve finds what a ref names.
	Resolve(ctx context.Context, ref Ref) (*Function, *Version, error)

	// Versions returns up to limit of a function's versions, the newest first. It
	// begins with the version below the number before; 0 stands for the first page.
	Versions(ctx context.Context, fn *Function, before, limit int) ([]*Version, error)

	// List returns up to limit functions in order of creation. Their names begin with
	// prefix; with "" it lists all, also functions without a name. It begins after the
	// function whose ID or place is after; "" stands for the first page.
	List(ctx context.Context, prefix, after string, limit int) ([]*Function, error)

	// IDs returns the IDs of all functions in order of creation.
	IDs(ctx context.Context) ([]string, error)

	// Code returns a version's code exactly as it was registered.
	Code(ctx context.Context, version *Version) (string, error)
}

// Proof is a version that is loaded in a sandbox and that nobody can call yet. Its
// owner must call either Publish or Discard, once.
type Proof interface {
	// SandboxID returns the sandbox's ID.
	SandboxID() string

	// Publish gives the sandbox to calls of fn, whose live version it has loaded. The
	// caller has stored fn, and makes it visible next.
	Publish(fn *Function)

	// Discard removes the sandbox.
	Discard()
}

// Locator finds the sandboxes in which functions run.
type Locator interface {
	// Sandboxes returns the sandboxes in which a version runs now.
	Sandboxes(ctx context.Context, version *Version) ([]SandboxInfo, error)

	// Holder finds the sandbox to which a sandbox token belongs, and the version that
	// it has loaded. ok is false if no living sandbox with a version has the token.
	Holder(ctx context.Context, token string) (sandboxID string, holds VersionKey, ok bool)
}

// Change is the outcome of a PUT or PATCH.
type Change int

// The changes.
const (
	Unchanged Change = iota // it was like that before
	Changed                 // there is a new version, or another name
	Created                 // there is a new function
)

// Store keeps everything safe through crashes and failovers. A method that changes
// something does so wholly or not at all, and returns once the change is synced to
// disk. Errors are (or wrap) *Error.
type Store interface {
	FunctionStore
	SandboxStore
	TokenStore

	// Aviary returns the store's name for its sandboxes: 8 hexadecimal digits, chosen
	// when the store was created.
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

	// CreateFunction stores a new function, its first version with the code, and the ID
	// of the sandbox that has it loaded. It fails with CodeNameTaken if another
	// function has the name.
	CreateFunction(ctx context.Context, fn *Function, code string, sandboxID string) error

	// AddVersion stores fn, whose live version is new, with that version's code and the
	// ID of the sandbox that has it loaded. It drops the versions that fn no longer
	// has. Code that another version of the function has is stored already, so it may
	// be left out. AddVersion fails with CodeConflict if fn does not directly follow
	// what is stored.
	AddVersion(ctx context.Context, fn *Function, code string, sandboxID string) error

	// RenameFunction gives a function another name, or a first one. It fails with
	// CodeNameTaken if another function has that name, and with CodeConflict if the
	// function changes meanwhile.
	RenameFunction(ctx context.Context, id, name string) error

	// DeleteFunction removes a function and all that belongs to it.
	DeleteFunction(ctx context.Context, id string) error
}

// SandboxStore is the part of a Store that keeps which version each sandbox holds.
type SandboxStore interface {
	// Sandboxes returns the version that each sandbox holds, by sandbox ID.
	Sandboxes(ctx context.Context) (map[string]VersionKey, error)

	// RecordSandbox records that a sandbox has loaded a version. It need not be synced:
	// a power cut that loses the record also ends the sandbox.
	RecordSandbox(ctx context.Context, sandboxID string, version VersionKey) error

	// ForgetSandboxes drops the records of sandboxes that no longer exist.
	ForgetSandboxes(ctx context.Context, sandboxIDs ...string) error
}

// Package sandbox defines sandboxes as the dispatcher sees them: the Engine that makes
// them, the Instance that each of them is, and the Conn that talks to the driver
// inside. The engines are in packages below this one.
package sandbox

import (
	"context"
	"errors"
	"net"
	"time"
)

// SocketName is the file name of the driver's socket in its sandbox's folder.
const SocketName = "fob.sock"

// ErrNoEngine is wrapped by engine errors that say that the engine itself cannot be
// reached, rather than that it refused something.
var ErrNoEngine = errors.New("engine not reachable")

// ErrNoFolder is wrapped by engine errors that say that the folder for the sandboxes'
// sockets cannot be used.
var ErrNoFolder = errors.New("the folder for sockets cannot be used")

// ErrFixedLimits is wrapped by Resize's error if sandboxes with that runtime cannot be
// resized.
var ErrFixedLimits = errors.New("the limits of a sandbox cannot be changed")

// Spec says what sandbox to make.
type Spec struct {
	Lang    string // of the driver: "python", "node"
	Network string // faas.NetworkEgress or faas.NetworkNone
	Runtime string // empty for the engine's default
	Limits  Limits
}

// DefaultPids is how many processes and threads a sandbox may have.
const DefaultPids = 64

// Limits are the limits of a sandbox that can be changed while it lives, so that a
// sandbox from the pool can be fitted to a version.
type Limits struct {
	Memory int64   // bytes, swap included
	CPUs   float64 // processors
	Pids   int64   // processes and threads; 0 means DefaultPids
}

// Engine makes sandboxes. All that it makes belongs to one aviary, and it touches
// nothing else. Its methods may be called concurrently.
type Engine interface {
	// Name returns the engine's name, "docker" or "process".
	Name() string

	// Machine returns what all sandboxes together can use.
	Machine() (Machine, error)

	// Prepare makes sure that sandboxes of these languages can be created. It builds
	// what is missing and logs its progress. Other methods may be called before it;
	// Create may then be slow or fail.
	Prepare(ctx context.Context, langs ...string) error

	// Check returns why no sandbox can be made at present, as far as this can be told
	// without making one, or nil. It is cheap. It repairs what it can, for example a
	// folder that somebody removed.
	Check(ctx context.Context) error

	// Create starts a blank sandbox. It returns when the driver's socket accepts
	// connections. If it fails, or ctx ends, it leaves nothing behind.
	Create(ctx context.Context, spec Spec) (Instance, error)

	// List returns all sandboxes of the aviary, including those of an earlier
	// dispatcher. A dead one has its Done closed. A sandbox that this engine knows is
	// returned as the same Instance; one that it does not know is resumed if it is
	// paused.
	List(ctx context.Context) ([]Instance, error)

	// Purge removes everything that belongs to the aviary.
	Purge(ctx context.Context) error

	// Close releases the engine and leaves the sandboxes running.
	Close() error
}

// Instance is one sandbox.
type Instance interface {
	// ID returns 16 lower-case hexadecimal digits.
	ID() string
	Spec() Spec
	Created() time.Time

	// Dial opens a connection to the driver.
	Dial(ctx context.Context) (net.Conn, error)

	// Listen creates a socket called name beside the driver's. Only code in this
	// sandbox can connect to it. It replaces an existing socket of that name.
	Listen(name string) (net.Listener, error)

	// Addr returns the driver's TCP address on the engine's network. A sandbox without
	// a network returns its host name.
	Addr() (host string, port int)

	// Token returns the token that the driver asks for on TCP: 64 hexadecimal digits,
	// different for each sandbox, or "" if an earlier dispatcher did not record it. It
	// is a secret between us and the sandbox.
	Token() string

	// Resize changes the limits of the living sandbox.
	Resize(ctx context.Context, limits Limits) error

	// Outdated reports whether a sandbox of this Spec would be made differently today:
	// from another image, driver or interpreter, or with other confines. It first
	// builds what is missing for that.
	Outdated(ctx context.Context) (bool, error)

	// Pause stops the processes of the living sandbox where they are; Resume lets them
	// go on. Doing either twice is no error. A paused sandbox can be removed.
	// Connecting or writing to it blocks.
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error

	// Done is closed when the sandbox is known to be dead or removed.
	Done() <-chan struct{}

	// Exit returns how the sandbox ended; it asks the engine if need be. It waits for
	// the end, or until ctx ends.
	Exit(ctx context.Context) (Exit, error)

	// Remove kills the sandbox and removes all traces of it. It is no error if the
	// sandbox is gone already. When Remove returns nil, none of its code runs any more.
	Remove(ctx context.Context) error
}

// Exit is how a sandbox ended.
type Exit struct {
	Code     int  // 128 + signal if a signal ended it
	OutOfMem bool // the kernel killed it because it ran out of memory
	Removed  bool // we removed it
}

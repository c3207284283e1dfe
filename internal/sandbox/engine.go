// Package sandbox is what the dispatcher knows of sandboxes: the Engine that
// makes them, the Instance that one is, and the Conn that speaks to the driver
// inside. Engines live in packages below this one.
package sandbox

import (
	"context"
	"errors"
	"net"
	"time"
)

// SocketName is the file name of the driver's socket in its sandbox's folder.
const SocketName = "fob.sock"

// ErrNoEngine is wrapped by engine errors that mean that the engine itself
// cannot be reached, rather than that it refused something.
var ErrNoEngine = errors.New("engine not reachable")

// ErrNoFolder is wrapped by engine errors that mean that the folder with the
// sandboxes' sockets is not as it has to be.
var ErrNoFolder = errors.New("the folder for sockets cannot be used")

// ErrFixedLimits is wrapped by Resize's error when no sandbox of this one's
// runtime can be resized.
var ErrFixedLimits = errors.New("the limits of a sandbox cannot be changed")

// Spec says what sandbox to make.
type Spec struct {
	Lang    string // of the driver: "python", "node"
	Network string // faas.NetworkEgress or faas.NetworkNone
	Runtime string // that the engine is told of; empty is its own default
	Limits  Limits
}

// DefaultPids is how many processes and threads a sandbox may have.
const DefaultPids = 64

// Limits are those limits of a sandbox that may change while it lives, so that
// one from the pool can be fitted to a version.
type Limits struct {
	Memory int64   // bytes, swap included
	CPUs   float64 // processors
	Pids   int64   // processes and threads; 0 is DefaultPids
}

// Engine makes sandboxes. All that it makes belongs to one aviary, and it
// never touches what does not. Methods may be called concurrently.
type Engine interface {
	// Name is "docker", "process" …
	Name() string

	// Machine is what all sandboxes together can use.
	Machine() (Machine, error)

	// Prepare makes sure that sandboxes of these languages can be created,
	// building what is missing and logging its progress. Other methods may be
	// called before; Create may then be slow or fail.
	Prepare(ctx context.Context, langs ...string) error

	// Check returns why no sandbox can be made just now, as far as can be told
	// without making one, or nil. It is cheap. What it can mend it mends, such
	// as a folder that somebody removed.
	Check(ctx context.Context) error

	// Create starts a blank sandbox and returns when its driver's socket
	// accepts connections. When it fails, or ctx ends, nothing is left behind.
	Create(ctx context.Context, spec Spec) (Instance, error)

	// List returns all sandboxes of the aviary, those left by an earlier
	// dispatcher included. A dead one has its Done closed. Sandboxes that
	// this engine knows already are returned as the same Instance; those
	// that it does not know are resumed if they are paused.
	List(ctx context.Context) ([]Instance, error)

	// Purge removes everything of the aviary.
	Purge(ctx context.Context) error

	// Close lets go of the engine and leaves the sandboxes running.
	Close() error
}

// Instance is one sandbox.
type Instance interface {
	// ID is 16 lower-case hexadecimal digits.
	ID() string
	Spec() Spec
	Created() time.Time

	// Dial opens a connection to the driver.
	Dial(ctx context.Context) (net.Conn, error)

	// Listen makes a socket called name beside the driver's own, to which only
	// code in this sandbox can connect. One of that name that is there goes.
	Listen(name string) (net.Listener, error)

	// Addr is the driver's TCP address as the engine's network knows it; a
	// sandbox without a network gives its host name.
	Addr() (host string, port int)

	// Token is what the driver asks for on TCP: 64 hexadecimal digits, of the
	// sandbox's own, or "" when an earlier dispatcher did not note it. It is a
	// secret between us and the sandbox.
	Token() string

	// Resize changes the limits of the living sandbox.
	Resize(ctx context.Context, limits Limits) error

	// Outdated reports whether a sandbox of this Spec would be made in another
	// way today: of another image, driver or interpreter, or with other confines.
	// What is missing for that is built first.
	Outdated(ctx context.Context) (bool, error)

	// Pause stops the living sandbox's processes where they are, Resume lets
	// them go on. Doing so twice is no error, and Remove works on a paused
	// one as well. What connects or writes to a paused one waits.
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error

	// Done is closed once the sandbox is known to be dead or removed.
	Done() <-chan struct{}

	// Exit tells how it ended, asking the engine if need be. It waits for
	// the end, until ctx ends.
	Exit(ctx context.Context) (Exit, error)

	// Remove kills the sandbox and clears all traces of it. What is gone
	// already is no error. When Remove returns nil, no code of it runs.
	Remove(ctx context.Context) error
}

// Exit is how a sandbox ended.
type Exit struct {
	Code     int  // 128 + signal when a signal ended it
	OutOfMem bool // the kernel ended it for want of memory
	Removed  bool // we removed it
}

package front

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/flockofbirds/fob/internal/buffer"
)

// replay is a connection that is handed to net/http after something of it has been
// read.
type replay struct {
	*counted
	said     spoken
	read     []byte
	patience time.Duration // for the client to take what is written
	timed    bool          // a handler has set a deadline for writing

	// How much has come of a head, and how much of the budget it takes until the
	// request is answered. Whoever reads a body accounts for the body.
	mu     sync.Mutex
	came   int64
	taken  int64
	whole  bool // the head has come whole
	closed bool
}

// headStep is how many bytes of the budget a long head takes at a time.
const headStep = 32 << 10

// Read implements io.Reader.
func (r *replay) Read(b []byte) (n int, err error) {
	if len(r.read) > 0 {
		n = copy(b, r.read)
		if r.read = r.read[n:]; len(r.read) == 0 {
			r.read = nil // frees what it was read into
		}
	} else {
		n, err = r.Conn.Read(b)
	}
	if !r.note(n) {
		r.said.full.Store(true)
		return 0, buffer.ErrFull // ends the connection
	}
	return n, err
}

// note accounts for what came, and reports whether there is room for it.
func (r *replay) note(n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.whole {
		return true
	}
	if r.came += int64(n); r.came <= buffer.Free+r.taken {
		return true
	}
	if !r.server.Buffers.Take(headStep, buffer.Small) {
		return false
	}
	r.taken += headStep
	return true
}

// begun is called when a handler gets the request. The head's memory stays in use until
// it returns; what comes from now on is not part of the head.
func (r *replay) begun() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.whole = true
}

// replayKey is the context key of a request's connection.
type replayKey struct{}

// watchHeads has begun called on a server's connections.
func watchHeads(server *http.Server) {
	server.ConnContext = func(ctx context.Context, nc net.Conn) context.Context {
		return context.WithValue(ctx, replayKey{}, nc)
	}
	handler := server.Handler
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if nc, is := r.Context().Value(replayKey{}).(*replay); is {
			nc.begun()
		}
		handler.ServeHTTP(w, r)
	})
}

// idle is called when the last request has been answered.
func (r *replay) idle() {
	r.said.idle()
	r.giveBack(false)
}

// giveBack gives back what the head took.
func (r *replay) giveBack(closed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.server.Buffers.Give(r.taken)
	r.came, r.taken, r.whole = 0, 0, false
	r.closed = r.closed || closed
}

// Close implements net.Conn.
func (r *replay) Close() error {
	r.giveBack(true)
	return r.counted.Close()
}

// Write implements net.Conn. net/http sets one deadline for a whole answer or none, so
// Write sets one for each piece.
func (r *replay) Write(b []byte) (int, error) {
	if !r.timed {
		r.Conn.SetWriteDeadline(time.Now().Add(r.patience))
	}
	return r.said.Write(b)
}

// SetWriteDeadline implements net.Conn.
func (r *replay) SetWriteDeadline(t time.Time) error {
	r.timed = !t.IsZero()
	return r.Conn.SetWriteDeadline(t)
}

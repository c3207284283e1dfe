package front

import (
	"context"
	"sync"
	"time"
)

// watch is a request's context. It ends when the request has been answered or
// its client has gone away; the latter is watched for only once somebody asks
// for Done, since that takes a goroutine and most calls are over before. Nobody
// may ask for the first time after the handler has returned.
type watch struct {
	c *conn

	mu      sync.Mutex
	err     error
	done    chan struct{} // nil until somebody asks
	reading chan struct{} // closed when nobody reads any more; nil when nobody did
	gone    bool          // the client has
}

var _ context.Context = (*watch)(nil)

// Deadline implements context.Context.
func (w *watch) Deadline() (time.Time, bool) { return time.Time{}, false }

// Value implements context.Context.
func (w *watch) Value(any) any { return nil }

// Err implements context.Context.
func (w *watch) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Done implements context.Context.
func (w *watch) Done() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done == nil {
		w.done = make(chan struct{})
		if w.err == nil && !w.c.busy.Load() {
			w.err = context.Canceled // against the rule, but a done context without an error ends the program
		}
		if w.err != nil {
			close(w.done)
		} else if c := w.c; c.end < len(c.buf) && c.body.left == 0 {
			w.reading = make(chan struct{})
			c.nc.SetReadDeadline(time.Time{})
			go w.read()
		}
	}
	return w.done
}

// read waits for the client to say something more, or to go away.
func (w *watch) read() {
	c := w.c
	defer close(w.reading)
	n, err := c.nc.Read(c.buf[c.end:])
	c.end += n
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil && w.err == nil {
		w.gone = true
		w.err = context.Canceled
		close(w.done)
	}
}

// end says that the request has been answered, and reports whether the client
// is known to have gone away. After it the connection is its own again.
func (w *watch) end() (gone bool) {
	w.mu.Lock()
	asked := w.done != nil
	if w.err == nil && asked {
		w.err = context.Canceled
		close(w.done)
	}
	w.mu.Unlock()
	if !asked {
		return false // and the next request has the same
	}
	if w.reading != nil {
		w.c.ownDeadline()
		w.c.nc.SetReadDeadline(time.Unix(1, 0))
		<-w.reading
	}
	w.c.renew()
	return w.gone
}

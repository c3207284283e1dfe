package front

import (
	"context"
	"sync"
	"time"
)

// watch is a request's context. It ends when the request has been answered, or when its
// client has gone away. It only watches for the latter once somebody calls Done,
// because that takes a goroutine and most calls are over before. Done must not be
// called for the first time after the handler has returned.
type watch struct {
	c *conn

	mu      sync.Mutex
	err     error
	done    chan struct{} // nil until somebody calls Done
	reading chan struct{} // closed when read has ended; nil if it never began
	gone    bool          // the client has gone away
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
			w.err = context.Canceled // against the rule, but a done context without an error crashes its users
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

// read waits until the client sends something more or goes away.
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

// end is called when the request has been answered. It reports whether the client is
// known to have gone away. After end, read no longer uses the connection.
func (w *watch) end() (gone bool) {
	w.mu.Lock()
	asked := w.done != nil
	if w.err == nil && asked {
		w.err = context.Canceled
		close(w.done)
	}
	w.mu.Unlock()
	if !asked {
		return false // the next request can use the same watch
	}
	if w.reading != nil {
		w.c.ownDeadline()
		w.c.nc.SetReadDeadline(time.Unix(1, 0))
		<-w.reading
	}
	w.c.renew()
	return w.gone
}

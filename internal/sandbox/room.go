package sandbox

import (
	"errors"
	"io"
	"sync"

	"github.com/flockofbirds/fob/internal/buffer"
)

// ErrNoRoom says that the budget has no room for an answer's long head, or for a
// document of the driver. The driver is not at fault.
var ErrNoRoom = errors.New("there is no room for the answer")

// room is the part of the budget that an answer uses.
type room struct {
	budget *buffer.Budget
	taken  int64        // for its head
	body   *buffer.Body // or of a document; nil if it is small
}

// take takes bytes of the budget.
func (r *room) take(n int64) error {
	if !r.budget.Take(n, buffer.Small) {
		return ErrNoRoom
	}
	r.taken += n
	return nil
}

// rest is the body of an answer of known length, of which only the beginning is held.
type rest struct {
	mu    sync.Mutex // guards begin, which Close may release during a Read
	begin *buffer.Body
	at    int // how much of begin has been read
	from  io.Reader
	left  int64 // how much is still to come from there
}

// Read implements io.Reader.
func (r *rest) Read(p []byte) (int, error) {
	if n := r.readBegin(p); n > 0 {
		return n, nil
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.from.Read(p[:min(int64(len(p)), r.left)])
	if r.left -= int64(n); err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (r *rest) readBegin(p []byte) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := copy(p, r.begin.Bytes()[r.at:])
	if r.at += n; n == 0 {
		r.begin.Close()
		r.at = 0
	}
	return n
}

// Close gives back what is held.
func (r *rest) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = 0
	return r.begin.Close()
}

// close gives everything back.
func (r *room) close() {
	if r.body != nil {
		r.body.Close()
		r.body = nil
	}
	r.budget.Give(r.taken)
	r.taken = 0
}

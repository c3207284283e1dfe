package dispatch

import (
	"context"
	"sync"
	"time"
)

// rush counts the sandboxes that are being started or loaded for a function. Work for
// which nobody waits is held back meanwhile.
type rush struct {
	mu   sync.Mutex
	n    int
	over chan struct{} // closed when n comes to 0; nil while n is 0
}

func (r *rush) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n++; r.n == 1 {
		r.over = make(chan struct{})
	}
}

func (r *rush) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n--; r.n == 0 {
		close(r.over)
		r.over = nil
	}
}

// wait returns when there is no rush, after patience, or when ctx ends.
func (r *rush) wait(ctx context.Context, patience time.Duration) {
	r.mu.Lock()
	over := r.over
	r.mu.Unlock()
	if over == nil {
		return
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-over:
	case <-timer.C:
	case <-ctx.Done():
	}
}

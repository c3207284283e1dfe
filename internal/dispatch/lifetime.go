package dispatch

import (
	"context"
	"sync"
	"time"
)

// lifetime is how long a dispatcher lives. What it does in the background belongs to
// it, and ends with it.
type lifetime struct {
	// ctx ends when the dispatcher closes, and with it every start in progress.
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // everything that runs in the background

	begins  sync.RWMutex
	closing bool
}

func newLifetime() *lifetime {
	l := &lifetime{}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// background runs work that end waits for. Once the dispatcher closes it does nothing,
// and reports false.
func (l *lifetime) background(work func()) bool {
	l.begins.RLock()
	defer l.begins.RUnlock()
	if l.closing {
		return false
	}
	l.work.Go(work)
	return true
}

// close has no more work begin.
func (l *lifetime) close() {
	l.begins.Lock()
	defer l.begins.Unlock()
	l.closing = true
}

// end ends all work, and waits for that.
func (l *lifetime) end() {
	l.cancel()
	l.work.Wait()
}

// sleep waits that long, and reports false when the dispatcher closes meanwhile.
func (l *lifetime) sleep(wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// await waits until done is closed, and reports false when that takes longer than
// patience, or than the dispatcher is open.
func (l *lifetime) await(done <-chan struct{}, patience time.Duration) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-l.ctx.Done():
	case <-timer.C:
	}
	return false
}

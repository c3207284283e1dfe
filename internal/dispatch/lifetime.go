package dispatch

import (
	"context"
	"sync"
	"time"
)

// lifetime is the time for which a dispatcher lives. The work that it does in the
// background ends with it.
type lifetime struct {
	// ctx ends when the dispatcher closes. Starts in progress end with it.
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // all background work

	begins  sync.RWMutex
	closing bool
}

func newLifetime() *lifetime {
	l := &lifetime{}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// background runs work for which end waits. If the dispatcher is closing, it does
// nothing and reports false.
func (l *lifetime) background(work func()) bool {
	l.begins.RLock()
	defer l.begins.RUnlock()
	if l.closing {
		return false
	}
	l.work.Go(work)
	return true
}

// close prevents new work.
func (l *lifetime) close() {
	l.begins.Lock()
	defer l.begins.Unlock()
	l.closing = true
}

// end ends all work and waits for it.
func (l *lifetime) end() {
	l.cancel()
	l.work.Wait()
}

// sleep waits. It reports false if the dispatcher closes meanwhile.
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

// await waits until done is closed. It reports false if that takes longer than
// patience, or if the dispatcher closes first.
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

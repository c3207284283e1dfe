package catalogue

import (
	"context"
	"sync"
)

// keyLock is a lock for each of any number of keys. Its zero value is ready.
type keyLock struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed when the key is let go of
}

// lock waits until nobody holds key, and returns what lets go of it.
func (l *keyLock) lock(ctx context.Context, key string) (unlock func(), err error) {
	for {
		l.mu.Lock()
		free, taken := l.held[key]
		if !taken {
			if l.held == nil {
				l.held = make(map[string]chan struct{})
			}
			free = make(chan struct{})
			l.held[key] = free
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.held, key)
				l.mu.Unlock()
				close(free)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-free:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

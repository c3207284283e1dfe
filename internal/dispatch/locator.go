package dispatch

import (
	"context"
	"crypto/subtle"

	"github.com/flockofbirds/fob/internal/faas"
)

// Holder implements faas.Locator. It asks every bird. An index could hold a sandbox
// that is gone.
func (d *Dispatcher) Holder(_ context.Context, token string) (sandboxID string, holds faas.VersionKey, ok bool) {
	if token == "" { // the token of an instance whose engine knows none
		return "", faas.VersionKey{}, false
	}
	d.mu.RLock()
	flocks := d.snapshot()
	d.mu.RUnlock()
	for _, f := range flocks {
		f.each(func(b *bird) bool {
			if ok = b.holds(token); ok {
				sandboxID, holds = b.inst.ID(), f.version.Key()
			}
			return !ok
		})
		if ok {
			return sandboxID, holds, true
		}
	}
	return "", faas.VersionKey{}, false
}

// holds reports whether a bird's sandbox lives and has that token.
func (b *bird) holds(token string) bool {
	if subtle.ConstantTimeCompare([]byte(b.inst.Token()), []byte(token)) != 1 {
		return false
	}
	select {
	case <-b.inst.Done(): // dead or removed
		return false
	default:
		return true
	}
}

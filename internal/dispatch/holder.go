package dispatch

import (
	"context"
	"crypto/subtle"
	"slices"

	"github.com/flockofbirds/fob/internal/faas"
)

// Holder implements faas.Locator. It asks every bird instead of keeping an index,
// so that there is nothing that could outlive a sandbox.
func (d *Dispatcher) Holder(_ context.Context, token string) (sandboxID string, holds faas.VersionKey, ok bool) {
	if token == "" { // what an instance has that its engine knows none of
		return "", faas.VersionKey{}, false
	}
	d.mu.RLock()
	flocks := d.snapshot()
	d.mu.RUnlock()
	for _, f := range flocks {
		if id := f.holder(token); id != "" {
			return id, f.version.Key(), true
		}
	}
	return "", faas.VersionKey{}, false
}

// holder returns the ID of the flock's living sandbox that has that token, or "".
func (f *flock) holder(token string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range slices.Concat(f.birds, f.paused, f.leaving) {
		if subtle.ConstantTimeCompare([]byte(b.inst.Token()), []byte(token)) != 1 {
			continue
		}
		select {
		case <-b.inst.Done(): // dead or removed
		default:
			return b.inst.ID()
		}
	}
	return ""
}

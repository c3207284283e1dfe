package store_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/store"
)

// TestSnapshotOfRotation takes backups while all secrets are sealed again and again. In
// each all secrets are sealed with the same key, for a key file has no others after the
// rotation.
func TestSnapshotOfRotation(t *testing.T) {
	kv := openBolt(t, filepath.Join(memory(t), "fob.db"))
	s := newStore(t, kv)
	defer func() { check(t, s.Close()) }()
	const secrets = 3 * store.MaxOperations
	var all []*faas.SealedSecret
	for i := range secrets {
		secret := &faas.SealedSecret{Secret: faas.Secret{Name: fmt.Sprint("S", i), Version: 1}, Key: "0", Sealed: []byte{1}}
		check(t, s.PutSecret(t.Context(), secret))
		all = append(all, secret)
	}
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		for round := 1; ; round++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			for _, secret := range all {
				secret.Key = fmt.Sprint(round)
			}
			if err := s.ResealSecrets(t.Context(), all); err != nil {
				done <- err
				return
			}
		}
	}()
	for i := range 20 {
		file, err := s.Snapshot(t.Context())
		check(t, err)
		path := filepath.Join(t.TempDir(), fmt.Sprint(i, ".db"))
		copied, err := io.ReadAll(file)
		check(t, errors.Join(err, file.Close(), os.WriteFile(path, copied, 0o600)))
		backup := newStore(t, openBolt(t, path))
		found, err := backup.Secrets(t.Context())
		check(t, errors.Join(err, backup.Close()))
		keys := map[string]int{}
		for _, secret := range found {
			keys[secret.Key]++
		}
		if len(keys) != 1 || len(found) != secrets {
			t.Errorf("backup %d has %d secrets, so many of each key: %v", i, len(found), keys)
		}
	}
	close(stop)
	check(t, <-done)
}

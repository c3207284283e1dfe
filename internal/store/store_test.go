package store_test

import (
	"path/filepath"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/store"
	"github.com/flockofbirds/fob/internal/store/storetest"
)

func TestKV(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		storetest.KV(t, func(*testing.T) store.KV { return store.NewMemory() })
	})
	t.Run("bolt", func(t *testing.T) {
		storetest.KV(t, func(t *testing.T) store.KV {
			kv := openBolt(t, filepath.Join(t.TempDir(), "fob.db"))
			// The suite wants it empty.
			if err := kv.Commit(t.Context(), store.Txn{DeletePrefix: []string{""}}); err != nil {
				t.Fatal(err)
			}
			return kv
		})
	})
}

func TestStore(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		storetest.Store(t, func(t *testing.T) faas.Store { return newStore(t, store.NewMemory()) })
	})
	t.Run("bolt", func(t *testing.T) {
		storetest.Store(t, func(t *testing.T) faas.Store {
			return newStore(t, openBolt(t, filepath.Join(t.TempDir(), "fob.db")))
		})
	})
}

func TestSecrets(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		storetest.Secrets(t, func(t *testing.T) faas.SecretStore { return newStore(t, store.NewMemory()) })
	})
	t.Run("bolt", func(t *testing.T) {
		storetest.Secrets(t, func(t *testing.T) faas.SecretStore {
			return newStore(t, openBolt(t, filepath.Join(t.TempDir(), "fob.db")))
		})
	})
}

func openBolt(t testing.TB, path string) *store.Bolt {
	t.Helper()
	kv, err := store.OpenBolt(t.Context(), path, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := kv.Close(); err != nil {
			t.Error(err)
		}
	})
	return kv
}

func newStore(t testing.TB, kv store.KV) *store.Store {
	t.Helper()
	s, err := store.New(t.Context(), kv)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// longer returns fn with more behind its code, which it changes.
func longer(fn *faas.Function, code *string, more string) *faas.Function {
	*code += more
	next := *fn
	next.Current = storetest.WithCode(fn.Current, *code)
	return &next
}

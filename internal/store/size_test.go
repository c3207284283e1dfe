package store_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/store"
	"github.com/flockofbirds/fob/internal/store/storetest"
)

// TestDatabaseStaysSmall makes many versions of a function. Their code is stored once,
// and not written again with each; what dropped ones leave is used again.
func TestDatabaseStaysSmall(t *testing.T) {
	path := filepath.Join(memory(t), "fob.db")
	s := newStore(t, openBolt(t, path))
	// size is how many bytes pages have that were ever used.
	size := func() (bytes int64) {
		t.Helper()
		check(t, s.Close())
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
		check(t, err)
		err = db.View(func(tx *bbolt.Tx) error { bytes = tx.Size(); return nil })
		check(t, errors.Join(err, db.Close()))
		s = newStore(t, openBolt(t, path))
		return bytes
	}
	for i := range 20 {
		fn, code := storetest.NewFunction(fmt.Sprint("other-", i))
		check(t, s.CreateFunction(t.Context(), fn, code, fmt.Sprintf("%016x", i)))
	}
	fn, code := storetest.NewFunction("hello")
	fn = longer(fn, &code, strings.Repeat("#", 5_800_000))
	check(t, s.CreateFunction(t.Context(), fn, code, ""))
	change := func(n int, env string) {
		v := *fn.Live()
		v.Number++
		v.Settings.Queue = n
		v.Settings.Env = faas.Env(env)
		fn = fn.With(&v)
		fn = fn.Without(fn.Surplus())
		check(t, s.AddVersion(t.Context(), fn, "", ""))
	}
	sizes := []int64{size()}
	more := func(changes int, env string, most int64) {
		t.Helper()
		for n := range changes {
			change(n, strings.ReplaceAll(env, "N", fmt.Sprint(n)))
		}
		sizes = append(sizes, size())
		if grown := sizes[len(sizes)-1] - sizes[len(sizes)-2]; grown > most {
			t.Errorf("%d changes made it %d bytes larger, want %d at most", changes, grown, most)
		}
	}
	more(30, "", 100<<10)
	large := `{"A":"N` + strings.Repeat("a", 31<<10) + `"}`
	more(100, large, 4<<20)
	more(300, large, 1<<20)
	kv := openCopy(t, s)
	e, err := kv.Get(t.Context(), "function/"+fn.ID)
	if check(t, err); len(e.Value) > 8<<10 || len(fn.Versions) != 50 {
		t.Errorf("with %d versions the function's record has %d bytes", len(fn.Versions), len(e.Value))
	}
	t.Logf("%d bytes", sizes)
}

// openCopy opens a backup of a store.
func openCopy(t *testing.T, s *store.Store) *store.Bolt {
	t.Helper()
	from, err := s.Snapshot(t.Context())
	check(t, err)
	defer from.Close()
	path := filepath.Join(memory(t), "fob.db")
	_, err = store.SaveBackup(path, from)
	check(t, err)
	return openBolt(t, path)
}

package store_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/flockofbirds/fob/internal/store"
	"github.com/flockofbirds/fob/internal/store/storetest"
)

// BenchmarkCreate measures creates, each synced to disk, from one caller and
// from many that share their syncs.
func BenchmarkCreate(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s := newStore(b, openBolt(b, filepath.Join(b.TempDir(), "fob.db")))
			createMany(b, s, b.N, callers)
		})
	}
}

// BenchmarkOpen10k measures a start: opening a database of 10,000 functions
// and reading them all.
func BenchmarkOpen10k(b *testing.B) {
	path := filepath.Join(b.TempDir(), "fob.db")
	kv := openBolt(b, path)
	createMany(b, newStore(b, kv), 10_000, 64)
	if err := kv.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := store.Open(b.Context(), path, false)
		if err != nil {
			b.Fatal(err)
		}
		if functions, err := s.Functions(b.Context()); err != nil || len(functions) != 10_000 {
			b.Fatal(len(functions), err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen100MB measures the same with 100 MB of code in 1,000 functions.
func BenchmarkOpen100MB(b *testing.B) {
	path := filepath.Join(b.TempDir(), "fob.db")
	kv := openBolt(b, path)
	s := newStore(b, kv)
	for range 1000 {
		fn, code := storetest.NewFunction("")
		fn = longer(fn, &code, strings.Repeat("#", 100<<10))
		if err := s.CreateFunction(b.Context(), fn, code, ""); err != nil {
			b.Fatal(err)
		}
	}
	if err := kv.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		kv, err := store.OpenBolt(b.Context(), path, false)
		if err != nil {
			b.Fatal(err)
		}
		if err := kv.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func createMany(b *testing.B, s *store.Store, n, callers int) {
	jobs := make(chan struct{}, n)
	for range n {
		jobs <- struct{}{}
	}
	close(jobs)
	b.ResetTimer()
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range jobs {
				fn, code := storetest.NewFunction("")
				if err := s.CreateFunction(b.Context(), fn, code, ""); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

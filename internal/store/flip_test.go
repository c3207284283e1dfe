package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/store"
	"github.com/flockofbirds/fob/internal/store/storetest"
)

// envInt returns what an environment variable says, or otherwise.
func envInt(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// seeded returns a source of randomness whose seed is printed; FOBTEST_SEED
// takes it.
func seeded(t *testing.T) *rand.Rand {
	seed := envInt("FOBTEST_SEED", int(time.Now().UnixNano()))
	t.Logf("FOBTEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(uint64(seed), 0))
}

// TestBitsFlipped flips bits of a database, one at a time: it must be refused
// with the advice, or serve exactly what was stored. Of each byte one bit is
// flipped, and of the zeros every 16th; with FOBTEST_ALLBITS=1 each of all.
func TestBitsFlipped(t *testing.T) {
	good := filepath.Join(t.TempDir(), "fob.db")
	kv := openBolt(t, good)
	s := newStore(t, kv)
	for i := range 14 {
		fn, code := storetest.NewFunction(fmt.Sprintf("function-%d", i))
		check(t, s.CreateFunction(t.Context(), fn, code+strings.Repeat("#", 200*(i%3)), fmt.Sprintf("%016x", i)))
		if i%4 == 0 {
			check(t, s.DeleteFunction(t.Context(), fn.ID)) // leaves free pages
		}
	}
	check(t, kv.Close())
	data, err := os.ReadFile(good)
	check(t, err)
	want, err := content(t, good)
	check(t, err)

	random := seeded(t)
	type flip struct{ at, bit int }
	flips := make(chan flip, 8*len(data))
	for at := range data {
		if envInt("FOBTEST_ALLBITS", 0) == 0 {
			if data[at] != 0 || at%16 == 0 {
				flips <- flip{at, random.IntN(8)}
			}
			continue
		}
		for bit := range 8 {
			flips <- flip{at, bit}
		}
	}
	close(flips)
	began := time.Now()
	var mu sync.Mutex
	refused, served := 0, 0
	var wg sync.WaitGroup
	for range 2 {
		path := filepath.Join(memoryDir(t), "fob.db")
		check(t, os.WriteFile(path, data, 0o600))
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		check(t, err)
		defer file.Close()
		wg.Go(func() {
			for f := range flips {
				if t.Failed() {
					return
				}
				damaged := []byte{data[f.at] ^ 1<<f.bit}
				file.WriteAt(damaged, int64(f.at))
				got, err := content(t, path)
				file.WriteAt(data[f.at:f.at+1], int64(f.at))
				mu.Lock()
				switch {
				case err == nil && got == want:
					served++
				case err == nil:
					t.Errorf("bit %d of byte %d flipped, and the content is another:\n%s", f.bit, f.at, got)
				case !strings.Contains(err.Error(), "dispatcher restore --data"):
					t.Errorf("bit %d of byte %d flipped: %v", f.bit, f.at, err)
				default:
					refused++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if now, err := os.ReadFile(good); err != nil || !bytes.Equal(now, data) {
		t.Error("reading has changed the file:", err)
	}
	t.Logf("%d bits in %d bytes flipped in %v: %d refused, %d served with everything", refused+served, len(data), time.Since(began).Round(time.Millisecond), refused, served)
	if refused < 10_000 {
		t.Error("that tests little")
	}
}

// memoryDir is a folder in memory where there is one: thousands of starts sync
// thousands of times.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "fob")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// content opens a database and returns all that is in it.
func content(t *testing.T, path string) (all string, err error) {
	kv, err := store.OpenBolt(t.Context(), path, false)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, kv.Close()) }()
	s, err := store.New(t.Context(), kv)
	if err != nil {
		return "", err
	}
	if _, err := s.Functions(t.Context()); err != nil {
		return "", err
	}
	entries, err := kv.List(t.Context(), "", "", 1_000_000)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&text, "%s %d %d %q\n", e.Key, e.Created, e.Revision, e.Value)
		// It is found as well as listed.
		if again, err := kv.Get(t.Context(), e.Key); err != nil || !bytes.Equal(again.Value, e.Value) {
			return "", fmt.Errorf("%s is listed and not found (%w)", e.Key, err)
		}
	}
	return text.String(), nil
}

// TestSurveyOfManyCommits has a tree grow, split, merge and shrink in every way,
// and what bbolt makes of it must pass each time.
func TestSurveyOfManyCommits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fob.db")
	random := seeded(t)
	there := map[string]string{}
	for round := range envInt("FOBTEST_ROUNDS", 12) {
		kv := openBolt(t, path)
		most := []int{5, 400, 60}[round%3]
		for range 60 {
			var txn store.Txn
			touched := map[string]bool{}
			for range 1 + random.IntN(20) {
				key := fmt.Sprintf("%0*d", 1+random.IntN(40), random.IntN(most))
				if touched[key] {
					continue
				}
				touched[key] = true
				if round%3 == 2 || random.IntN(3) == 0 {
					txn.Delete = append(txn.Delete, "t/"+key)
					delete(there, key)
					continue
				}
				size := random.IntN(300)
				if random.IntN(20) == 0 {
					size = random.IntN(20000)
				}
				there[key] = strings.Repeat("v", size)
				txn.Put = append(txn.Put, store.Pair{Key: "t/" + key, Value: []byte(there[key])})
			}
			check(t, kv.Commit(t.Context(), txn))
		}
		entries, err := kv.List(t.Context(), "t/", "", 1_000_000)
		check(t, err)
		if len(entries) != len(there) {
			t.Fatalf("round %d: %d keys, want %d", round, len(entries), len(there))
		}
		for _, e := range entries {
			if there[e.Key[2:]] != string(e.Value) {
				t.Fatalf("round %d: %s has another value", round, e.Key)
			}
		}
		check(t, kv.Close())
		checkPages(t, path)
	}
}

package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/durable/powercut"
	"github.com/flockofbirds/fob/internal/store"
	"github.com/flockofbirds/fob/internal/store/storetest"
)

// TestBitsFlipped flips bits of a database, one at a time: it must be refused
// with the advice, or serve exactly what was stored. FOBTEST_BITS says of how many
// bytes one bit is flipped. With 1 it is one bit of each byte, of the zeros every 16th,
// of a page's header each; with 0 each bit of all.
func TestBitsFlipped(t *testing.T) {
	good := filepath.Join(t.TempDir(), "fob.db")
	kv := openBolt(t, good)
	s := newStore(t, kv)
	for i := range 10 {
		fn, code := storetest.NewFunction(fmt.Sprintf("function-%d", i))
		check(t, s.CreateFunction(t.Context(), longer(fn, &code, strings.Repeat("#", 200*(i%3))), code, fmt.Sprintf("%016x", i)))
		if i%4 == 0 {
			check(t, s.DeleteFunction(t.Context(), fn.ID)) // leaves free pages
		}
	}
	check(t, kv.Close())
	data, err := os.ReadFile(good)
	check(t, err)
	want, err := content(t, good)
	check(t, err)

	flips := make(chan flip, 8*len(data))
	random := source(t)
	every := int(powercut.Depth(t, "FOBTEST_BITS", 8, 32))
	for at := range data {
		bit := random.IntN(8)
		for b := range 8 {
			telling := at%4096 < 16 || b == bit && (data[at] != 0 || at%16 == 0)
			if every == 0 || telling && random.IntN(every) == 0 {
				flips <- flip{at, b}
			}
		}
	}
	close(flips)
	refused := flipBits(t, data, want, flips)
	if refused < 10_000/max(1, every) {
		t.Error("that tests little")
	}
}

// TestBitsFlippedInMany does the same to a database of a tree with branches, at
// random.
func TestBitsFlippedInMany(t *testing.T) {
	good := filepath.Join(memory(t), "fob.db")
	kv := openBolt(t, good)
	for i := range 100 {
		var txn store.Txn
		for j := range 40 {
			txn.Put = append(txn.Put, store.Pair{Key: fmt.Sprintf("t/%d/%d", j, i), Value: []byte(strings.Repeat("v", i*j%500))})
		}
		check(t, kv.Commit(t.Context(), txn))
	}
	check(t, kv.Close())
	data, err := os.ReadFile(good)
	check(t, err)
	want, err := content(t, good)
	check(t, err)
	random := source(t)
	rounds := powercut.Depth(t, "FOBTEST_FLIPS", 50, 20)
	flips := make(chan flip, rounds)
	for range rounds {
		flips <- flip{random.IntN(len(data)), random.IntN(8)}
	}
	close(flips)
	if flipBits(t, data, want, flips) == 0 {
		t.Error("that tests little")
	}
}

type flip struct{ at, bit int }

// flipBits flips one bit after the other of a database, and returns how many of
// these databases were refused. The others have what is wanted.
func flipBits(t *testing.T, data []byte, want string, flips chan flip) (refused int) {
	began := time.Now()
	var mu sync.Mutex
	served := 0
	var wg sync.WaitGroup
	for range 2 {
		path := filepath.Join(memory(t), "fob.db")
		check(t, os.WriteFile(path, data, 0o600))
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		check(t, err)
		defer file.Close()
		wg.Go(func() {
			for f := range flips {
				if t.Failed() {
					return
				}
				file.WriteAt([]byte{data[f.at] ^ 1<<f.bit}, int64(f.at))
				got, err := content(t, path)
				file.WriteAt(data[f.at:f.at+1], int64(f.at))
				mu.Lock()
				switch {
				case err == nil && got == want:
					served++
				case err == nil:
					t.Errorf("bit %d of byte %d flipped, and the content is another", f.bit, f.at)
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
	t.Logf("%d bits in %d bytes flipped in %v: %d refused, %d served with everything", refused+served, len(data), time.Since(began).Round(time.Millisecond), refused, served)
	return refused
}

// source is of randomness; its seed is printed, and FOBTEST_SEED takes it.
func source(t *testing.T) *rand.Rand {
	seed := setting(t, "FOBTEST_SEED", rand.Uint64()>>1)
	t.Logf("FOBTEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
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
	random := source(t)
	there := map[string]string{}
	for round := range powercut.Depth(t, "FOBTEST_ROUNDS", 12, 3) {
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

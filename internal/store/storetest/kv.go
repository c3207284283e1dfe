// Package storetest has the suites that every store.KV and every faas.Store passes.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/flockofbirds/fob/internal/store"
)

// KV runs the suite for a KV. open returns a new, empty KV at each call; the suite
// closes it.
func KV(t *testing.T, open func(t *testing.T) store.KV) {
	for name, test := range map[string]func(*testing.T, store.KV){
		"put, get, delete":   putGetDelete,
		"revisions":          revisions,
		"conditions":         conditions,
		"list":               list,
		"delete by prefix":   deletePrefix,
		"refused":            refused,
		"limits":             limits,
		"values are copies":  copies,
		"concurrent counter": counter,
		"concurrent claim":   claim,
		"ended context":      endedContext,
		"closed":             closed,
		"watch":              watch,
		"watch large":        watchLarge,
		"watch ends":         watchEnds,
		"watch mirrors":      watchMirrors,
	} {
		t.Run(name, func(t *testing.T) {
			kv := open(t)
			defer func() {
				if err := kv.Close(); err != nil {
					t.Error("close:", err)
				}
			}()
			test(t, kv)
		})
	}
}

func put(pairs ...string) store.Txn {
	var txn store.Txn
	for pair := range slices.Chunk(pairs, 2) {
		txn.Put = append(txn.Put, store.Pair{Key: pair[0], Value: []byte(pair[1])})
	}
	return txn
}

func commit(t *testing.T, kv store.KV, txn store.Txn) {
	t.Helper()
	if err := kv.Commit(t.Context(), txn); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, kv store.KV, key string) store.Entry {
	t.Helper()
	e, err := kv.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if e.Key != key {
		t.Fatalf("Get(%q) says key %q", key, e.Key)
	}
	return e
}

func wantKeys(t *testing.T, kv store.KV, prefix, after string, limit int, want ...string) {
	t.Helper()
	entries, err := kv.List(t.Context(), prefix, after, limit)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, e := range entries {
		if same := get(t, kv, e.Key); string(same.Value) != string(e.Value) || same.Revision != e.Revision || same.Created != e.Created {
			t.Errorf("List gives %+v, Get %+v", e, same)
		}
		keys = append(keys, e.Key)
	}
	if !slices.Equal(keys, want) {
		t.Errorf("List(%q, %q, %d) = %q, want %q", prefix, after, limit, keys, want)
	}
}

func putGetDelete(t *testing.T, kv store.KV) {
	if e := get(t, kv, "k"); e.Revision != 0 || len(e.Value) != 0 {
		t.Errorf("a missing key is %+v", e)
	}
	binary := "\x00\xff line\n" + strings.Repeat("x", 1<<19)
	commit(t, kv, put("k", binary, "empty", ""))
	if e := get(t, kv, "k"); string(e.Value) != binary {
		t.Errorf("got %d bytes back, put %d", len(e.Value), len(binary))
	}
	if e := get(t, kv, "empty"); e.Revision == 0 || len(e.Value) != 0 {
		t.Errorf("an empty value is %+v", e)
	}
	commit(t, kv, store.Txn{Delete: []string{"k", "never there"}})
	if e := get(t, kv, "k"); e.Revision != 0 {
		t.Errorf("deleted, and yet %+v", e)
	}
	wantKeys(t, kv, "", "", 10, "empty")
}

func revisions(t *testing.T, kv store.KV) {
	commit(t, kv, put("a", "1"))
	commit(t, kv, put("b", "1"))
	a, b := get(t, kv, "a"), get(t, kv, "b")
	if a.Revision < 1 || a.Created != a.Revision || b.Revision <= a.Revision {
		t.Errorf("a is %+v, b, put later, %+v", a, b)
	}
	commit(t, kv, put("a", "2"))
	changed := get(t, kv, "a")
	if changed.Created != a.Created || changed.Revision <= b.Revision {
		t.Errorf("a was %+v, put anew %+v", a, changed)
	}
	commit(t, kv, store.Txn{Delete: []string{"a"}})
	commit(t, kv, put("a", "3"))
	if again := get(t, kv, "a"); again.Created != again.Revision || again.Revision <= changed.Revision {
		t.Errorf("a was %+v, created again %+v", changed, again)
	}
}

func conditions(t *testing.T, kv store.KV) {
	ifAbsent := put("a", "1")
	ifAbsent.If = []store.Condition{{Key: "a"}}
	commit(t, kv, ifAbsent)
	if err := kv.Commit(t.Context(), ifAbsent); !errors.Is(err, store.ErrConflict) {
		t.Errorf("put over a key that must not be there: %v", err)
	}
	first := get(t, kv, "a")
	update := store.Txn{
		If:           []store.Condition{{Key: "a", Revision: first.Revision}, {Key: "other"}},
		Put:          []store.Pair{{Key: "a", Value: []byte("2")}, {Key: "b", Value: []byte("2")}},
		Delete:       []string{"c"},
		DeletePrefix: []string{"d/"},
	}
	commit(t, kv, put("c", "1", "d/1", "1"))
	commit(t, kv, update)
	wantKeys(t, kv, "", "", 10, "a", "b")

	commit(t, kv, put("c", "1", "d/1", "1"))
	commit(t, kv, store.Txn{Delete: []string{"b"}})
	if err := kv.Commit(t.Context(), update); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a stale revision: %v", err)
	}
	wantKeys(t, kv, "", "", 10, "a", "c", "d/1") // nothing of the transaction was done

	update.If = []store.Condition{{Key: "a", Revision: get(t, kv, "a").Revision}, {Key: "c"}}
	if err := kv.Commit(t.Context(), update); !errors.Is(err, store.ErrConflict) {
		t.Errorf("the second of two conditions fails: %v", err)
	}
	wantKeys(t, kv, "", "", 10, "a", "c", "d/1")
	gone := store.Txn{If: []store.Condition{{Key: "gone", Revision: first.Revision}}}
	if err := kv.Commit(t.Context(), gone); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a revision of a key that is not there: %v", err)
	}
}

func list(t *testing.T, kv store.KV) {
	wantKeys(t, kv, "", "", 10)
	commit(t, kv, put("p/2", "", "p/10", "", "p0", "", "p", "", "p/", "", "o/9", "", "p/\xff", ""))
	wantKeys(t, kv, "p/", "", 10, "p/", "p/10", "p/2", "p/\xff")
	wantKeys(t, kv, "p/", "", 2, "p/", "p/10")
	wantKeys(t, kv, "p/", "p/10", 2, "p/2", "p/\xff")
	wantKeys(t, kv, "p/", "p/11", 10, "p/2", "p/\xff") // after need not exist
	wantKeys(t, kv, "p/", "p/\xff", 10)
	wantKeys(t, kv, "p/", "a", 1, "p/")
	wantKeys(t, kv, "p/", "z", 10)
	wantKeys(t, kv, "q", "", 10)
	wantKeys(t, kv, "", "", 10, "o/9", "p", "p/", "p/10", "p/2", "p/\xff", "p0")
}

func deletePrefix(t *testing.T, kv store.KV) {
	commit(t, kv, put("p", "", "p0", ""))
	for i := range 5 {
		var txn store.Txn
		for j := range 100 {
			txn.Put = append(txn.Put, store.Pair{Key: fmt.Sprintf("p/%d/%d", i, j), Value: make([]byte, 300)})
		}
		commit(t, kv, txn)
	}
	commit(t, kv, store.Txn{DeletePrefix: []string{"p/", "nothing/"}, Put: put("q", "").Put})
	wantKeys(t, kv, "", "", 10, "p", "p0", "q")
}

func refused(t *testing.T, kv store.KV) {
	commit(t, kv, put("a/1", "kept"))
	for name, txn := range map[string]store.Txn{
		"empty key":             put("", "x", "b", "x"),
		"long key":              put(strings.Repeat("k", 1025), "x", "b", "x"),
		"put twice":             put("b", "x", "b", "y"),
		"put and delete":        {Put: put("b", "x").Put, Delete: []string{"b"}},
		"delete twice":          {Delete: []string{"a/1", "a/1"}},
		"put and delete prefix": {Put: put("a/2", "x").Put, DeletePrefix: []string{"a/"}},
	} {
		if err := kv.Commit(t.Context(), txn); err == nil || errors.Is(err, store.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantKeys(t, kv, "", "", 10, "a/1")
}

// limits tests the limits of a transaction. They are etcd's.
func limits(t *testing.T, kv store.KV) {
	many := func(n int, of string) (txn store.Txn) {
		for i := range n {
			key := fmt.Sprintf("%s/%03d", of, i)
			switch of {
			case "put":
				txn.Put = append(txn.Put, store.Pair{Key: key})
			case "delete":
				txn.Delete = append(txn.Delete, key)
			case "prefix":
				txn.DeletePrefix = append(txn.DeletePrefix, key)
			case "if":
				txn.If = append(txn.If, store.Condition{Key: key})
			}
		}
		return txn
	}
	mixed := func(n int) store.Txn {
		return store.Txn{Put: many(n-80, "put").Put, Delete: many(40, "delete").Delete, DeletePrefix: many(40, "prefix").DeletePrefix, If: many(n, "if").If}
	}
	large := func(size int) store.Txn { return put("large", strings.Repeat("x", size-len("large"))) }
	for name, test := range map[string]struct{ most, over store.Txn }{
		"puts":       {many(store.MaxOperations, "put"), many(store.MaxOperations+1, "put")},
		"deletes":    {many(store.MaxOperations, "delete"), many(store.MaxOperations+1, "delete")},
		"prefixes":   {many(store.MaxOperations, "prefix"), many(store.MaxOperations+1, "prefix")},
		"conditions": {many(store.MaxOperations, "if"), many(store.MaxOperations+1, "if")},
		"together":   {mixed(store.MaxOperations), mixed(store.MaxOperations + 1)},
		"bytes":      {large(store.MaxTxnSize), large(store.MaxTxnSize + 1)},
	} {
		if err := kv.Commit(t.Context(), test.over); err == nil || errors.Is(err, store.ErrConflict) {
			t.Errorf("%s above the limit: %v", name, err)
		}
		wantKeys(t, kv, "", "", 1000)
		if err := kv.Commit(t.Context(), test.most); err != nil {
			t.Errorf("%s at the limit: %v", name, err)
		}
		for _, pair := range test.most.Put {
			commit(t, kv, store.Txn{Delete: []string{pair.Key}})
		}
	}
	if store.MaxOperations > 128 || store.MaxTxnSize > 1<<20 {
		t.Error("etcd takes 128 operations, and 1.5 MiB with all that is round them")
	}
}

func copies(t *testing.T, kv store.KV) {
	value := []byte("right")
	commit(t, kv, store.Txn{Put: []store.Pair{{Key: "k", Value: value}}})
	copy(value, "wrong")
	copy(get(t, kv, "k").Value, "wrong")
	entries, err := kv.List(t.Context(), "", "", 10)
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	copy(entries[0].Value, "wrong")
	if e := get(t, kv, "k"); string(e.Value) != "right" {
		t.Errorf("the value became %q", e.Value)
	}
}

// counter has many goroutines add to one number by compare and set. No add may be lost,
// and a key that is put along with an add must be there exactly if the add succeeded.
func counter(t *testing.T, kv store.KV) {
	const workers, adds = 16, 20
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for done := 0; done < adds; {
				e, err := kv.Get(t.Context(), "n")
				if err != nil {
					t.Error(err)
					return
				}
				n, _ := strconv.Atoi(string(e.Value)) // 0 if it is not there
				txn := put("n", strconv.Itoa(n+1), fmt.Sprintf("by/%d/%d/%d", w, done, n+1), "")
				txn.If = []store.Condition{{Key: "n", Revision: e.Revision}}
				switch err := kv.Commit(t.Context(), txn); {
				case err == nil:
					done++
				case !errors.Is(err, store.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if e := get(t, kv, "n"); string(e.Value) != strconv.Itoa(workers*adds) {
		t.Errorf("counted %s, want %d", e.Value, workers*adds)
	}
	entries, err := kv.List(t.Context(), "by/", "", 10000)
	if err != nil || len(entries) != workers*adds {
		t.Errorf("%d keys rode along, want %d (%v)", len(entries), workers*adds, err)
	}
}

// claim has many goroutines put one key that must not exist yet. Exactly one may win,
// and unrelated puts at the same time must not suffer.
func claim(t *testing.T, kv store.KV) {
	const workers = 64
	var wg sync.WaitGroup
	won := make(chan int, workers)
	for w := range workers {
		wg.Go(func() {
			txn := put("claim", strconv.Itoa(w))
			txn.If = []store.Condition{{Key: "claim"}}
			switch err := kv.Commit(t.Context(), txn); {
			case err == nil:
				won <- w
			case !errors.Is(err, store.ErrConflict):
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := kv.Commit(t.Context(), put(fmt.Sprintf("own/%d", w), "")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d won", len(won))
	}
	if e, w := get(t, kv, "claim"), <-won; string(e.Value) != strconv.Itoa(w) {
		t.Errorf("%d won, the value is %s", w, e.Value)
	}
	entries, err := kv.List(t.Context(), "own/", "", 10000)
	if err != nil || len(entries) != workers {
		t.Fatalf("%d of %d own keys (%v)", len(entries), workers, err)
	}
	seen := map[int64]bool{}
	for _, e := range entries {
		if seen[e.Revision] {
			t.Errorf("two commits have the revision %d", e.Revision)
		}
		seen[e.Revision] = true
	}
}

func endedContext(t *testing.T, kv store.KV) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := kv.Commit(ctx, put("k", "v")); !errors.Is(err, context.Canceled) {
		t.Error("Commit:", err)
	}
	if _, err := kv.Get(ctx, "k"); !errors.Is(err, context.Canceled) {
		t.Error("Get:", err)
	}
	if _, err := kv.List(ctx, "", "", 1); !errors.Is(err, context.Canceled) {
		t.Error("List:", err)
	}
	wantKeys(t, kv, "", "", 10)
}

func closed(t *testing.T, kv store.KV) {
	// Commits that race with Close succeed or fail with ErrClosed.
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if err := kv.Commit(t.Context(), put(strconv.Itoa(i), "v")); err != nil && !errors.Is(err, store.ErrClosed) {
				t.Error(err)
			}
		})
	}
	if err := kv.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if err := kv.Commit(t.Context(), put("k", "v")); !errors.Is(err, store.ErrClosed) {
		t.Error("Commit:", err)
	}
	if _, err := kv.Get(t.Context(), "k"); !errors.Is(err, store.ErrClosed) {
		t.Error("Get:", err)
	}
	if _, err := kv.List(t.Context(), "", "", 1); !errors.Is(err, store.ErrClosed) {
		t.Error("List:", err)
	}
}

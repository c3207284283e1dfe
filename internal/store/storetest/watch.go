package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/flockofbirds/fob/internal/store"
)

// now returns the revision to watch from.
func now(t *testing.T, kv store.KV) int64 {
	t.Helper()
	changes, revision, err := kv.Watch(t.Context(), "", 0)
	if err != nil || len(changes) > 0 || revision < 1 {
		t.Fatalf("as of now: %v, %d, %v", changes, revision, err)
	}
	return revision
}

// watch must report puts and deletes below a prefix, and nothing else.
func watch(t *testing.T, kv store.KV) {
	commit(t, kv, put("a/0", "", "a/old", ""))
	start := now(t, kv)
	commit(t, kv, put("a/1", "", "b/1", ""))
	commit(t, kv, put("b/2", ""))
	conflict := put("a/never", "")
	conflict.If = []store.Condition{{Key: "a/1"}}
	if err := kv.Commit(t.Context(), conflict); !errors.Is(err, store.ErrConflict) {
		t.Fatal(err)
	}
	commit(t, kv, store.Txn{Put: put("a/1", "2").Put, Delete: []string{"a/0", "a/never there"}, DeletePrefix: []string{"a/o", "b/"}})
	wantChanges := func(prefix string, after, upTo int64, want ...string) {
		t.Helper()
		changes, revision, err := kv.Watch(t.Context(), prefix, after)
		if err != nil || revision != upTo {
			t.Fatalf("Watch(%q, %d): %d, %v", prefix, after, revision, err)
		}
		var got []string
		for _, c := range changes {
			sign := "+"
			if c.Deleted {
				sign = "-"
			} else if e := get(t, kv, c.Key); e.Revision < c.Revision && e.Revision != 0 {
				t.Errorf("%+v is of the future: %+v", c, e)
			}
			got = append(got, fmt.Sprint(sign, c.Key, " ", c.Revision-start))
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("Watch(%q, %d) = %q, want %q", prefix, after, got, want)
		}
	}
	end := now(t, kv)
	wantChanges("a/", start, end, "+a/1 1", "+a/1 3", "-a/0 3", "-a/old 3")
	wantChanges("", start+2, end, "+a/1 3", "-a/0 3", "-a/old 3", "-b/1 3", "-b/2 3")
	wantChanges("b/2", start, end, "+b/2 2", "-b/2 3")
	if got := end - start; got != 3 {
		t.Errorf("3 commits are %d revisions", got)
	}

	// A watcher that is up to date waits for the next change below its prefix.
	woken := make(chan string, 1)
	go func() {
		changes, _, err := kv.Watch(t.Context(), "a/", end)
		woken <- fmt.Sprint(changes, err)
	}()
	commit(t, kv, put("c", ""))
	commit(t, kv, put("a/2", ""))
	if got, want := <-woken, fmt.Sprint([]store.Change{{Key: "a/2", Revision: end + 2}}, error(nil)); got != want {
		t.Errorf("it was told %s, want %s", got, want)
	}
}

// watchLarge watches a commit that has more changes than are kept of small commits.
func watchLarge(t *testing.T, kv store.KV) {
	const keys = 3000
	for i := 0; i < keys; i += 100 {
		var txn store.Txn
		for j := range 100 {
			txn.Put = append(txn.Put, store.Pair{Key: fmt.Sprintf("k/%d", i+j)})
		}
		commit(t, kv, txn)
	}
	for round := range 3 {
		start := now(t, kv)
		if round == 0 {
			commit(t, kv, store.Txn{DeletePrefix: []string{"k/"}})
			if changes, revision, err := kv.Watch(t.Context(), "k/", start); err != nil || len(changes) != keys || revision != start+1 {
				t.Errorf("of %d keys deleted it tells %d, up to %d; %v", keys, len(changes), revision-start, err)
			}
			continue
		}
		commit(t, kv, put("l", ""))
		if changes, _, err := kv.Watch(t.Context(), "", start); err != nil || len(changes) != 1 {
			t.Errorf("after it: %v, %v", changes, err)
		}
	}
}

// watchEnds checks that a Watch ends with its context, when the KV is closed, and when
// it is too late.
func watchEnds(t *testing.T, kv store.KV) {
	start := now(t, kv)
	for i := range 50 {
		var txn store.Txn
		for j := range 100 {
			txn.Put = append(txn.Put, store.Pair{Key: fmt.Sprintf("k/%d/%d", i, j)})
		}
		commit(t, kv, txn)
	}
	if changes, _, err := kv.Watch(t.Context(), "", start); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("5000 changes later: %d changes, %v", len(changes), err)
	}
	// A commit is kept whole or not at all.
	end := now(t, kv)
	for after := start; ; after++ {
		changes, revision, err := kv.Watch(t.Context(), "", after)
		if errors.Is(err, store.ErrCompacted) && after < end-10 {
			continue
		}
		if want := 100 * (end - after); err != nil || revision != end || int64(len(changes)) != want {
			t.Errorf("after revision %d there are %d changes, want %d; %v", after, len(changes), want, err)
		}
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	wait := func(ctx context.Context) {
		_, _, err := kv.Watch(ctx, "", end)
		ended <- err
	}
	go wait(ctx)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error("with its context:", err)
	}
	go wait(t.Context())
	if err := kv.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, store.ErrClosed) {
		t.Error("with the KV:", err)
	}
}

// watchMirrors keeps a copy of what several writers change, from a list and the changes
// after it.
func watchMirrors(t *testing.T, kv store.KV) {
	const writers, rounds = 4, 60
	revision := now(t, kv)
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := range rounds {
				txn := put(fmt.Sprintf("m/%d/%d", w, i%7), fmt.Sprint(i))
				if i%3 == 2 {
					txn.Delete = []string{fmt.Sprintf("m/%d/%d", w, (i+1)%7)}
				}
				if err := kv.Commit(t.Context(), txn); err != nil {
					t.Error(err)
				}
			}
		})
	}
	// The list may be of any moment after the revision.
	entries, err := kv.List(t.Context(), "m/", "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	mirror := map[string]int64{}
	for _, e := range entries {
		mirror[e.Key] = e.Revision
	}
	go func() {
		writing.Wait()
		if err := kv.Commit(t.Context(), put("m/end", "")); err != nil {
			t.Error(err)
		}
	}()
	for mirror["m/end"] == 0 {
		changes, next, err := kv.Watch(t.Context(), "m/", revision)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			if c.Revision <= revision || c.Revision > next {
				t.Errorf("between %d and %d it is told %+v", revision, next, c)
			}
			if c.Deleted {
				delete(mirror, c.Key)
			} else {
				mirror[c.Key] = c.Revision
			}
		}
		revision = next
	}
	want := map[string]int64{}
	entries, err = kv.List(t.Context(), "m/", "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		want[e.Key] = e.Revision
	}
	if !maps.Equal(mirror, want) {
		t.Errorf("the mirror has %v, want %v", mirror, want)
	}
}

package catalogue

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestKeyLockExcludes(t *testing.T) {
	leakless(t)
	var l keyLock
	counts := []*int{new(int), new(int)}
	together(16, func(i int) {
		key := []string{"a", "b"}[i%2]
		for range 200 {
			unlock, err := l.lock(context.Background(), key)
			if err != nil {
				t.Error(err)
				return
			}
			*counts[i%2]++ // the race detector watches
			unlock()
		}
	})
	if *counts[0] != 1600 || *counts[1] != 1600 || len(l.held) != 0 {
		t.Errorf("counted %d and %d, and %d keys are held still", *counts[0], *counts[1], len(l.held))
	}
}

func TestKeyLockGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l keyLock
		unlock, err := l.lock(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if other, err := l.lock(t.Context(), "b"); err != nil {
			t.Fatalf("another key is not free: %v", err)
		} else {
			other()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.lock(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting for a held key ended with %v", err)
		}
		unlock()
		if again, err := l.lock(t.Context(), "a"); err != nil {
			t.Errorf("the key was not let go of: %v", err)
		} else {
			again()
		}
	})
}

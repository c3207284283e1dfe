package auth

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/store"
)

func newKeeper(t testing.TB, kv store.KV, needed bool) *Keeper {
	t.Helper()
	s, err := store.New(t.Context(), kv)
	if err != nil {
		t.Fatal(err)
	}
	k, err := Open(t.Context(), s, needed)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var read = []faas.Grant{{Scope: faas.ScopeRead}}

func create(t testing.TB, k *Keeper, expires time.Time) (*faas.Token, string) {
	t.Helper()
	token, secret, err := k.Create(context.Background(), "ann", read, expires)
	if err != nil {
		t.Fatal(err)
	}
	return token, secret
}

func TestKeeper(t *testing.T) {
	kv := store.NewMemory()
	k := newKeeper(t, kv, false)
	if k.Required() {
		t.Error("a token is required, and there is none")
	}
	ann, secret := create(t, k, time.Time{})
	bob, other := create(t, k, time.Time{})
	if !regexp.MustCompile(`^fob_[0-9a-f]{16}_[0-9a-f]{64}$`).MatchString(secret) || !strings.HasPrefix(secret, "fob_"+ann.ID) || secret == other {
		t.Errorf("the secrets are %s and %s", secret, other)
	}
	// As it is, and as the next dispatcher reads it.
	for _, k := range []*Keeper{k, newKeeper(t, kv, false)} {
		if got := k.Find(secret); !k.Required() || got == nil || got.ID != ann.ID || got.Name != "ann" || !got.May(faas.ScopeRead, nil) {
			t.Errorf("found %+v", got)
		}
		if list, err := k.List(t.Context()); err != nil || len(list) != 2 || list[0].ID != ann.ID || list[1].ID != bob.ID {
			t.Errorf("listed %v, %v", list, err)
		}
		digit := func(i int) string { // another one
			c := byte('0')
			if secret[i] == c {
				c = '1'
			}
			return secret[:i] + string(c) + secret[i+1:]
		}
		for _, bad := range []string{"", "fob_", secret[:len(secret)-1], secret + "0", " " + secret, strings.ToUpper(secret), digit(5), digit(22), digit(len(secret) - 1),
			"fob_" + bob.ID + secret[20:], strings.Repeat("0", len(secret)), "fob_" + strings.Repeat("0", len(secret)-4), strings.Repeat("x", 1<<20)} {
			if got := k.Find(bad); got != nil {
				t.Errorf("%.100q finds %v", bad, got)
			}
		}
	}
	// Nothing of the secret is in the store.
	entries, err := kv.List(t.Context(), "", "", 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(string(e.Value), secret[22:]) || strings.Contains(string(e.Value), secret[22:40]) {
			t.Errorf("the record %s has the secret: %s", e.Key, e.Value)
		}
	}
	if err := k.Revoke(t.Context(), ann.ID); err != nil || k.Find(secret) != nil || k.Find(other) == nil || newKeeper(t, kv, false).Find(secret) != nil {
		t.Errorf("a revoked token is still good (%v)", err)
	}
	if err := k.Revoke(t.Context(), ann.ID); faas.CodeOf(err) != faas.CodeUnknownToken {
		t.Errorf("revoked twice: %v", err)
	}
	if err := k.Revoke(t.Context(), bob.ID); err != nil || k.Required() || newKeeper(t, kv, false).Required() {
		t.Errorf("with the last one revoked, a token is still required (%v)", err)
	}
}

func TestLastToken(t *testing.T) {
	k := newKeeper(t, store.NewMemory(), true)
	ann, _ := create(t, k, time.Time{})
	if err := k.Revoke(t.Context(), ann.ID); faas.CodeOf(err) != faas.CodeLastToken || !k.Required() {
		t.Errorf("the last one was revoked: %v", err)
	}
	bob, _ := create(t, k, time.Time{})
	if err := k.Revoke(t.Context(), ann.ID); err != nil {
		t.Error(err)
	}
	if err := k.Revoke(t.Context(), bob.ID); faas.CodeOf(err) != faas.CodeLastToken {
		t.Errorf("the last one was revoked: %v", err)
	}
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeper(t, store.NewMemory(), false)
		_, secret := create(t, k, time.Now().Add(time.Hour))
		time.Sleep(time.Hour - time.Nanosecond)
		if k.Find(secret) == nil {
			t.Error("it expired too early")
		}
		time.Sleep(time.Nanosecond)
		if k.Find(secret) != nil || !k.Required() {
			t.Error("it is good beyond its time, or does not count any more")
		}
		if _, _, err := k.Create(t.Context(), "ann", read, time.Now()); faas.CodeOf(err) != faas.CodeBadRequest {
			t.Errorf("one that has expired was made: %v", err)
		}
	})
}

// broken is a store that fails.
type broken struct{ faas.TokenStore }

func (broken) CreateToken(context.Context, *faas.StoredToken) error { return errors.New("disk full") }
func (broken) DeleteToken(context.Context, string) error            { return errors.New("disk full") }

// What is not stored has not happened.
func TestStoreFails(t *testing.T) {
	k := newKeeper(t, store.NewMemory(), false)
	ann, secret := create(t, k, time.Time{})
	k.store = broken{k.store}
	if _, _, err := k.Create(t.Context(), "bob", read, time.Time{}); err == nil {
		t.Error("a token that is not stored was made")
	}
	if err := k.Revoke(t.Context(), ann.ID); err == nil || k.Find(secret) == nil {
		t.Errorf("a token that is stored still was revoked: %v", err)
	}
	if list, _ := k.List(t.Context()); len(list) != 1 {
		t.Errorf("there are %v", list)
	}
}

// Tokens come and go while others are looked up.
func TestConcurrentTokens(t *testing.T) {
	k := newKeeper(t, store.NewMemory(), true)
	_, constant := create(t, k, time.Time{})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				token, secret := create(t, k, time.Time{})
				if k.Find(secret) == nil || k.Find(constant) == nil || !k.Required() {
					t.Error("a token is not found")
				}
				if err := k.Revoke(context.Background(), token.ID); err != nil || k.Find(secret) != nil {
					t.Errorf("a revoked token is found (%v)", err)
				}
			}
		})
	}
	all.Wait()
	if list, _ := k.List(t.Context()); len(list) != 1 {
		t.Errorf("%d tokens are left", len(list))
	}
}

// Looking up a token is on the way of every call.
func TestFindAllocations(t *testing.T) {
	k := newKeeper(t, store.NewMemory(), false)
	_, secret := create(t, k, time.Now().Add(time.Hour))
	if n := testing.AllocsPerRun(1000, func() {
		if !k.Required() || k.Find(secret) == nil {
			t.Fatal("not found")
		}
	}); n != 0 {
		t.Errorf("it allocates %v times", n)
	}
}

func BenchmarkFind(b *testing.B) {
	k := newKeeper(b, store.NewMemory(), false)
	_, secret := create(b, k, time.Time{})
	for name, text := range map[string]string{"right": secret, "wrong": secret[:len(secret)-1] + "x", "unknown": fmt.Sprintf("fob_%016x_%064x", 1, 1)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				k.Find(text)
			}
		})
	}
}

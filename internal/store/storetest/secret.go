package storetest

import (
	"bytes"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// Secrets runs the suite for a faas.SecretStore. open returns an empty one at each
// call.
func Secrets(t *testing.T, open func(t *testing.T) faas.SecretStore) {
	t.Run("put and delete", func(t *testing.T) { putSecrets(t, open(t)) })
	t.Run("reseal", func(t *testing.T) { resealSecrets(t, open(t)) })
	t.Run("concurrent", func(t *testing.T) { concurrentSecrets(t, open(t)) })
}

func sealedSecret(name string, version int) *faas.SealedSecret {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return &faas.SealedSecret{
		Secret: faas.Secret{Name: name, Version: version, Functions: []string{"f"}, Created: now, Updated: now},
		Key:    "0badc0de", Sealed: []byte{0, 1, 0xff},
	}
}

func wantSecrets(t *testing.T, s faas.SecretStore, want ...*faas.SealedSecret) {
	t.Helper()
	got, err := s.Secrets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
		t.Errorf("the secrets are %+v, want %+v", got, want)
	}
	for _, w := range want {
		if one, err := s.Secret(t.Context(), w.Name); err != nil || !reflect.DeepEqual(one, w) {
			t.Errorf("secret %s is %+v, %v; want %+v", w.Name, one, err, w)
		}
	}
}

func putSecrets(t *testing.T, s faas.SecretStore) {
	wantSecrets(t, s)
	if one, err := s.Secret(t.Context(), "A"); one != nil || err != nil {
		t.Errorf("one that there is not: %v, %v", one, err)
	}
	a, b := sealedSecret("A", 1), sealedSecret("B", 1)
	for _, secret := range []*faas.SealedSecret{b, a} {
		if err := s.PutSecret(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
	}
	wantSecrets(t, s, a, b)
	for _, wrong := range []*faas.SealedSecret{sealedSecret("A", 1), sealedSecret("A", 3), sealedSecret("C", 2)} {
		wantCode(t, s.PutSecret(t.Context(), wrong), faas.CodeConflict)
	}
	a = sealedSecret("A", 2)
	if err := s.PutSecret(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	wantSecrets(t, s, a, b)
	wantCode(t, s.DeleteSecret(t.Context(), "C"), faas.CodeUnknownSecret)
	if err := s.DeleteSecret(t.Context(), "A"); err != nil {
		t.Fatal(err)
	}
	wantSecrets(t, s, b)
}

func resealSecrets(t *testing.T, s faas.SecretStore) {
	if err := s.ResealSecrets(t.Context(), nil); err != nil {
		t.Error(err)
	}
	a, b := sealedSecret("A", 1), sealedSecret("B", 1)
	for _, secret := range []*faas.SealedSecret{a, b} {
		if err := s.PutSecret(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
	}
	again := func(secret *faas.SealedSecret) *faas.SealedSecret {
		next := *secret
		next.Key, next.Sealed = "00000001", []byte{7}
		return &next
	}
	// So few are in one transaction: all or none.
	for _, wrong := range []*faas.SealedSecret{sealedSecret("B", 2), sealedSecret("C", 1)} {
		wantCode(t, s.ResealSecrets(t.Context(), []*faas.SealedSecret{again(a), wrong}), faas.CodeConflict)
	}
	wantSecrets(t, s, a, b)
	if err := s.ResealSecrets(t.Context(), []*faas.SealedSecret{again(a), again(b)}); err != nil {
		t.Fatal(err)
	}
	wantSecrets(t, s, again(a), again(b))

	// More than fit into a transaction, by number and by size.
	var before, after []*faas.SealedSecret
	for i := range 150 {
		secret := sealedSecret(fmt.Sprintf("C%03d", i), 1)
		secret.Sealed = bytes.Repeat([]byte{1}, 1+i%3*15_000)
		if err := s.PutSecret(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
		next := again(secret)
		next.Sealed = secret.Sealed
		before, after = append(before, secret), append(after, next)
	}
	if err := s.ResealSecrets(t.Context(), after); err != nil {
		t.Fatal(err)
	}
	wantSecrets(t, s, append([]*faas.SealedSecret{again(a), again(b)}, after...)...)
	// A secret that changed meanwhile ends the resealing. Those before it are resealed
	// or not, each as a whole.
	before[140].Version = 7
	wantCode(t, s.ResealSecrets(t.Context(), before), faas.CodeConflict)
	all, err := s.Secrets(t.Context())
	if err != nil || len(all) != 152 {
		t.Fatal(len(all), err)
	}
	anew := 0
	for i, got := range all[2:] {
		if got.Key == before[i].Key {
			if anew++; anew != i+1 {
				t.Errorf("%s was sealed again before others", got.Name)
			}
		} else if !reflect.DeepEqual(got, after[i]) {
			t.Errorf("%s became %+v", got.Name, got)
		}
	}
	if anew == 0 || anew > 140 {
		t.Errorf("%d were sealed again", anew)
	}
}

func concurrentSecrets(t *testing.T, s faas.SecretStore) {
	var all sync.WaitGroup
	var stored atomic.Int64
	for range 8 {
		all.Go(func() {
			if err := s.PutSecret(t.Context(), sealedSecret("A", 1)); err == nil {
				stored.Add(1)
			} else if faas.CodeOf(err) != faas.CodeConflict {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if stored.Load() != 1 {
		t.Errorf("%d stored the first version, want 1", stored.Load())
	}
}

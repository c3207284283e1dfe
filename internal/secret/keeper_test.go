package secret_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/secret"
	"github.com/flockofbirds/fob/internal/store"
)

// world is a keeper over the in-memory store.
type world struct {
	*secret.Keeper
	t     *testing.T
	kv    store.KV
	store *flaky
	path  string // of the key file
}

// flaky is a store in which resealing can fail, before or after it is done or half
// way, and that somebody tampers with.
type flaky struct {
	faas.SecretStore
	before, after error
	most          int                // that are resealed before after, unless 0
	instead       *faas.SealedSecret // what Secret returns
}

func (f *flaky) Secret(ctx context.Context, name string) (*faas.SealedSecret, error) {
	if f.instead != nil {
		return f.instead, nil
	}
	return f.SecretStore.Secret(ctx, name)
}

func (f *flaky) ResealSecrets(ctx context.Context, all []*faas.SealedSecret) error {
	if f.before != nil {
		return f.before
	}
	if f.most > 0 {
		all = all[:f.most]
	}
	return errors.Join(f.SecretStore.ResealSecrets(ctx, all), f.after)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	kv := store.NewMemory()
	s, err := store.New(t.Context(), kv)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, kv: kv, store: &flaky{SecretStore: s}, path: filepath.Join(t.TempDir(), "secret.key")}
	if unreadable := w.reopen(); len(unreadable) > 0 {
		t.Fatalf("cannot be opened: %v", unreadable)
	}
	return w
}

func (w *world) reopen() (unreadable []string) {
	w.t.Helper()
	k, unreadable, err := secret.New(w.t.Context(), w.store, w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Keeper = k
	return unreadable
}

func (w *world) put(name, value string) *faas.Secret {
	w.t.Helper()
	s, _, err := w.Put(w.t.Context(), name, []byte(value), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) wants(name, value string) {
	w.t.Helper()
	_, got, err := w.Open(w.t.Context(), name)
	if err != nil || string(got) != value {
		w.t.Errorf("%s is %q, %v; want %q", name, got, err, value)
	}
}

func (w *world) keys() []string {
	w.t.Helper()
	text, err := os.ReadFile(w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

func (w *world) write(text string, mode os.FileMode) {
	w.t.Helper()
	if err := errors.Join(os.WriteFile(w.path, []byte(text), mode), os.Chmod(w.path, mode)); err != nil {
		w.t.Fatal(err)
	}
}

func fails(t *testing.T, err error, code faas.Code, words ...string) {
	t.Helper()
	if faas.CodeOf(err) != code {
		t.Fatalf("the error is %v, want %s", err, code)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error %q should mention %q", err, word)
		}
	}
}

func TestPutAndOpen(t *testing.T) {
	w := newWorld(t)
	if _, err := os.Stat(w.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a key file before there is a secret: %v", err)
	}
	binary := "\x00\xff\n" + strings.Repeat("x", faas.MaxSecretSize-3)
	w.put("A", "swordfish")
	w.put("B", binary)
	w.wants("A", "swordfish")
	w.wants("B", binary)
	if info, err := os.Stat(w.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key file: %v, %v", info.Mode(), err)
	}
	if len(w.keys()) != 1 {
		t.Errorf("%d keys, want 1", len(w.keys()))
	}
	if again := w.put("A", "marlin"); again.Version != 2 || again.Updated.Before(again.Created) {
		t.Errorf("set again it is %+v", again)
	}
	if unreadable := w.reopen(); len(unreadable) > 0 {
		t.Errorf("cannot be opened: %v", unreadable)
	}
	w.wants("A", "marlin")
	all, err := w.List(t.Context())
	if err != nil || len(all) != 2 || all[0].Name != "A" || all[1].Name != "B" {
		t.Errorf("listed %v, %v", all, err)
	}
	if s, value, err := w.Open(t.Context(), "C"); s != nil || value != nil || err != nil {
		t.Errorf("one that there is not: %v, %q, %v", s, value, err)
	}
	fails(t, w.Delete(t.Context(), "C"), faas.CodeUnknownSecret)
	if err := w.Delete(t.Context(), "A"); err != nil {
		t.Error(err)
	}
	if s, err := w.Get(t.Context(), "A"); s != nil || err != nil {
		t.Errorf("deleted, and still there: %v, %v", s, err)
	}
}

func TestFunctionsStayUnlessGiven(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ given, want []string }{
		{nil, []string{}}, {[]string{"b", "a", "b"}, []string{"a", "b"}}, {nil, []string{"a", "b"}}, {[]string{}, []string{}},
	} {
		if s, _, err := w.Put(t.Context(), "A", []byte("x"), c.given); err != nil || s.Functions == nil || !slices.Equal(s.Functions, c.want) {
			t.Errorf("for %v: %v, %v; want %v", c.given, s, err, c.want)
		}
	}
}

func TestRefused(t *testing.T) {
	w := newWorld(t)
	for what, c := range map[string]struct {
		name, value string
		functions   []string
		code        faas.Code
	}{
		"no value":             {"A", "", nil, faas.CodeBadRequest},
		"a large one":          {"A", strings.Repeat("x", faas.MaxSecretSize+1), nil, faas.CodeTooLarge},
		"no name":              {"", "x", nil, faas.CodeBadRequest},
		"another name":         {"a-b", "x", nil, faas.CodeBadRequest},
		"a reserved name":      {"FOB_TOKEN", "x", nil, faas.CodeBadRequest},
		"a function's":         {"A", "x", []string{"no such name"}, faas.CodeBadRequest},
		"too many functions'":  {"A", "x", slices.Repeat([]string{"f"}, 101), faas.CodeBadRequest},
		"an empty function's":  {"A", "x", []string{""}, faas.CodeBadRequest},
		"an ID in capitals":    {"A", "x", []string{"3F2B0C1E-0000-4000-8000-000000000000"}, faas.CodeBadRequest},
		"a version's":          {"A", "x", []string{"hello@3"}, faas.CodeBadRequest},
		"a name with a slash":  {"A/B", "x", nil, faas.CodeBadRequest},
		"a name of 65 letters": {strings.Repeat("A", 65), "x", nil, faas.CodeBadRequest},
	} {
		if _, _, err := w.Put(t.Context(), c.name, []byte(c.value), c.functions); faas.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", what, err, c.code)
		}
	}
	w.put("S0", "x")
	for i := 1; i < faas.MaxSecrets; i++ {
		s := &faas.SealedSecret{Secret: faas.Secret{Name: fmt.Sprintf("S%d", i), Version: 1}, Key: "0badc0de", Sealed: []byte("x")}
		if err := w.store.PutSecret(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := w.Put(t.Context(), "one_more", []byte("x"), nil)
	fails(t, err, faas.CodeBadRequest, "1000")
	w.put("S7", "y") // but those that there are can be set
}

// What is stored is sealed for that name and version, each time under another
// nonce, and tells nothing of the value.
func TestSealed(t *testing.T) {
	w := newWorld(t)
	const value = "correct horse battery staple"
	w.put("A", value)
	w.put("B", value)
	sealed := func(name string) *faas.SealedSecret {
		s, err := w.store.Secret(t.Context(), name)
		if err != nil || s == nil {
			t.Fatal(s, err)
		}
		return s
	}
	a, b := sealed("A"), sealed("B")
	if len(a.Sealed) != 24+len(value)+16 || bytes.Equal(a.Sealed[:24], b.Sealed[:24]) || bytes.Equal(a.Sealed[24:], b.Sealed[24:]) {
		t.Errorf("sealed are %x and %x", a.Sealed, b.Sealed)
	}
	entries, err := w.kv.List(t.Context(), "", "", 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		for _, form := range []string{value, hex.EncodeToString([]byte(value)), strings.Fields(w.keys()[0])[1]} {
			if bytes.Contains(e.Value, []byte(form)) {
				t.Errorf("%s has the value, or the key, in it: %s", e.Key, e.Value)
			}
		}
	}
	for what, change := range map[string]func(s *faas.SealedSecret){
		"another's":       func(s *faas.SealedSecret) { s.Sealed = b.Sealed },
		"another version": func(s *faas.SealedSecret) { s.Version++ },
		"a changed bit":   func(s *faas.SealedSecret) { s.Sealed[len(s.Sealed)-1] ^= 1 },
		"cut off":         func(s *faas.SealedSecret) { s.Sealed = s.Sealed[:20] },
		"another key":     func(s *faas.SealedSecret) { s.Key = "00000000" },
	} {
		changed := *a
		changed.Sealed = bytes.Clone(a.Sealed)
		change(&changed)
		w.store.instead = &changed
		_, value, err := w.Open(t.Context(), "A")
		if faas.CodeOf(err) != faas.CodeInternal || value != nil {
			t.Errorf("%s: opened as %q, %v", what, value, err)
		}
	}
}

func TestRotateKey(t *testing.T) {
	w := newWorld(t)
	if made, err := w.RotateKey(t.Context()); err != nil || made.Resealed != 0 || !strings.HasPrefix(w.keys()[0], made.Key+" ") {
		t.Errorf("with no secret and no key: %+v, %v", made, err)
	}
	w.put("A", "a")
	w.put("B", "b")
	before := w.keys()
	made, err := w.RotateKey(t.Context())
	if err != nil || made.Resealed != 2 {
		t.Fatalf("%+v, %v", made, err)
	}
	after := w.keys()
	if len(after) != 1 || after[0] == before[0] || !strings.HasPrefix(after[0], made.Key+" ") {
		t.Errorf("the keys were %q, and are %q; the new one is %s", before, after, made.Key)
	}
	w.wants("A", "a")
	w.wants("B", "b")
	if s := w.put("A", "aa"); s.Version != 2 {
		t.Errorf("set again it is %+v", s)
	}
}

// At each point where a rotation can break off, everything can be read, and the
// next rotation clears up.
func TestRotationBreaksOff(t *testing.T) {
	crash := errors.New("crash")
	for name, prepare := range map[string]func(w *world){
		"before the secrets are stored": func(w *world) { w.store.before = crash },
		"after the secrets are stored":  func(w *world) { w.store.after = crash },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.put("A", "a")
			prepare(w)
			if _, err := w.RotateKey(t.Context()); !errors.Is(err, crash) {
				t.Fatalf("it did not break off: %v", err)
			}
			for range 20 { // which must not add up
				w.RotateKey(t.Context())
			}
			w.store.before, w.store.after = nil, nil
			if n := len(w.keys()); n != 2 {
				t.Errorf("%d keys, want the old and the new one", n)
			}
			if unreadable := w.reopen(); len(unreadable) > 0 {
				t.Errorf("cannot be opened: %v", unreadable)
			}
			w.wants("A", "a")
			w.put("B", "b")
			if made, err := w.RotateKey(t.Context()); err != nil || made.Resealed != 2 || len(w.keys()) != 1 {
				t.Errorf("then: %+v, %v, %d keys", made, err, len(w.keys()))
			}
			w.wants("A", "a")
			w.wants("B", "b")
		})
	}
	// The file may be elsewhere, behind a link, and is replaced there.
	linked := newWorld(t)
	linked.put("A", "a")
	elsewhere := filepath.Join(t.TempDir(), "key")
	if err := errors.Join(os.Rename(linked.path, elsewhere), os.Symlink(elsewhere, linked.path)); err != nil {
		t.Fatal(err)
	}
	linked.reopen()
	if _, err := linked.RotateKey(t.Context()); err != nil {
		t.Error(err)
	}
	if to, err := os.Readlink(linked.path); err != nil || to != elsewhere {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	linked.reopen()
	linked.wants("A", "a")

	// A crash while the file is written leaves this beside it.
	w := newWorld(t)
	w.put("A", "a")
	if err := os.WriteFile(w.path+".new", []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := w.RotateKey(t.Context()); err != nil {
		t.Error(err)
	}
	w.wants("A", "a")
	if info, err := os.Stat(w.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key file: %v, %v", info.Mode(), err)
	}
	if _, err := os.Stat(w.path + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a second file is left: %v", err)
	}
}

// One that breaks off half way leaves secrets of several keys. All can be read, and the
// next rotation that succeeds seals all of them with one.
func TestRotationBreaksOffHalfWay(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"A", "B", "C", "D"} {
		w.put(name, name)
	}
	w.store.after = errors.New("crash")
	for _, w.store.most = range []int{3, 2, 2, 1} {
		if _, err := w.RotateKey(t.Context()); !errors.Is(err, w.store.after) {
			t.Fatalf("it did not break off: %v", err)
		}
		if unreadable := w.reopen(); len(unreadable) > 0 {
			t.Errorf("cannot be opened: %v", unreadable)
		}
	}
	if n := len(w.keys()); n > 5 {
		t.Errorf("%d keys are kept", n)
	}
	w.store.after, w.store.most = nil, 0
	if made, err := w.RotateKey(t.Context()); err != nil || made.Resealed != 4 || len(w.keys()) != 1 {
		t.Errorf("then: %+v, %v, %d keys", made, err, len(w.keys()))
	}
	for _, name := range []string{"A", "B", "C", "D"} {
		w.wants(name, name)
	}
}

// A key that is gone is told of, and never replaced.
func TestLostKey(t *testing.T) {
	w := newWorld(t)
	w.put("A", "a")
	w.put("B", "b")
	kept := w.keys()[0] + "\n"
	for what, lose := range map[string]func(){
		"no file":     func() { os.Remove(w.path) },
		"another key": func() { w.write("0badc0de "+strings.Repeat("ab", 32)+"\n", 0o600) },
		"another key of the same ID": func() {
			w.write(kept[:9]+strings.Repeat("ab", 32)+"\n", 0o600)
		},
	} {
		lose()
		before, _ := os.ReadFile(w.path)
		if unreadable := w.reopen(); !slices.Equal(unreadable, []string{"A", "B"}) {
			t.Errorf("%s: only %v cannot be opened", what, unreadable)
		}
		_, _, err := w.Open(t.Context(), "A")
		fails(t, err, faas.CodeInternal, "backup", "delete the secret", w.path)
		if e, _ := errors.AsType[*faas.Error](err); strings.Contains(e.Message, w.path) {
			t.Errorf("%s: callers are told the path: %s", what, e.Message)
		}
		_, err = w.RotateKey(t.Context())
		fails(t, err, faas.CodeInternal, "backup")
		if what == "no file" {
			_, _, err = w.Put(t.Context(), "C", []byte("c"), nil)
			fails(t, err, faas.CodeInternal, "missing", "backup")
		}
		if after, _ := os.ReadFile(w.path); !bytes.Equal(before, after) {
			t.Errorf("%s: the key file is changed", what)
		}
		w.write(kept, 0o600)
		w.wants("A", "a") // put back, all is well, without a new start
	}
	os.Remove(w.path)
	for _, name := range []string{"A", "B"} {
		if err := w.Delete(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	w.put("A", "again")
	w.wants("A", "again")
}

func TestBadKeyFile(t *testing.T) {
	good := "0badc0de " + strings.Repeat("ab", 32) + "\n"
	for what, c := range map[string]struct {
		text string
		mode os.FileMode
		word string
	}{
		"readable for all":    {good, 0o644, "chmod 600"},
		"for a group":         {good, 0o640, "chmod 600"},
		"executable":          {good, 0o700, "chmod 600"},
		"empty":               {"", 0o600, "no key"},
		"cut off":             {good[:40], 0o600, "line 1"},
		"a second line's not": {good + "x\n", 0o600, "line 2"},
	} {
		w := newWorld(t)
		w.write(c.text, c.mode)
		_, _, err := secret.New(t.Context(), w.store, w.path)
		fails(t, err, faas.CodeInternal, c.word, w.path)
		_, _, err = w.Put(t.Context(), "A", []byte("a"), nil)
		fails(t, err, faas.CodeInternal)
		if text, _ := os.ReadFile(w.path); string(text) != c.text {
			t.Errorf("%s: the file is changed", what)
		}
	}
	w := newWorld(t)
	w.write(good, 0o400) // as some systems mount them
	w.put("A", "a")
	w.wants("A", "a")
}

// Values are set, opened and sealed anew at the same time, and none is lost.
func TestConcurrent(t *testing.T) {
	w := newWorld(t)
	w.put("same", "0")
	var all sync.WaitGroup
	for i := range 4 {
		name := fmt.Sprint("own", i)
		w.put(name, "0")
		all.Go(func() {
			for n := range 10 {
				if _, _, err := w.Put(t.Context(), name, fmt.Append(nil, n), nil); err != nil {
					t.Error(err)
				}
				if _, value, err := w.Open(t.Context(), name); err != nil || string(value) != fmt.Sprint(n) {
					t.Errorf("%s is %q, %v; want %d", name, value, err, n)
				}
				if _, _, err := w.Put(t.Context(), "same", []byte("x"), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Go(func() {
		for range 5 {
			if _, err := w.RotateKey(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	all.Wait()
	if s, err := w.Get(t.Context(), "same"); err != nil || s.Version != 41 || len(w.keys()) != 1 {
		t.Errorf("%+v, %v, %d keys", s, err, len(w.keys()))
	}
}

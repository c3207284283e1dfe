package dispatch

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

func (w *world) setSecret(name, value string, functions ...string) {
	w.t.Helper()
	if _, _, err := w.PutSecret(w.t.Context(), name, []byte(value), append([]string{}, functions...)); err != nil {
		w.t.Fatal(err)
	}
}

// got is what the newest sandbox was loaded with, as "NAME=value …".
func (w *world) got() string {
	w.engine.mu.Lock()
	s := w.engine.born[len(w.engine.born)-1]
	w.engine.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for name, value := range s.loaded.Env {
		all = append(all, name+"="+value)
	}
	for name, value := range s.loaded.Secrets {
		all = append(all, fmt.Sprintf("%s:%s", name, string(value)))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func (w *world) register(name, set string) error {
	patch := settings(set)
	_, _, err := w.Put(w.t.Context(), faas.Ref{Name: name}, faas.Draft{Code: "version", Settings: patch})
	return err
}

func wants(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSandboxesGetEnvAndSecrets(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.setSecret("KEY", "swordfish")
		fn := w.create("version", "env=A=1,B=2 secrets=KEY")
		wants(t, w.got(), "A=1 B=2 KEY:swordfish")
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
		// What is not said stays, and what is said to be nothing goes.
		w.put(fn, "version", "timeout=1s")
		wants(t, w.got(), "A=1 B=2 KEY:swordfish")
		for _, c := range []struct{ set, want string }{{"env", "KEY:swordfish"}, {"secrets", ""}} {
			if _, _, err := w.Patch(t.Context(), faas.Ref{ID: fn.ID}, settings(c.set+"=")); err != nil {
				t.Fatal(err)
			}
			wants(t, w.got(), c.want)
		}
	})
}

// A secret that is set again reaches the next sandbox, and those that run keep
// what they have.
func TestSecretSetAgain(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.setSecret("KEY", "old")
		fn := w.create("gated", "secrets=KEY max_scale=2")
		w.setSecret("KEY", "new")
		wants(t, w.got(), "KEY:old")
		calls := w.beginAll(fn, 2)
		time.Sleep(10 * time.Second) // until two calls at a time are demand
		synctest.Wait()
		if n := len(w.engine.running("gated")); n != 2 {
			t.Fatalf("%d sandboxes, want 2", n)
		}
		wants(t, w.got(), "KEY:new")
		close(w.engine.gate)
		for _, call := range calls {
			(<-call).wants(t, `{"result":1}`)
		}
	})
}

func TestSecretsAreCheckedAtRegistration(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.setSecret("ANY", "x")
		w.setSecret("ONE", "x", "one")
		for _, c := range []struct{ name, set, word string }{
			{"one", "secrets=ANY,ONE", ""},
			{"two", "secrets=ANY", ""},
			{"two", "secrets=ANY,ONE", "other functions"},
			{"three", "secrets=ONE", "other functions"},
			{"one", "secrets=NONE", "no secret NONE"},
			{"one", "env=ANY=1", "both"},
			{"one", "env=OWN=1", ""},
		} {
			before := w.engine.attempts
			err := w.register(c.name, c.set)
			if c.word == "" && err != nil || c.word != "" && (faas.CodeOf(err) != faas.CodeBadRequest || !strings.Contains(err.Error(), c.word)) {
				t.Errorf("%s with %s: %v", c.name, c.set, err)
			}
			if c.word != "" && w.engine.attempts != before {
				t.Errorf("%s with %s: a sandbox was started", c.name, c.set)
			}
		}
		// By ID too.
		fn := w.create("version", "")
		w.setSecret("ONE", "x", fn.ID)
		w.put(fn, "version", "secrets=ONE")
	})
}

// Who may deploy some functions gets at the secrets that are for just these, and
// learns nothing of others, not even whether they are there.
func TestSecretsOfALimitedToken(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.setSecret("ANY", "x")
		w.setSecret("ONE", "x", "one")
		w.setSecret("TWO", "x", "two")
		limited := faas.Caller{Kind: faas.CallerToken, Token: &faas.Token{Grants: []faas.Grant{{Scope: faas.ScopeDeploy, Function: "one"}, {Scope: faas.ScopeRead}}}}
		ctx := faas.WithCaller(t.Context(), limited)
		put := func(ctx context.Context, set string) error {
			_, _, err := w.Put(ctx, faas.Ref{Name: "one"}, faas.Draft{Code: "version", Settings: settings(set)})
			return err
		}
		refused := func(err error, name string) {
			t.Helper()
			told := ""
			if err != nil {
				told = strings.ReplaceAll(err.Error(), name, "NAME")
			}
			if want := strings.ReplaceAll(put(ctx, "secrets=NONE").Error(), "NONE", "NAME"); faas.CodeOf(err) != faas.CodeForbidden || told != want {
				t.Errorf("%s: %q, and of one that is not there: %q", name, told, want)
			}
		}
		before := w.engine.attempts
		for _, name := range []string{"ANY", "TWO"} {
			refused(put(ctx, "secrets="+name), name)
			_, err := w.Create(ctx, "one", faas.Draft{Code: "version", Settings: settings("secrets=" + name)})
			refused(err, name)
		}
		if w.engine.attempts != before {
			t.Error("a sandbox was started")
		}
		if err := put(ctx, "secrets=ONE"); err != nil {
			t.Error(err)
		}
		// What the version before had is had anew, by new code perhaps.
		if err := put(t.Context(), "secrets=ONE,ANY"); err != nil {
			t.Fatal(err)
		}
		refused(put(ctx, "timeout=3s"), "ANY")
		_, _, err := w.Patch(ctx, faas.Ref{Name: "one"}, settings("env=A=1"))
		refused(err, "ANY")
		for _, grant := range []faas.Grant{{Scope: faas.ScopeDeploy}, {Scope: faas.ScopeAdmin}} {
			all := faas.Caller{Kind: faas.CallerToken, Token: &faas.Token{Grants: []faas.Grant{grant}}}
			if err := put(faas.WithCaller(t.Context(), all), "secrets=ANY"); err != nil {
				t.Errorf("%v: %v", grant, err)
			}
		}
	})
}

// A secret that is gone when a sandbox starts is an error that says so, and no
// sandbox is spent on it.
func TestMissingSecret(t *testing.T) {
	for what, lose := range map[string]func(w *world){
		"gone":                    func(w *world) { w.cfg.Secrets.Delete(w.t.Context(), "KEY") },
		"for other functions now": func(w *world) { w.setSecret("KEY", "x", "other") },
	} {
		t.Run(what, func(t *testing.T) {
			simulated(t, nil, func(t *testing.T, w *world) {
				w.setSecret("KEY", "x")
				w.setSecret("OTHER", "x")
				fn := w.create("crash", "secrets=KEY,OTHER")
				w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, faas.CodeSandboxDied)
				lose(w)
				before := w.engine.attempts
				w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, faas.CodeMissingSecret, "KEY", what)
				if w.engine.attempts != before {
					t.Error("a sandbox was started")
				}
				w.setSecret("KEY", "x")
				w.call(t.Context(), faas.Ref{ID: fn.ID}).fails(t, faas.CodeSandboxDied)
				wants(t, w.got(), "KEY:x OTHER:x")
			})
		})
	}
}

func TestSecretsInUse(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.setSecret("A", "x")
		w.setSecret("B", "x")
		fn := w.create("version", "secrets=A")
		if err := w.register("named", "secrets=A"); err != nil {
			t.Fatal(err)
		}
		users := func() map[string][]string {
			all, err := w.ListSecrets(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			users := map[string][]string{}
			for _, s := range all {
				users[s.Name] = s.UsedBy
			}
			return users
		}
		both := []string{fn.ID, "named"}
		slices.Sort(both)
		if got := users(); !maps.EqualFunc(got, map[string][]string{"A": both, "B": {}}, slices.Equal) {
			t.Errorf("used are %v", got)
		}
		if err := w.DeleteSecret(t.Context(), "A"); faas.CodeOf(err) != faas.CodeInUse || !strings.Contains(err.Error(), both[0]) {
			t.Errorf("deleted: %v", err)
		}
		// Older versions do not hold on to it.
		w.put(fn, "version", "secrets=")
		if err := w.Delete(t.Context(), faas.Ref{Name: "named"}); err != nil {
			t.Fatal(err)
		}
		if err := w.DeleteSecret(t.Context(), "A"); err != nil {
			t.Error(err)
		}
		if err := w.DeleteSecret(t.Context(), "A"); faas.CodeOf(err) != faas.CodeUnknownSecret {
			t.Errorf("deleted twice: %v", err)
		}
	})
}

// What a registration under way names stays.
func TestSecretOfARegistrationUnderWay(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		w.setSecret("A", "x")
		loading := make(chan struct{})
		w.engine.loads["slow"] = func(*fakeSandbox) string { <-loading; return "" }
		w.engine.calls["slow"] = func(s *fakeSandbox, _ *http.Request) string { return s.version() }
		registered := make(chan error, 1)
		go func() {
			_, err := w.Create(w.t.Context(), "", faas.Draft{Code: "slow", Settings: settings("secrets=A")})
			registered <- err
		}()
		synctest.Wait()
		if err := w.DeleteSecret(t.Context(), "A"); faas.CodeOf(err) != faas.CodeInUse {
			t.Errorf("deleted: %v", err)
		}
		close(loading)
		if err := <-registered; err != nil {
			t.Error(err)
		}
	})
}

// Secrets are set and deleted while functions that name them come and go:
// whatever is registered has its secret.
func TestSecretsChurn(t *testing.T) {
	leakless(t)
	w := newWorld(t, nil)
	defer w.Close()
	together(4, func(i int) {
		for n := range 20 {
			switch i {
			case 0:
				w.PutSecret(t.Context(), "A", []byte("x"), nil)
				continue
			case 1:
				w.DeleteSecret(t.Context(), "A")
				continue
			}
			fn, err := w.Create(t.Context(), "", faas.Draft{Code: "version", Settings: settings("secrets=A")})
			if faas.CodeOf(err) == faas.CodeBadRequest {
				continue
			}
			if err != nil {
				t.Errorf("%d: %v", n, err)
				continue
			}
			if s, err := w.cfg.Secrets.Get(t.Context(), "A"); s == nil || err != nil {
				t.Errorf("a function is registered, and its secret is %v, %v", s, err)
			}
			if err := w.Delete(t.Context(), faas.Ref{ID: fn.ID}); err != nil {
				t.Error(err)
			}
		}
	})
}

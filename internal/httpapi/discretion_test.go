package httpapi

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/faas"
)

// TestStrangersSeeNoCode: who may not read a public function sees nothing of what
// its code says in an error; who may read it sees all.
func TestStrangersSeeNoCode(t *testing.T) {
	const said = "SAID-BY-THE-CODE"
	raised := &faas.Raised{Type: said, Message: said, Line: 7, Traceback: said}
	own := &faas.Raised{Message: "b is missing; the function is callme(a, b)"}
	var err error
	invoke := invoker(func(_ context.Context, call *received) (faas.Result, error) {
		call.Version = &faas.Version{FunctionID: testID, Number: 3}
		return faas.Result{}, err
	})
	a := New(Config{Log: zerolog.Nop(), Metrics: http.NotFoundHandler(), MaxBody: testMaxBody, Hosts: []string{"example.com"}})
	registry := newFakeRegistry()
	tokens := newTokens(t, map[string]string{"all": "read invoke", "one": "read:hello", "caller": "invoke", "other": "invoke read:else", "admin": "admin"})
	open := func(t *fakeTokens) {
		a.Open(Backend{Registry: registry, Locator: registry, Invoker: invoke, Tokens: t, Audit: &fakeAudit{}})
	}
	for _, c := range []struct {
		err    *faas.Error
		status int
		open   bool // also for strangers
		quiet  bool // and are not sent to the log
	}{
		{err: &faas.Error{Code: faas.CodeRaised, Message: "the function raised " + said, Raised: raised}, status: 500},
		{err: &faas.Error{Code: faas.CodeRaised, Message: "the code cannot be loaded: " + said, Raised: raised}, status: 500},
		{err: &faas.Error{Code: faas.CodeBadCode, Message: said, Raised: raised}, status: 422},
		{err: &faas.Error{Code: faas.CodeBadResult, Message: said, Raised: &faas.Raised{Message: said}}, status: 500},
		{err: &faas.Error{Code: faas.CodeBadAnswer, Message: said}, status: 502},
		{err: &faas.Error{Code: faas.CodeBadArguments, Message: said, Raised: raised}, status: 404},
		{err: &faas.Error{Code: faas.CodeBadRequest, Message: said, Raised: &faas.Raised{Message: said, Line: 1}}, status: 400},
		{err: faas.Errorf(faas.CodeSandboxDied, said).Because(http.ErrBodyNotAllowed), status: 502},
		{err: faas.Errorf(faas.CodeMissingSecret, said), status: 500},
		{err: faas.Errorf(faas.CodeNotPermitted, said), status: 403},
		{err: faas.Errorf(faas.CodeUnknownFunction, said), status: 404, quiet: true},
		{err: faas.Errorf(faas.CodeOverLimit, said), status: 429, quiet: true},
		{err: faas.Errorf(faas.CodeNoCapacity, said), status: 503, quiet: true},

		{err: &faas.Error{Code: faas.CodeBadArguments, Message: said, Raised: own}, status: 404, open: true},
		{err: faas.Errorf(faas.CodeTimeout, said), status: 504, open: true},
		{err: faas.Errorf(faas.CodeTooLarge, said), status: 413, open: true},
	} {
		err = c.err
		for _, public := range []bool{true, false} {
			registry.fn.Live().Settings.Public = public
			for who, sees := range map[string]bool{"": c.open, "caller": c.open || !public, "other": c.open || !public, "all": true, "one": true, "admin": true} {
				if who == "" && !public || who == "one" && !public {
					continue // may not call it
				}
				open(tokens)
				w := serve(a, "GET", "/api/call/hello", "", "Authorization", "Bearer "+secretOf(who), "X-Call-Id", "call-17")
				p := wantProblem(t, w.Code, w.Header(), w.Body.String(), c.status, c.err.Code)
				if got := strings.Contains(w.Body.String(), said); got != sees {
					t.Errorf("%s, public %v: %q sees %s", c.err.Code, public, who, w.Body)
				}
				if !sees && (p.Error != nil || strings.Contains(p.Detail, "log") == c.quiet || !strings.Contains(p.Detail, "may read") || p.CallID != "call-17") {
					t.Errorf("%s: %q is not told where to look: %s", c.err.Code, who, w.Body)
				}
			}
			open(&fakeTokens{}) // with which everybody may do everything
			if w := serve(a, "GET", "/api/call/hello", ""); !strings.Contains(w.Body.String(), said) {
				t.Errorf("%s: without any token the answer is %s", c.err.Code, w.Body)
			}
		}
	}
}

// TestRefusedRedirectsAreLogged: the log says why an answer was refused that for others went
// well, and strangers cannot flood it so.
func TestRefusedRedirectsAreLogged(t *testing.T) {
	var log bytes.Buffer
	registry := newFakeRegistry()
	a := New(Config{Log: zerolog.New(&log), Metrics: http.NotFoundHandler(), MaxBody: testMaxBody, Hosts: []string{"example.com"}})
	a.Open(Backend{
		Registry: registry, Locator: registry, Audit: &fakeAudit{}, Tokens: &fakeTokens{},
		Invoker: invoker(func(_ context.Context, call *received) (faas.Result, error) {
			call.Version = registry.fn.Live()
			result := plainResult("")
			result.Status, result.Header = 302, http.Header{"Location": {"/api/functions"}}
			return result, nil
		}),
	})
	for range 1000 {
		w := serve(a, "GET", "/api/call/hello", "", "X-Call-Id", "call-17")
		wantProblem(t, w.Code, w.Header(), w.Body.String(), 502, faas.CodeBadAnswer)
	}
	first, _, _ := strings.Cut(log.String(), "\n")
	for _, part := range []string{`"level":"warn"`, `"call":"call-17"`, testID, `"name":"hello"`, `"outcome":"bad_answer"`, "/api/functions", `"a call failed"`} {
		if !strings.Contains(first, part) {
			t.Errorf("the line lacks %s: %s", part, first)
		}
	}
	if n := strings.Count(log.String(), "\n"); n < loggedErrors.Burst || n > 500 {
		t.Errorf("1000 calls have %d lines", n)
	}
}

// TestCausesAreLoggedOnce: the log has the cause of an error once. For a call that got to its
// function whoever watches calls logs it, and for all else the handler does.
func TestCausesAreLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	registry := newFakeRegistry()
	a := New(Config{Log: zerolog.New(&log), Metrics: http.NotFoundHandler(), MaxBody: testMaxBody, Hosts: []string{"example.com"}})
	failed := faas.Errorf(faas.CodeStorage, "nothing can be read").Because(errors.New("the cause"))
	a.Open(Backend{
		Registry: registry, Locator: registry, Audit: &fakeAudit{}, Tokens: &fakeTokens{},
		Invoker: invoker(func(context.Context, *received) (faas.Result, error) { return faas.Result{}, failed }),
	})
	w := serve(a, "GET", "/api/call/hello", "")
	wantProblem(t, w.Code, w.Header(), w.Body.String(), 503, faas.CodeStorage)
	if log.Len() > 0 {
		t.Errorf("a call that failed has a second line: %s", log.String())
	}
	if failed.Cause == nil {
		t.Error("the invoker's error was changed")
	}
	refused := &kept{header: http.Header{}}
	r := httptest.NewRequest("GET", "/api/call/hello", nil)
	markCall(refused.Header(), r)
	a.problem(refused, r, failed)
	if !strings.Contains(log.String(), "the cause") {
		t.Errorf("of a call that was refused before it began the log says %q", log.String())
	}
}

// TestStrangersSeeNoVersions: of a version that is not there a stranger hears no more
// than that.
func TestStrangersSeeNoVersions(t *testing.T) {
	registry := newFakeRegistry()
	registry.fn.Live().Settings.Public = true
	var err error
	a := New(Config{Log: zerolog.Nop(), Metrics: http.NotFoundHandler(), MaxBody: testMaxBody, Hosts: []string{"example.com"}})
	a.Open(Backend{
		Registry: registry, Locator: registry, Audit: &fakeAudit{}, Tokens: newTokens(t, map[string]string{"all": "read invoke"}),
		Invoker: invoker(func(context.Context, *received) (faas.Result, error) { return faas.Result{}, err }),
	})
	err = faas.UnknownVersion(registry.fn, 2)
	for who, sees := range map[string]bool{"": false, "all": true} {
		w := serve(a, "GET", "/api/call/hello@2", "", "Authorization", "Bearer "+secretOf(who))
		p := wantProblem(t, w.Code, w.Header(), w.Body.String(), 404, faas.CodeUnknownFunction)
		if strings.Contains(p.Detail, "keep_versions") != sees || strings.Contains(p.Detail, "there are") != sees {
			t.Errorf("%q sees %s", who, p.Detail)
		}
	}
}

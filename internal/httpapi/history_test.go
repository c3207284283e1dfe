package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/buffer"
	"github.com/flockofbirds/fob/internal/faas"
	past "github.com/flockofbirds/fob/internal/history"
	"github.com/flockofbirds/fob/internal/observe"
)

// remembering returns an API with a real history, whose functions fail if their first
// argument is fail, and the history.
func remembering(t *testing.T, grants map[string]string) (*API, *past.History) {
	t.Helper()
	kept, err := past.Open(past.Config{Data: t.TempDir(), MaxBytes: 16 << 20, Lost: func(n int) { t.Errorf("%d calls are lost", n) }, Failed: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kept.Close() })
	registry := honest{newFakeRegistry()}
	invoke := invoker(func(_ context.Context, call *received) (faas.Result, error) {
		call.Version = registry.fn.Live()
		if strings.Contains(string(call.Args), "fail") {
			return faas.Result{}, &faas.Error{Code: faas.CodeRaised, Message: "the function raised KeyError: x", Raised: &faas.Raised{Type: "KeyError", Message: "x", Line: 3, Traceback: "Traceback of x"}}
		}
		return plainResult("{}"), nil
	})
	a := newAPI(t, registry, nil)
	a.Open(Backend{
		Registry: registry, Locator: registry, Tokens: newTokens(t, grants), Audit: &fakeAudit{}, History: kept,
		Invoker: faas.Stack(invoke, observe.Records(kept, nil)),
	})
	return a, kept
}

// honest is a registry that knows the one function it has, and no other.
type honest struct{ *fakeRegistry }

func (h honest) Resolve(_ context.Context, ref faas.Ref) (*faas.Function, *faas.Version, error) {
	if ref.Name != "hello" && ref.ID != testID {
		return nil, nil, faas.UnknownFunction(ref)
	}
	return h.fn, h.fn.Live(), h.err // without remembering it: streams ask at the same time
}

// recorded waits until the history has that many calls.
func recorded(t *testing.T, kept *past.History, n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		found := 0
		for range kept.Calls(faas.CallQuery{}, nil) {
			found++
		}
		if found >= n {
			return
		}
	}
	t.Fatalf("the history never has %d calls", n)
}

func calledIDs(page api.Calls) (ids string) {
	for _, c := range page.Calls {
		ids += c.ID + " "
	}
	return strings.TrimSpace(ids)
}

// TestCallsAreListed: calls that are made can be looked up, page by page.
func TestCallsAreListed(t *testing.T) {
	a, kept := remembering(t, nil)
	for i := range 5 {
		args := ""
		if i == 2 {
			args = "?why=fail"
		}
		serve(a, "POST", "/api/call/hello"+args, `{"a": 1}`, "X-Call-Id", fmt.Sprint("c", i), "Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	}
	recorded(t, kept, 5)
	list := func(query string) api.Calls {
		t.Helper()
		w := serve(a, "GET", "/api/calls"+query, "")
		var page api.Calls
		if err := json.Unmarshal(w.Body.Bytes(), &page); w.Code != 200 || err != nil || page.Calls == nil {
			t.Fatalf("%s is answered %d %s, %v", query, w.Code, w.Body, err)
		}
		return page
	}
	for query, want := range map[string]string{
		"": "c4 c3 c2 c1 c0", "?outcome=failed": "c2", "?outcome=function_raised&function=hello&version=3": "c2", "?function=" + testID + "&outcome=ok": "c4 c3 c1 c0",
		"?function=" + otherID: "", "?version=4": "", "?text=Traceback+of": "c2", "?trace=4bf92f3577b34da6a3ce929d0e0e4736&limit=1": "c4", "?caller=192.0.2.1": "c4 c3 c2 c1 c0",
		"?since=1h&until=0s": "c4 c3 c2 c1 c0", "?since=2999-01-01T00:00:00Z": "", "?until=24h": "", "?min_run=1h": "",
	} {
		if got := calledIDs(list(query)); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	all, pages := "", 0
	for after := ""; ; pages++ {
		page := list("?limit=2" + after)
		all += calledIDs(page) + " "
		if page.Next == nil {
			break
		}
		after = "&after=" + *page.Next
	}
	if all != "c4 c3 c2 c1 c0 " || pages != 2 {
		t.Errorf("page by page there are %q", all)
	}
	w := serve(a, "GET", "/api/calls/c2", "")
	var call faas.CallRecord
	if err := json.Unmarshal(w.Body.Bytes(), &call); err != nil || w.Code != 200 {
		t.Fatalf("answered %d %s, %v", w.Code, w.Body, err)
	}
	if call.Timing.Total <= 0 || time.Since(call.Started) > time.Minute {
		t.Errorf("the times are %v, %+v", call.Started, call.Timing)
	}
	if len(call.Span) != 16 || call.Span == "00f067aa0ba902b7" {
		t.Errorf("its span is %q", call.Span)
	}
	call.Started, call.Timing, call.Span = time.Time{}, faas.CallTiming{}, ""
	want := faas.CallRecord{
		ID: "c2", Function: testID, Name: "hello", Version: 3, Outcome: "function_raised", State: faas.CallDone, Method: "POST", Path: "/api/call/hello", BytesIn: 8,
		Caller: "anonymous", Address: "192.0.2.1:1234", Trace: "4bf92f3577b34da6a3ce929d0e0e4736", Parent: "00f067aa0ba902b7",
	}
	why := faas.CallError{Type: "KeyError", Message: "x", Line: 3, Traceback: "Traceback of x"}
	if call.Error == nil || *call.Error != why {
		t.Errorf("it failed for %+v", call.Error)
	}
	if call.Error = nil; call != want {
		t.Errorf("it is %+v, want %+v", call, want)
	}
}

// TestHistoryIsDiscreet: a record has no arguments, and shows nothing to those who may
// not read its function.
func TestHistoryIsDiscreet(t *testing.T) {
	a, kept := remembering(t, map[string]string{"ann": "read invoke", "bob": "read:hello", "carl": "read:other invoke:hello", "dora": "invoke"})
	as := func(name string) []string { return []string{"Authorization", "Bearer " + secretOf(name)} }
	serve(a, "POST", "/api/call/hello?password=hunter2", `{"password": "hunter3"}`, append(as("ann"), "X-Call-Id", "c1")...)
	recorded(t, kept, 1)
	for name, sees := range map[string]bool{"ann": true, "bob": true, "carl": false} {
		w := serve(a, "GET", "/api/calls", "", as(name)...)
		if w.Code != 200 || strings.Contains(w.Body.String(), "c1") != sees || strings.Contains(w.Body.String(), "hunter") {
			t.Errorf("%s sees %d %s", name, w.Code, w.Body)
		}
		one, none := serve(a, "GET", "/api/calls/c1", "", as(name)...), serve(a, "GET", "/api/calls/c2", "", as(name)...)
		if sees && (one.Code != 200 || strings.Contains(one.Body.String(), "hunter")) {
			t.Errorf("%s sees %d %s", name, one.Code, one.Body)
		}
		if !sees && strings.ReplaceAll(one.Body.String(), "c1", "c2") != none.Body.String() {
			t.Errorf("%s is told %s, and of a call that there is not %s", name, one.Body, none.Body)
		}
		w = serve(a, "GET", "/api/calls?function=hello", "", as(name)...)
		if sees != (w.Code == 200) || !sees && !strings.Contains(w.Body.String(), string(faas.CodeUnknownFunction)) {
			t.Errorf("asked for the function %s sees %d %s", name, w.Code, w.Body)
		}
	}
	for _, path := range []string{"/api/calls", "/api/calls/c1"} {
		w := serve(a, "GET", path, "", as("dora")...)
		wantProblem(t, w.Code, w.Header(), w.Body.String(), 403, faas.CodeForbidden)
		w = serve(a, "GET", path, "")
		wantProblem(t, w.Code, w.Header(), w.Body.String(), 401, faas.CodeUnauthorized)
	}
	// A deleted function's calls can be named by its ID, by whoever may read all.
	if w := serve(a, "GET", "/api/calls?function="+otherID, "", as("ann")...); w.Code != 200 {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
	w := serve(a, "GET", "/api/calls?function="+otherID, "", as("bob")...)
	wantProblem(t, w.Code, w.Header(), w.Body.String(), 404, faas.CodeUnknownFunction)
}

// TestBadCallQueries: each is told what to write instead.
func TestBadCallQueries(t *testing.T) {
	a, _ := remembering(t, nil)
	for query, word := range map[string]string{
		"outcome=nonsense": "failed", "version=0": "from 1", "version=x": "number", "since=yesterday": "24h", "since=-1h": "how long ago", "until=x": "24h",
		"min_run=5": "500ms", "min_run=-1s": "500ms", "limit=0": "1000", "limit=1001": "1000", "after=x": "next", "after=0": "next", "follow=maybe": "true or false",
		"follow=true&limit=3": "leave out", "function=hello@2": "version", "function=": "function is empty", "caller=": "leave it out", "text=": "leave it out", "trace=&version=": "is empty", "version=": "version is empty", "outcome=": "outcome is empty", "after=": "after is empty", "colour=red": "colour", "function=a/b": "reference",
	} {
		w := serve(a, "GET", "/api/calls?"+query, "")
		p := wantProblem(t, w.Code, w.Header(), w.Body.String(), 400, faas.CodeBadRequest)
		if !strings.Contains(p.Detail, word) {
			t.Errorf("%s: %s, which should mention %q", query, p.Detail, word)
		}
	}
	w := serve(a, "GET", "/api/calls?function=nobody", "")
	wantProblem(t, w.Code, w.Header(), w.Body.String(), 404, faas.CodeUnknownFunction)
	for _, id := range []string{"%00", "%22", strings.Repeat("x", 4000), "%F0%9F"} {
		w := serve(a, "GET", "/api/calls/"+id, "")
		wantProblem(t, w.Code, w.Header(), w.Body.String(), 404, faas.CodeUnknownCall)
	}
	without := newAPI(t, newFakeRegistry(), nil)
	for _, path := range []string{"/api/calls", "/api/calls/c1"} {
		w := serve(without, "GET", path, "")
		if p := wantProblem(t, w.Code, w.Header(), w.Body.String(), 404, faas.CodeUnknownCall); !strings.Contains(p.Detail, "FOB_HISTORY") {
			t.Errorf("without a history it is said: %s", p.Detail)
		}
	}
}

// TestFollowedCalls: calls come as they end, over a real connection, until the client
// leaves or the history is closed.
func TestFollowedCalls(t *testing.T) {
	a, kept := remembering(t, nil)
	server := httptest.NewServer(a)
	defer server.Close()
	response, err := http.Get(server.URL + "/api/calls?follow=true&outcome=failed")
	if err != nil || response.StatusCode != 200 || response.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatal(response, err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for i := range 3 {
		serve(a, "GET", "/api/call/hello", "")
		serve(a, "GET", "/api/call/hello?fail", "", "X-Call-Id", fmt.Sprint("c", i))
		var call faas.CallRecord
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &call); err != nil || call.ID != fmt.Sprint("c", i) {
			t.Errorf("followed %s, %v", lines.Bytes(), err)
		}
	}
	if err := kept.Close(); err != nil {
		t.Fatal(err)
	}
	if lines.Scan() || lines.Err() != nil {
		t.Errorf("after the end: %s, %v", lines.Bytes(), lines.Err())
	}
}

// TestOmittedCallsOnPages: calls that were left out are counted on one page, not on two.
func TestOmittedCallsOnPages(t *testing.T) {
	a, kept := remembering(t, nil)
	b := a.opened.Load().Backend
	b.History = sampled{kept}
	a.Open(b)
	omitted, ids, after := 0, "", ""
	for pages := 0; pages < 10; pages++ {
		var page api.Calls
		if w := serve(a, "GET", "/api/calls?limit=2"+after, ""); json.Unmarshal(w.Body.Bytes(), &page) != nil || w.Code != 200 {
			t.Fatalf("answered %d %s", w.Code, w.Body)
		}
		omitted += page.Omitted
		ids += calledIDs(page) + " "
		if page.Next == nil {
			break
		}
		after = "&after=" + *page.Next
	}
	if omitted != 1111 || strings.TrimSpace(ids) != "c7 c6 c4 c2" {
		t.Errorf("%d calls were left out, and there are %s", omitted, ids)
	}
}

// sampled is a history with calls that were left out.
type sampled struct{ *past.History }

func (sampled) Calls(query faas.CallQuery, _ <-chan struct{}) iter.Seq2[faas.StoredCall, error] {
	return func(yield func(faas.StoredCall, error) bool) {
		for i, omitted := range []int{1000, 0, 0, 100, 0, 10, 0, 1} {
			c := faas.StoredCall{Number: uint64(8 - i), Omitted: omitted}
			if omitted == 0 {
				c.Call.ID = fmt.Sprint("c", c.Number)
			}
			if (query.Before == 0 || c.Number < query.Before) && !yield(c, nil) {
				return
			}
		}
	}
}

// TestLargePages: a page of long records has fewer of them, and is counted as a buffer.
func TestLargePages(t *testing.T) {
	a, kept := remembering(t, nil)
	const n = 600
	for i := range n {
		kept.Record(faas.CallRecord{ID: fmt.Sprint("c", i), Function: testID, Outcome: "timeout", Started: time.Now(), Error: &faas.CallError{Message: "m", Traceback: strings.Repeat("\n", 8000)}})
	}
	recorded(t, kept, n)
	found, after := 0, ""
	for {
		var page api.Calls
		w := serve(a, "GET", "/api/calls?limit=1000"+after, "")
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || w.Code != 200 || w.Body.Len() > 8*pageBytes {
			t.Fatalf("answered %d with %d bytes, %v", w.Code, w.Body.Len(), err)
		}
		found += len(page.Calls)
		if page.Next == nil {
			break
		}
		after = "&after=" + *page.Next
	}
	if found != n {
		t.Errorf("there are %d calls", found)
	}
	a.bodies.budget = buffer.New(1 << 20)
	w := serve(a, "GET", "/api/calls?limit=1000", "")
	wantProblem(t, w.Code, w.Header(), w.Body.String(), 503, faas.CodeNoCapacity)
}

// TestFollowersLoseTheirRight: one that follows sees nothing more when its token is
// revoked or its function is gone, and ends when the dispatcher does.
func TestFollowersLoseTheirRight(t *testing.T) {
	for what, lose := range map[string]func(*API, *revocable, *forgetful){
		"the token is revoked":    func(_ *API, tokens *revocable, _ *forgetful) { tokens.revoked.Store(true) },
		"the function is deleted": func(_ *API, _ *revocable, registry *forgetful) { registry.deleted.Store(true) },
		"the dispatcher ends":     func(a *API, _ *revocable, _ *forgetful) { a.Leave() },
	} {
		grants := map[string]string{"bob": "read:hello"}
		a, kept := remembering(t, grants)
		b := a.opened.Load().Backend
		tokens, registry := &revocable{fakeTokens: newTokens(t, grants)}, &forgetful{Registry: b.Registry}
		b.Tokens, b.Registry = tokens, registry
		a.Open(b)
		server := httptest.NewServer(a)
		request, _ := http.NewRequest("GET", server.URL+"/api/calls?follow=true", nil)
		request.Header.Set("Authorization", "Bearer "+secretOf("bob"))
		response, err := http.DefaultClient.Do(request)
		if err != nil || response.StatusCode != 200 {
			t.Fatal(response, err)
		}
		lines := bufio.NewScanner(response.Body)
		kept.Record(faas.CallRecord{ID: "before", Function: testID, Outcome: "ok"})
		if !lines.Scan() || !strings.Contains(lines.Text(), "before") {
			t.Errorf("%s: before there is %s, %v", what, lines.Text(), lines.Err())
		}
		lose(a, tokens, registry)
		kept.Record(faas.CallRecord{ID: "after", Function: testID, Outcome: "ok"})
		if lines.Scan() || lines.Err() != nil {
			t.Errorf("%s: after there is %s, %v", what, lines.Text(), lines.Err())
		}
		response.Body.Close()
		server.Close()
	}
}

// revocable is tokens that can be revoked.
type revocable struct {
	*fakeTokens
	revoked atomic.Bool
}

func (r *revocable) List(context.Context) ([]*faas.Token, error) {
	if r.revoked.Load() {
		return nil, nil
	}
	return slices.Collect(maps.Values(r.by)), nil
}

// forgetful is a registry whose functions can be deleted.
type forgetful struct {
	faas.Registry
	deleted atomic.Bool
}

func (f *forgetful) Resolve(ctx context.Context, ref faas.Ref) (*faas.Function, *faas.Version, error) {
	if f.deleted.Load() {
		return nil, nil, faas.UnknownFunction(ref)
	}
	return f.Registry.Resolve(ctx, ref)
}

// TestCallsWithOneID: a call with another function's ID hides nothing from those who may
// not read that function.
func TestCallsWithOneID(t *testing.T) {
	a, kept := remembering(t, map[string]string{"bob": "read:hello"})
	for _, function := range []string{testID, otherID} {
		kept.Record(faas.CallRecord{ID: "c1", Function: function, Outcome: "ok"})
	}
	recorded(t, kept, 2)
	w := serve(a, "GET", "/api/calls/c1", "", "Authorization", "Bearer "+secretOf("bob"))
	if w.Code != 200 || !strings.Contains(w.Body.String(), testID) {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
}

package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/api"
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
		Invoker: faas.Stack(invoke, observe.History(kept)),
	})
	return a, kept
}

// honest is a registry that knows the one function it has, and no other.
type honest struct{ *fakeRegistry }

func (h honest) Resolve(ctx context.Context, ref faas.Ref) (*faas.Function, *faas.Version, error) {
	if ref.Name != "hello" && ref.ID != testID {
		return nil, nil, faas.UnknownFunction(ref)
	}
	return h.fakeRegistry.Resolve(ctx, ref)
}

// recorded waits until the history has that many calls.
func recorded(t *testing.T, kept *past.History, n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		found := 0
		for range kept.Calls(faas.CallQuery{}) {
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
	call.Started, call.Timing = time.Time{}, faas.CallTiming{}
	want := faas.CallRecord{
		ID: "c2", Function: testID, Name: "hello", Version: 3, Outcome: "function_raised", State: faas.CallDone, Method: "POST", Path: "/api/call/hello", BytesIn: 8,
		Caller: "anonymous", Address: "192.0.2.1:1234", Trace: "4bf92f3577b34da6a3ce929d0e0e4736",
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
		"follow=true&limit=3": "leave out", "function=hello@2": "version", "function=": "reference", "colour=red": "colour", "function=a/b": "reference",
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

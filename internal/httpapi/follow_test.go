package httpapi

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// event is an event of a stream: a call or a line, or how many are left out.
type event struct {
	id      string
	what    string // the call's ID or the line's text
	omitted int
}

// events are those of a stream that a test follows.
type events struct {
	t  *testing.T
	in *bufio.Scanner
}

// followEvents follows a path as a browser's EventSource does. last is the ID of the last
// event that it got, or empty.
func followEvents(t *testing.T, server *httptest.Server, path, last string) *events {
	t.Helper()
	request, err := http.NewRequest("GET", server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "text/event-stream")
	if last != "" {
		request.Header.Set("Last-Event-ID", last)
	}
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	if response.StatusCode != 200 || response.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s is answered %d, %s", path, response.StatusCode, response.Header.Get("Content-Type"))
	}
	in := bufio.NewScanner(response.Body)
	in.Buffer(nil, 1<<20)
	return &events{t, in}
}

// next returns the next event, for which it waits.
func (e *events) next() (got event) {
	e.t.Helper()
	for e.in.Scan() {
		text := e.in.Text()
		if id, ok := strings.CutPrefix(text, "id: "); ok {
			got.id = id
			continue
		}
		if data, ok := strings.CutPrefix(text, "data: "); ok {
			var document struct {
				ID, Text string
				Omitted  int
			}
			if err := json.Unmarshal([]byte(data), &document); err != nil {
				e.t.Fatalf("the event's data is %s: %v", data, err)
			}
			got.what, got.omitted = document.ID+document.Text, document.Omitted
			continue
		}
		if text != "" {
			e.t.Fatalf("an event has the line %q", text)
		}
		return got
	}
	e.t.Fatalf("the stream ended: %v", e.in.Err())
	return got
}

// wants checks that these are the next events, all of them.
func (e *events) wants(want ...string) (last string) {
	e.t.Helper()
	for _, what := range want {
		got := e.next()
		if number, err := strconv.ParseUint(got.id, 10, 64); got.what != what || got.omitted != 0 || err != nil || number == 0 {
			e.t.Fatalf("the event %q is %q with %d omitted, not %q", got.id, got.what, got.omitted, what)
		}
		last = got.id
	}
	return last
}

// feed is a kind of stream, and how something comes to it.
type feed struct {
	path string
	add  func(what string) // waits until it can be found
}

// feeds returns all kinds of streams of an API with real journals.
func feeds(t *testing.T) (*httptest.Server, map[string]feed) {
	t.Helper()
	a, kept, lines := listening(t, nil)
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	t.Cleanup(a.Leave)
	return server, map[string]feed{
		"calls": {"/api/calls?follow=true&function=hello&outcome=failed", func(what string) {
			kept.Record(faas.CallRecord{ID: "fine", Function: testID, Outcome: "ok", Started: time.Now()})
			kept.Record(faas.CallRecord{ID: what, Function: testID, Outcome: "timeout", Started: time.Now()})
			for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
				if _, err := kept.Call(what, nil, nil); err == nil {
					return
				}
				if time.Now().After(end) {
					t.Errorf("%s is never written", what)
					return
				}
			}
		}},
		"logs": {"/api/logs?follow=true&function=hello&level=stdout", func(what string) {
			lines.Write(faas.LogLine{Function: testID, Version: 3, Level: "debug", Time: time.Now(), Text: []byte("fine")})
			lines.Write(printed(otherID, "c", "another function's", time.Now()))
			lines.Write(printed(testID, "c", what, time.Now()))
		}},
	}
}

// TestEventStreams: what comes is sent as events. With the ID of one a client goes on
// behind it: nothing is missing, and nothing comes twice.
func TestEventStreams(t *testing.T) {
	server, all := feeds(t)
	for kind, s := range all {
		t.Run(kind, func(t *testing.T) {
			s.add("before")
			stream := followEvents(t, server, s.path, "")
			s.add("one")
			s.add("two")
			one := stream.wants("one")
			two := stream.wants("two")
			s.add("three")
			s.add("four")
			again := followEvents(t, server, s.path, two)
			s.add("five")
			again.wants("three", "four", "five")
			followEvents(t, server, s.path, one).wants("two", "three", "four", "five")
			// The ID of another dispatcher, or of journals that are gone: something is missing.
			foreign := followEvents(t, server, s.path, "18446744073709551615")
			s.add("six")
			if got := foreign.next(); got.omitted != 1 || got.id != "" {
				t.Errorf("after a foreign ID there is %+v", got)
			}
			foreign.wants("six")
			for _, bad := range []string{"x", "-1", "1.5", "18446744073709551616", "1 2", "0x1"} {
				request, _ := http.NewRequest("GET", server.URL+s.path, nil)
				request.Header.Set("Last-Event-ID", bad)
				response, err := server.Client().Do(request)
				if err != nil {
					t.Fatal(err)
				}
				response.Body.Close()
				if response.StatusCode != 400 {
					t.Errorf("Last-Event-ID %q is answered %d", bad, response.StatusCode)
				}
			}
		})
	}
}

// TestResumedStreamIsBounded: a client that was away for long gets the newest of what
// came, and how many came before.
func TestResumedStreamIsBounded(t *testing.T) {
	a, kept, lines := listening(t, nil)
	server := httptest.NewServer(a)
	defer server.Close()
	defer a.Leave()
	const n = 1500
	first := followEvents(t, server, "/api/calls?follow=true", "")
	printing := followEvents(t, server, "/api/logs?follow=true", "")
	for i := range n {
		kept.Record(faas.CallRecord{ID: fmt.Sprint("c", i), Function: testID, Outcome: "timeout", Started: time.Now()})
		lines.Write(printed(testID, "c", fmt.Sprint("c", i), time.Now()))
	}
	recorded(t, kept, n)
	for path, last := range map[string]string{"/api/calls?follow=true": first.wants("c0"), "/api/logs?follow=true": printing.wants("c0")} {
		again := followEvents(t, server, path, last)
		got := again.next()
		if got.omitted != n-1001 || got.id != "" {
			t.Errorf("%s: of %d are left out %d", path, n-1, got.omitted)
		}
		for i := n - 1000; i < n; i++ {
			again.wants(fmt.Sprint("c", i))
		}
	}
}

// TestResumedWhileMuchComes: however a client reconnects while lines and calls come, it
// gets each once, in their order.
func TestResumedWhileMuchComes(t *testing.T) {
	server, all := feeds(t)
	var both sync.WaitGroup
	for kind, s := range all {
		stream := followEvents(t, server, s.path, "")
		const n = 30
		both.Go(func() {
			for i := range n {
				s.add(fmt.Sprint(kind, i))
			}
		})
		for i := 0; i < n; {
			var last string
			for range min(7, n-i) {
				last = stream.wants(fmt.Sprint(kind, i))
				i++
			}
			stream = followEvents(t, server, s.path, last)
		}
	}
	both.Wait()
}

// TestEmptyParameters: a parameter without a value, mostly a variable that is not set,
// does not stand for all.
func TestEmptyParameters(t *testing.T) {
	a, _, _ := listening(t, nil)
	for path, parameters := range map[string][]string{"/api/logs": logParameters, "/api/calls": historyParameters} {
		for _, name := range parameters {
			w := serve(a, "GET", path+"?"+name+"=", "")
			p := wantProblem(t, w.Code, w.Header(), w.Body.String(), 400, faas.CodeBadRequest)
			if !strings.Contains(p.Detail, name+" is empty: give it a value, or leave it out") {
				t.Errorf("%s without a value: %s", name, p.Detail)
			}
		}
	}
}

// TestUnreadableLogs: it is not said that the database failed.
func TestUnreadableLogs(t *testing.T) {
	a, _, _ := listening(t, nil)
	b := a.opened.Load().Backend
	b.Logs = brokenLogs(t)
	a.Open(b)
	for _, query := range []string{"", "?follow=true"} {
		w := serve(a, "GET", "/api/logs"+query, "")
		p := wantProblem(t, w.Code, w.Header(), w.Body.String(), 503, faas.CodeUnreadable)
		if p.Title != "Records cannot be read" || !strings.Contains(p.Detail, "functions' logs cannot be read") {
			t.Errorf("it is said: %s: %s", p.Title, p.Detail)
		}
	}
}

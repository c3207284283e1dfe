package main

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestImpatientCallerOfAStream: a caller's time is over before the function has
// given anything, and what it gives then finds the connection idle, or in use by
// the next request.
func TestImpatientCallerOfAStream(t *testing.T) {
	r := boot(t, nil)
	id := r.gen("?concurrency=4&timeout=20s", `
import threading

go = threading.Event()

def items():
    go.wait()
    yield "late"

def callme(what=""):
    if what == "go": return go.set()
    if what == "again": return go.clear()
    return items()
`)
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	ask := func(query, timeout string) int {
		request, err := http.NewRequest("GET", r.URL+"/api/call/"+id+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		if timeout != "" {
			request.Header.Set("Fob-Timeout", timeout)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode
	}
	atRest := func() bool { return strings.Contains(r.do("GET", "/api/meta/"+id, "").Body, `"in_flight": 0`) }
	for range 3 {
		if status := ask("", "50ms"); status != http.StatusGatewayTimeout {
			t.Fatalf("who waits for 50 ms is answered %d", status)
		}
		r.do("GET", "/api/call/"+id+"?what:go", "").wantsStatus(t, http.StatusOK)
		eventually(t, 10*time.Second, "the call has ended", atRest)
		if status := ask("?what:again", ""); status != http.StatusOK {
			t.Fatalf("the same connection's next request is answered %d", status)
		}

		// This time the next request is the one that lets the function go on.
		if status := ask("", "50ms"); status != http.StatusGatewayTimeout {
			t.Fatalf("who waits for 50 ms is answered %d", status)
		}
		if status := ask("?what:go", ""); status != http.StatusOK {
			t.Fatalf("the next request is answered %d", status)
		}
		eventually(t, 10*time.Second, "the call has ended", atRest)
		if status := ask("?what:again", ""); status != http.StatusOK {
			t.Fatalf("the one after it is answered %d", status)
		}
	}
}

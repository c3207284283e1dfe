package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// running is a booted program.
type running struct {
	*Program
	URL  string
	stop func() // ends it and waits; may be called twice
	t    *testing.T
}

// boot runs a program on a free port, with a data folder of its own and the
// process engine unless change says otherwise, and waits until it is ready.
// At the end of the test it is stopped with all its sandboxes.
func boot(t *testing.T, change func(*Config)) *running {
	t.Helper()
	r := bootUnready(t, change)
	r.awaitReady(3 * time.Minute) // the driver images may have to be built
	return r
}

// bootUnready is boot without the waiting.
func bootUnready(t *testing.T, change func(*Config)) *running {
	t.Helper()
	cfg := testConfig(t)
	if change != nil {
		change(&cfg)
	}
	log := zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel)
	program, err := New(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- program.Run(ctx, func() {}) }()
	r := &running{Program: program, URL: program.URL(), t: t}
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the program ended with %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

// testConfig is what kong makes of nothing said, but for the places and for the
// pool, which does not grow: tests count sandboxes.
func testConfig(t *testing.T) Config {
	return Config{
		Addr:            "127.0.0.1:0",
		Data:            shortDir(t),
		Engine:          "process",
		BaseImage:       "debian:trixie-slim",
		Pool:            map[string]int{"python": 1, "node": 1},
		Network:         "egress",
		MaxNetwork:      "egress",
		LoadTimeout:     10 * time.Second,
		MaxBody:         6 << 20,
		MaxConnections:  10000,
		DrainTimeout:    10 * time.Second,
		RemoveSandboxes: true,
	}
}

// shortDir is a temporary folder with a path short enough for sockets.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/tmp", "fob")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (r *running) awaitReady(patience time.Duration) {
	r.t.Helper()
	eventually(r.t, patience, "the program is ready", func() bool {
		response, err := http.Get(r.URL + "/readyz")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

// eventually polls until condition holds, and fails the test when it never
// does.
func eventually(t *testing.T, patience time.Duration, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after %v: %s", patience, what)
		}
	}
}

// answered is an answer, read whole.
type answered struct {
	Status int
	Header http.Header
	Body   string
}

// do makes a request to a path of the program's.
func (r *running) do(method, path, body string) answered {
	r.t.Helper()
	a, err := r.try(method, path, body)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// try is do for requests that may fail, and for goroutines.
func (r *running) try(method, path, body string) (answered, error) {
	request, err := http.NewRequest(method, r.URL+path, strings.NewReader(body))
	if err != nil {
		return answered{}, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return answered{}, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return answered{response.StatusCode, response.Header, string(content)}, err
}

// gen registers code and returns the function's ID.
func (r *running) gen(query, code string) string {
	r.t.Helper()
	a := r.do("POST", "/api/gen"+query, code)
	var made struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(a.Body), &made); err != nil || a.Status != http.StatusOK || made.ID == "" {
		r.t.Fatalf("POST /api/gen%s: %d %s", query, a.Status, a.Body)
	}
	return made.ID
}

// wants fails the test unless the answer has that status and body.
func (a answered) wants(t *testing.T, status int, body string) {
	t.Helper()
	if a.Status != status || a.Body != body {
		t.Fatalf("answered %d %s, want %d %s", a.Status, a.Body, status, body)
	}
}

// wantsStatus fails the test unless the answer has that status.
func (a answered) wantsStatus(t *testing.T, status int) {
	t.Helper()
	if a.Status != status {
		t.Fatalf("answered %d %s, want %d", a.Status, a.Body, status)
	}
}

// problem is an error answer, as a client reads it.
type problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	Code      string `json:"code"`
	CallID    string `json:"call_id"`
	Retryable bool   `json:"retryable"`
	Error     *struct {
		Type      string `json:"type"`
		Message   string `json:"message"`
		Line      int    `json:"line"`
		Traceback string `json:"traceback"`
	} `json:"error"`
}

// wantsProblem fails the test unless the answer is an error of that status and
// code, and returns it.
func (a answered) wantsProblem(t *testing.T, status int, code string) problem {
	t.Helper()
	var p problem
	d := json.NewDecoder(bytes.NewReader([]byte(a.Body)))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		t.Fatalf("answered %d %s, which is no problem document (%v)", a.Status, a.Body, err)
	}
	if a.Status != status || p.Status != status || p.Code != code {
		t.Fatalf("answered %d %s, want %d %s", a.Status, a.Body, status, code)
	}
	if a.Header.Get("Content-Type") != "application/problem+json" || a.Header.Get("Fob-Error") == "" || p.Detail == "" || p.Title == "" {
		t.Fatalf("answered %d %v %s, which lacks something", a.Status, a.Header, a.Body)
	}
	return p
}

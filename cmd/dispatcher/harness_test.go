package main

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/client"
)

// running is a program that was booted in this process, for tests that look inside of
// it. Those that do not are in e2e.
type running struct {
	*Program
	asks *client.Client
	stop func() // ends it and waits; may be called twice
}

// boot runs a program on a free port, with a data folder of its own and the
// process engine, and waits until it is ready.
// At the end of the test it is stopped with all its sandboxes.
func boot(t *testing.T) *running {
	t.Helper()
	log := zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel)
	program, err := New(testConfig(t), log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- program.Run(ctx, func() {}) }()
	r := &running{Program: program, asks: &client.Client{URL: program.URL()}}
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the program ended with %v", err)
		}
	})
	t.Cleanup(r.stop)
	eventually(t, time.Minute, "the program is ready", func() bool {
		_, err := r.asks.Ask("GET", "/readyz", "")
		return err == nil
	})
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

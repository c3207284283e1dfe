// Package sandboxtest is the conformance suite that every engine passes, with helpers
// for talking to a driver.
package sandboxtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/sandbox"
)

// Harness tells the suite about the engine under test.
type Harness struct {
	// Open returns a new Engine for an aviary, as a dispatcher's start does. The suite
	// closes it.
	Open func(t *testing.T, aviary string) sandbox.Engine

	// Token returns the token that a sandbox's driver asks for on TCP.
	Token func(t *testing.T, inst sandbox.Instance) string

	// Log returns what a sandbox has printed so far.
	Log func(t *testing.T, inst sandbox.Instance) string

	// Folder returns the folder with a sandbox's socket, as the test sees it and as the
	// sandbox does.
	Folder func(t *testing.T, inst sandbox.Instance) (here, inside string)

	// Traces lists everything on this machine that belongs to an aviary: containers,
	// networks, folders, processes.
	Traces func(t *testing.T, aviary string) []string
}

// Patience bounds the wait for something that must happen.
const Patience = 30 * time.Second

// Spec returns a Spec with the default limits.
func Spec(lang string) sandbox.Spec {
	return sandbox.Spec{Lang: lang, Network: "egress", Limits: sandbox.Limits{Memory: 128 << 20, CPUs: 1}}
}

// Aviary returns a name that no other test uses.
func Aviary() string {
	var b [4]byte
	rand.Read(b[:])
	return "t" + hex.EncodeToString(b[:])
}

// open opens an engine on an aviary of its own. After the test it purges the aviary,
// closes the engine, and checks that nothing is left.
func (h Harness) open(t *testing.T) (sandbox.Engine, string) {
	t.Helper()
	aviary := Aviary()
	t.Cleanup(func() {
		if left := h.Traces(t, aviary); len(left) > 0 {
			t.Errorf("left after Purge: %q", left)
		}
	})
	return h.reopen(t, aviary), aviary
}

// reopen opens a further Engine on an aviary.
func (h Harness) reopen(t *testing.T, aviary string) sandbox.Engine {
	t.Helper()
	e := h.Open(t, aviary)
	t.Cleanup(func() {
		if err := e.Purge(context.Background()); err != nil {
			t.Errorf("Purge: %v", err)
		}
		if err := e.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return e
}

// Create creates a sandbox or fails the test.
func Create(t *testing.T, e sandbox.Engine, spec sandbox.Spec) sandbox.Instance {
	t.Helper()
	inst, err := e.Create(t.Context(), spec)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	return inst
}

// Do sends one request to a sandbox's driver and returns the answer's status and body.
func Do(ctx context.Context, dial func(context.Context) (net.Conn, error), method, path, token string, body any) (int, []byte, error) {
	var payload io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		payload = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://fob"+path, payload)
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

// State asks a driver for its state: "blank" or "loaded".
func State(t *testing.T, inst sandbox.Instance) string {
	t.Helper()
	status, body, err := Do(t.Context(), inst.Dial, http.MethodGet, "/_fob/health", "", nil)
	if err != nil || status != http.StatusOK {
		t.Fatalf("health: status %d, %v", status, err)
	}
	var health struct{ State string }
	if err := json.Unmarshal(body, &health); err != nil {
		t.Fatalf("health %s: %v", body, err)
	}
	return health.State
}

// Load loads code into a blank sandbox.
func Load(t *testing.T, inst sandbox.Instance, code string) {
	t.Helper()
	status, body, err := Do(t.Context(), inst.Dial, http.MethodPut, "/_fob/function", "", map[string]any{"code": code, "function": "test", "version": 1})
	if err != nil || status != http.StatusOK {
		t.Fatalf("loading: status %d, %v: %s", status, err, body)
	}
}

// Call calls the loaded function and decodes its result into result, unless that is
// nil.
func Call(t *testing.T, inst sandbox.Instance, args map[string]any, result any) {
	t.Helper()
	if args == nil {
		args = map[string]any{}
	}
	status, body, err := Do(t.Context(), inst.Dial, http.MethodPost, "/", "", args)
	if err != nil || status != http.StatusOK {
		t.Fatalf("calling: status %d, %v: %s", status, err, body)
	}
	if result == nil {
		return
	}
	var answer struct{ Result json.RawMessage }
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatalf("answer %s: %v", body, err)
	}
	if err := json.Unmarshal(answer.Result, result); err != nil {
		t.Fatalf("result %s: %v", answer.Result, err)
	}
}

// End makes a call during which the sandbox has to die, and returns how it ended.
func End(t *testing.T, inst sandbox.Instance) sandbox.Exit {
	t.Helper()
	if status, body, err := Do(t.Context(), inst.Dial, http.MethodPost, "/", "", nil); err == nil {
		t.Fatalf("the deadly call was answered: %d %s", status, body)
	}
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	select {
	case <-inst.Done():
	case <-ctx.Done():
		t.Fatal("the sandbox died and Done was not closed")
	}
	exit, err := inst.Exit(ctx)
	if err != nil {
		t.Fatalf("Exit: %v", err)
	}
	return exit
}

// Eventually waits until a condition holds.
func Eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, Patience)
		}
	}
}

// TCP returns a function that connects to a sandbox's TCP address.
func TCP(inst sandbox.Instance) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		host, port := inst.Addr()
		return new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(host, fmt.Sprint(port)))
	}
}

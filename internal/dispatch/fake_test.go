package dispatch

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flockofbirds/fob/internal/sandbox"
	"github.com/flockofbirds/fob/internal/sandbox/sandboxtest"
)

// fakeEngine makes sandboxes that live in this process and speak the driver
// contract over net.Pipe. What their functions do is written in Go: a
// function's code is a key of calls, and of loads when its loading is special.
type fakeEngine struct {
	calls map[string]func(*fakeSandbox, *http.Request) string
	loads map[string]func(*fakeSandbox) string // "" loads it after all
	gate  chan struct{}                        // "gated" calls take one each

	// streams are calls that read and write on their connection themselves;
	// they report whether it can be used again.
	streams map[string]func(*fakeSandbox, net.Conn, *http.Request) bool

	mu       sync.Mutex
	away     error         // what Check fails with
	checking chan struct{} // what Check waits for the closing of
	image    chan struct{} // what Prepare and Create wait for the closing of
	unbuilt  error         // what they fail with after that
	picky    string        // the runtime that Create fails for
	refusal  error         // what Create fails with
	creating chan struct{} // what Create waits for the closing of
	failing  error         // what Create fails with after that
	stuck    error         // what Remove fails with
	freezing chan struct{} // what Pause and Resume wait for the closing of
	stiff    error         // what they fail with
	delay    time.Duration // that Create takes
	removing chan struct{} // what Remove waits for the closing of
	attempts int           // at Create
	recipe   string        // by which sandboxes are made
	born     []*fakeSandbox
}

func newFakeEngine() *fakeEngine {
	e := &fakeEngine{gate: make(chan struct{}), loads: map[string]func(*fakeSandbox) string{}}
	e.calls = map[string]func(*fakeSandbox, *http.Request) string{
		"version": func(s *fakeSandbox, _ *http.Request) string { return s.version() },
		"gated": func(s *fakeSandbox, _ *http.Request) string {
			select {
			case <-e.gate:
				return s.version()
			case <-s.done:
				return ""
			}
		},
		"forever": func(s *fakeSandbox, _ *http.Request) string { <-s.done; return "" },
		"crash":   func(s *fakeSandbox, _ *http.Request) string { s.die(sandbox.Exit{Code: 3}); return "" },
	}
	return e
}

func (e *fakeEngine) set(change func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change()
}

func (e *fakeEngine) Name() string                      { return "fake" }
func (e *fakeEngine) Machine() (sandbox.Machine, error) { return sandbox.Machine{}, nil }
func (e *fakeEngine) Close() error                      { return nil }

// Prepare builds the image, so to speak.
func (e *fakeEngine) Prepare(ctx context.Context, _ ...string) error {
	e.mu.Lock()
	image, unbuilt := e.image, e.unbuilt
	e.mu.Unlock()
	if image != nil {
		select {
		case <-image:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return unbuilt
}

func (e *fakeEngine) Check(ctx context.Context) error {
	e.mu.Lock()
	wait, away := e.checking, e.away
	e.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return away
}

func (e *fakeEngine) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Instance, error) {
	if err := e.Prepare(ctx); err != nil {
		return nil, err
	}
	e.mu.Lock()
	e.attempts++
	wait, refusal, failing, delay, picky := e.creating, e.refusal, e.failing, e.delay, e.picky
	e.mu.Unlock()
	time.Sleep(delay)
	if refusal != nil {
		return nil, refusal
	}
	if picky != "" && spec.Runtime == picky {
		return nil, errors.New("there is no such runtime")
	}
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if failing != nil {
		return nil, failing
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := &fakeSandbox{
		e: e, id: fmt.Sprintf("%016x", len(e.born)+1), created: time.Now(), spec: spec, made: e.recipe,
		done: make(chan struct{}), state: sandbox.Health{State: "blank", Lang: spec.Lang, Contract: sandbox.Contract},
	}
	e.born = append(e.born, s)
	return s, nil
}

func (e *fakeEngine) List(context.Context) ([]sandbox.Instance, error) {
	var list []sandbox.Instance
	for _, s := range e.there() {
		list = append(list, s)
	}
	return list, nil
}

func (e *fakeEngine) Purge(ctx context.Context) error {
	for _, s := range e.there() {
		s.Remove(ctx)
	}
	return nil
}

// there lists the sandboxes that were not removed, dead ones included.
func (e *fakeEngine) there() []*fakeSandbox {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(e.born), func(s *fakeSandbox) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.removed
	})
}

// running lists the sandboxes that have a code loaded and live.
func (e *fakeEngine) running(code string) []*fakeSandbox {
	return slices.DeleteFunc(e.there(), func(s *fakeSandbox) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.loaded.Code != code || s.dead
	})
}

// served counts the calls that its sandboxes ever began.
func (e *fakeEngine) served() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	total := 0
	for _, s := range e.born {
		n, _ := s.numbers()
		total += n
	}
	return total
}

// fakeSandbox is one of its sandboxes.
type fakeSandbox struct {
	e       *fakeEngine
	id      string
	created time.Time
	made    string // the recipe of then
	done    chan struct{}

	mu      sync.Mutex
	spec    sandbox.Spec
	loaded  sandbox.Load
	state   sandbox.Health // as it claims
	conns   []net.Conn
	served  int // calls begun
	most    int // calls at the same time
	dead    bool
	deaf    bool // Dial fails, though nobody has noticed a death
	silent  bool // answers nothing
	removed bool
	locked  bool          // Listen fails
	proxy   *fakeListener // the last that was made
	log     *fakeListener // the last that was made
	thawed  chan struct{} // closed when it is resumed; nil unless it is paused
	exit    sandbox.Exit
}

func (s *fakeSandbox) ID() string            { return s.id }
func (s *fakeSandbox) Created() time.Time    { return s.created }
func (s *fakeSandbox) Addr() (string, int)   { return "fake", 8080 }
func (s *fakeSandbox) Token() string         { return "token of " + s.id }
func (s *fakeSandbox) Done() <-chan struct{} { return s.done }

func (s *fakeSandbox) Outdated(context.Context) (bool, error) {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	return s.made != s.e.recipe, nil
}

func (s *fakeSandbox) Spec() sandbox.Spec {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spec
}

func (s *fakeSandbox) Dial(context.Context) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead || s.deaf {
		return nil, errors.New("connection refused")
	}
	ours, theirs := newDuplex()
	s.conns = append(s.conns, theirs)
	go s.serve(theirs)
	return ours, nil
}

// Listen has the sandbox's code reach it by connect.
func (s *fakeSandbox) Listen(name string) (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locked {
		return nil, errors.New("no such folder")
	}
	l := &fakeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	if name == sandbox.LogName {
		s.log = l
	} else {
		s.proxy = l
	}
	return l, nil
}

// Pause keeps the sandbox from answering until it is resumed.
func (s *fakeSandbox) Pause(ctx context.Context) error { return s.freeze(ctx, true) }

func (s *fakeSandbox) Resume(ctx context.Context) error { return s.freeze(ctx, false) }

func (s *fakeSandbox) freeze(ctx context.Context, frozen bool) error {
	s.e.mu.Lock()
	wait, refusal := s.e.freezing, s.e.stiff
	s.e.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case refusal != nil:
		return refusal
	case s.dead:
		return errors.New("it is dead")
	case frozen && s.thawed == nil:
		s.thawed = make(chan struct{})
	case !frozen && s.thawed != nil:
		close(s.thawed)
		s.thawed = nil
	}
	return nil
}

// frozen reports whether the sandbox is paused.
func (s *fakeSandbox) frozen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.thawed != nil
}

func (s *fakeSandbox) Resize(_ context.Context, limits sandbox.Limits) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spec.Runtime == "rigid" {
		return sandbox.ErrFixedLimits
	}
	s.spec.Limits = limits
	return nil
}

func (s *fakeSandbox) Exit(ctx context.Context) (sandbox.Exit, error) {
	select {
	case <-s.done:
		return s.exit, nil
	case <-ctx.Done():
		return sandbox.Exit{}, ctx.Err()
	}
}

func (s *fakeSandbox) Remove(context.Context) error {
	s.e.mu.Lock()
	stuck, wait := s.e.stuck, s.e.removing
	s.e.mu.Unlock()
	if wait != nil {
		<-wait
	}
	if stuck != nil {
		return stuck
	}
	s.die(sandbox.Exit{Code: 137, Removed: true})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed = true
	return nil
}

// die ends the sandbox, unless it is dead already.
func (s *fakeSandbox) die(exit sandbox.Exit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return
	}
	s.dead, s.exit = true, exit
	for _, c := range s.conns {
		c.Close()
	}
	close(s.done)
}

// hangUp closes all connections and refuses new ones, as a driver does that
// died so lately that its engine has not noticed.
func (s *fakeSandbox) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deaf = true
	for _, c := range s.conns {
		c.Close()
	}
}

func (s *fakeSandbox) serve(c net.Conn) {
	defer c.Close()
	for in := bufio.NewReader(c); ; {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if stream := s.streams(r); stream != nil {
			if !stream(s, sandboxtest.Answering(c, r), r) {
				return
			}
			continue
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		answer := s.answer(r, body)
		if answer == "" {
			return
		}
		if _, err := io.WriteString(sandboxtest.Answering(c, r), answer); err != nil {
			return
		}
	}
}

// answer returns a whole answer, or "" to break the connection.
func (s *fakeSandbox) answer(r *http.Request, body []byte) string {
	s.mu.Lock()
	silent, thawed := s.silent, s.thawed
	s.mu.Unlock()
	if thawed != nil {
		select {
		case <-thawed:
		case <-s.done:
			return ""
		}
	}
	if silent {
		<-s.done
		return ""
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /_fob/health":
	case "PUT /_fob/function":
		var load sandbox.Load
		json.Unmarshal(body, &load)
		s.mu.Lock()
		spent := s.loaded.Code != ""
		s.loaded = load
		s.mu.Unlock()
		if spent {
			return driverError(409, "already_loaded", "", "it is spent")
		}
		if special := s.e.loads[load.Code]; special != nil {
			if answer := special(s); answer != "" {
				return answer
			}
		}
		s.mu.Lock()
		s.state.State, s.state.Function, s.state.Version = "loaded", load.Function, load.Version
		s.mu.Unlock()
	case "POST /":
		s.mu.Lock()
		call := s.e.calls[s.loaded.Code]
		s.served++
		s.state.InFlight++
		s.most = max(s.most, s.state.InFlight)
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.state.InFlight--
		}()
		if call == nil {
			return driverError(409, "not_loaded", "", "nothing is loaded")
		}
		return call(s, r)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return answerJSON(200, s.state)
}

func (s *fakeSandbox) version() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return answerJSON(200, map[string]int{"result": s.loaded.Version})
}

// numbers returns how many calls it began, and how many it had at most.
func (s *fakeSandbox) numbers() (served, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served, s.most
}

func answerJSON(status int, v any, header ...string) string {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s",
		status, strings.Join(header, ""), len(body), body)
}

func driverError(status int, code, kind, message string) string {
	return answerJSON(status, map[string]any{"error": sandbox.DriverError{Code: code, Type: kind, Message: message}}, "Fob-Error: "+code+"\r\n")
}

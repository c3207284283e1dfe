package sandboxtest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/flockofbirds/fob/drivers/contract"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// Functions that the suite runs.
const (
	double   = "def callme(n):\n    return 2 * n\n"
	doubleJS = "function callme(n) { return 2 * n }\n"
	exit3    = "import os\ndef callme():\n    os._exit(3)\n"
	counter  = "n = 0\ndef callme():\n    global n\n    n += 1\n    return n\n"
)

// Run runs the suite. Each test has aviaries of its own, and must leave no goroutine
// behind.
func Run(t *testing.T, h Harness) {
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"serves", h.serves},
		{"TCP needs the token", h.tcpNeedsToken},
		{"resize", h.resize},
		{"listen", h.listen},
		{"death tells its status", h.death},
		{"remove", h.remove},
		{"list", h.list},
		{"a later engine adopts", h.adoption},
		{"a later engine clears what died meanwhile", h.clearing},
		{"aviaries are apart", h.apart},
		{"pause", h.pause},
		{"a later engine resumes", h.adoptPaused},
		{"purge", h.purge},
		{"cancelled creation leaves nothing", h.cancelled},
		{"unknown language", h.unknownLanguage},
		{"python driver contract", func(t *testing.T) { h.contract(t, "python") }},
		{"node driver contract", func(t *testing.T) { h.contract(t, "node") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, before) })
			test.run(t)
		})
	}
}

func (h Harness) serves(t *testing.T) {
	e, _ := h.open(t)
	if err := e.Prepare(t.Context(), "python", "node"); err != nil {
		t.Fatalf("Prepare: %v", err)
	}
	for lang, code := range map[string]string{"python": double, "node": doubleJS} {
		inst := Create(t, e, Spec(lang))
		if inst.Spec() != Spec(lang) {
			t.Errorf("Spec is %+v", inst.Spec())
		}
		if age := time.Since(inst.Created()); age < 0 || age > Patience {
			t.Errorf("it says that it was created %v ago", age)
		}
		if inst.Token() != h.Token(t, inst) || len(inst.Token()) != 64 {
			t.Errorf("%s: the token is said to be %q", lang, inst.Token())
		}
		if state := State(t, inst); state != "blank" {
			t.Errorf("%s: a new sandbox is %q", lang, state)
		}
		Load(t, inst, code)
		if state := State(t, inst); state != "loaded" {
			t.Errorf("%s: after loading it is %q", lang, state)
		}
		var result int
		if Call(t, inst, map[string]any{"n": 21}, &result); result != 42 {
			t.Errorf("%s: result %d", lang, result)
		}
	}
}

func (h Harness) tcpNeedsToken(t *testing.T) {
	e, _ := h.open(t)
	inst := Create(t, e, Spec("python"))
	for token, want := range map[string]int{"": 401, "wrong": 401, h.Token(t, inst): 200} {
		status, _, err := Do(t.Context(), TCP(inst), http.MethodGet, "/_fob/health", token, nil)
		if err != nil || status != want {
			t.Errorf("with token %q: status %d (want %d), %v", token, status, want, err)
		}
	}
	if one, other := h.Token(t, inst), h.Token(t, Create(t, e, Spec("python"))); one == other || len(one) < 43 {
		t.Errorf("tokens are %q and %q: want two, of 256 bits", one, other)
	}
}

func (h Harness) resize(t *testing.T) {
	e, _ := h.open(t)
	inst := Create(t, e, Spec("python"))
	for _, limits := range []sandbox.Limits{{Memory: 256 << 20, CPUs: 0.5}, {Memory: 64 << 20, CPUs: 0.05}, {Memory: 96 << 20, CPUs: 64, Pids: 200}} {
		if err := inst.Resize(t.Context(), limits); err != nil {
			t.Fatalf("Resize to %+v: %v", limits, err)
		}
		if inst.Spec().Limits != limits {
			t.Errorf("limits are %+v, want %+v", inst.Spec().Limits, limits)
		}
	}
	if state := State(t, inst); state != "blank" {
		t.Errorf("after Resize it is %q", state)
	}
	if err := inst.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if inst.Resize(t.Context(), sandbox.Limits{Memory: 64 << 20, CPUs: 1}) == nil {
		t.Error("a removed sandbox can be resized")
	}
}

// A sandbox's way out is a socket beside the driver's. A later engine makes it anew.
func (h Harness) listen(t *testing.T) {
	e, aviary := h.open(t)
	inst := Create(t, e, Spec("python"))
	serve := func(inst sandbox.Instance, word string) {
		t.Helper()
		listener, err := inst.Listen(sandbox.ProxyName)
		if err != nil {
			t.Fatalf("Listen: %v", err)
		}
		t.Cleanup(func() { listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				io.WriteString(conn, word)
				conn.Close()
			}
		}()
	}
	serve(inst, "first")
	code := "import os, socket\ndef callme():\n    host, port = os.environ['HTTP_PROXY'].removeprefix('http://').split(':')\n" +
		"    return socket.create_connection((host, port), 10).makefile().read()\n"
	status, body, err := Do(t.Context(), inst.Dial, http.MethodPut, "/_fob/function", "", map[string]any{"code": code, "proxy": sandbox.ProxyName})
	if err != nil || status != http.StatusOK {
		t.Fatalf("loading: status %d, %v: %s", status, err, body)
	}
	var word string
	if Call(t, inst, nil, &word); word != "first" {
		t.Errorf("the function heard %q", word)
	}
	_, known := living(t, h.reopen(t, aviary))
	later := known[inst.ID()]
	if later == nil {
		t.Fatal("a later engine does not know the sandbox")
	}
	serve(later, "second")
	if Call(t, later, nil, &word); word != "second" {
		t.Errorf("the function heard %q from a later engine", word)
	}
}

func (h Harness) death(t *testing.T) {
	e, _ := h.open(t)
	inst := Create(t, e, Spec("python"))
	Load(t, inst, exit3)
	if exit := End(t, inst); exit != (sandbox.Exit{Code: 3}) {
		t.Errorf("Exit is %+v, want status 3 and no more", exit)
	}
	if err := inst.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if exit, err := inst.Exit(t.Context()); err != nil || exit != (sandbox.Exit{Code: 3}) {
		t.Errorf("after Remove, Exit is %+v, %v", exit, err)
	}

	inst = Create(t, e, Spec("python"))
	Load(t, inst, "import os\ndef callme():\n    os.kill(os.getpid(), 9)\n")
	if exit := End(t, inst); exit != (sandbox.Exit{Code: 137}) {
		t.Errorf("killed by itself, Exit is %+v, want status 137 and no more", exit)
	}

	inst = Create(t, e, Spec("python"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := inst.Exit(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Exit of a living sandbox: %v, want the context's error", err)
	}
}

func (h Harness) remove(t *testing.T) {
	e, aviary := h.open(t)
	if err := Create(t, e, Spec("python")).Remove(t.Context()); err != nil {
		t.Fatalf("Remove: %v", err)
	}
	base := h.Traces(t, aviary) // what stays, such as a network
	inst := Create(t, e, Spec("python"))
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := inst.Remove(t.Context()); err != nil {
				t.Errorf("Remove: %v", err)
			}
		})
	}
	all.Wait()
	if left := h.Traces(t, aviary); !slices.Equal(left, base) {
		t.Errorf("left after Remove: %q, before there was %q", left, base)
	}
	select {
	case <-inst.Done():
	default:
		t.Error("Done is not closed after Remove")
	}
	if exit, err := inst.Exit(t.Context()); err != nil || exit != (sandbox.Exit{Code: 137, Removed: true}) {
		t.Errorf("Exit is %+v, %v", exit, err)
	}
	if conn, err := inst.Dial(t.Context()); err == nil {
		conn.Close()
		t.Error("a removed sandbox accepts connections")
	}
	if err := inst.Remove(t.Context()); err != nil {
		t.Errorf("Remove again: %v", err)
	}
}

func (h Harness) apart(t *testing.T) {
	one, _ := h.open(t)
	other, _ := h.open(t)
	mine, theirs := Create(t, one, Spec("python")), Create(t, other, Spec("python"))
	for e, inst := range map[sandbox.Engine]sandbox.Instance{one: mine, other: theirs} {
		if ids, _ := living(t, e); !slices.Equal(ids, []string{inst.ID()}) {
			t.Errorf("listed %q, want %q alone", ids, inst.ID())
		}
	}
	if err := one.Purge(t.Context()); err != nil {
		t.Fatalf("Purge: %v", err)
	}
	if state := State(t, theirs); state != "blank" {
		t.Errorf("after the purge of another aviary it is %q", state)
	}
	Create(t, one, Spec("python"))
	if ids, _ := living(t, other); !slices.Equal(ids, []string{theirs.ID()}) {
		t.Errorf("listed %q, want %q alone", ids, theirs.ID())
	}
}

func (h Harness) purge(t *testing.T) {
	e, aviary := h.open(t)
	made := []sandbox.Instance{Create(t, e, Spec("python")), Create(t, e, Spec("python"))}
	if err := e.Purge(t.Context()); err != nil {
		t.Fatalf("Purge: %v", err)
	}
	if left := h.Traces(t, aviary); len(left) > 0 {
		t.Errorf("left after Purge: %q", left)
	}
	for _, inst := range made {
		select {
		case <-inst.Done():
		default:
			t.Errorf("sandbox %s: Done is not closed", inst.ID())
		}
	}
	if err := e.Purge(t.Context()); err != nil {
		t.Errorf("Purge again: %v", err)
	}
}

func (h Harness) cancelled(t *testing.T) {
	e, aviary := h.open(t)
	begin := time.Now()
	if err := Create(t, e, Spec("python")).Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	base := h.Traces(t, aviary)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Create(ctx, Spec("python")); !errors.Is(err, context.Canceled) {
		t.Errorf("with a cancelled context: %v", err)
	}
	const steps = 12
	for n := range steps {
		ctx, cancel := context.WithTimeout(t.Context(), took*time.Duration(n)/steps)
		inst, err := e.Create(ctx, Spec("python"))
		cancel()
		switch {
		case err == nil: // it was faster
			if err := inst.Remove(t.Context()); err != nil {
				t.Errorf("Remove: %v", err)
			}
		case !errors.Is(err, context.DeadlineExceeded):
			t.Errorf("cancelled midway: %v", err)
		}
		if left := h.Traces(t, aviary); !slices.Equal(left, base) {
			t.Errorf("left after a creation that ended after %d/%d of its time: %q, before there was %q", n, steps, left, base)
		}
	}
	if ids, _ := living(t, e); len(ids) != 0 {
		t.Errorf("listed %q", ids)
	}
}

func (h Harness) unknownLanguage(t *testing.T) {
	e, aviary := h.open(t)
	if err := e.Prepare(t.Context(), "cobol"); err == nil {
		t.Error("Prepare took an unknown language")
	}
	if _, err := e.Create(t.Context(), Spec("cobol")); err == nil {
		t.Error("Create took an unknown language")
	}
	if left := h.Traces(t, aviary); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// contract runs the cases of the driver contract: every tenth in a new sandbox, and the
// others with a driver of their own in one sandbox. A short run leaves these out,
// because drivers/contract runs them all.
func (h Harness) contract(t *testing.T, lang string) {
	e, _ := h.open(t)
	var some, others []contract.Case
	for i, c := range contract.Cases(t, lang) {
		if i%10 == 0 {
			some = append(some, c)
		} else {
			others = append(others, c)
		}
	}
	contract.Run(t, lang, some, func(t *testing.T) contract.Driver {
		inst := Create(t, e, Spec(lang))
		t.Cleanup(func() {
			if err := inst.Remove(context.Background()); err != nil {
				t.Errorf("Remove: %v", err)
			}
		})
		return contract.Driver{Dial: inst.Dial, Log: func() string { return h.Log(t, inst) }}
	})
	if !testing.Short() {
		contract.Run(t, lang, others, h.nursery(t, e, lang).boot)
	}
}

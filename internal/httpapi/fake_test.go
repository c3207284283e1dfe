package httpapi

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

const (
	testID  = "3f2b8c1e-5d0a-4e6f-9b7c-1a2d3e4f5a6b"
	otherID = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
)

// fakeRegistry has one function, fails when told to, and remembers what it was
// asked last.
type fakeRegistry struct {
	fn        *faas.Function
	code      string
	sandboxes []faas.SandboxInfo
	change    faas.Change // what Put and Patch say
	err       error       // of every method

	name     string
	draft    faas.Draft
	ref      faas.Ref
	settings faas.SettingsPatch
	prefix   string // that was asked for
	after    string
	limit    int
}

func newFakeRegistry() *fakeRegistry {
	v := &faas.Version{FunctionID: testID, Number: 3, Lang: "python", Settings: faas.DefaultSettings(), Size: 1, Digest: "sha256:"}
	fn := &faas.Function{ID: testID, Name: "hello", Created: time.Unix(1e9, 0).UTC()}
	return &fakeRegistry{fn: fn.With(v), code: "def callme(): return 42"}
}

func (f *fakeRegistry) Create(_ context.Context, name string, draft faas.Draft) (*faas.Function, error) {
	// As a registry must, for the handlers leave it to it.
	if err := faas.CheckCode(draft.Code); err != nil {
		return nil, err
	}
	f.name, f.draft = name, draft
	return f.fn, f.err
}

func (f *fakeRegistry) Put(_ context.Context, ref faas.Ref, draft faas.Draft) (*faas.Function, faas.Change, error) {
	if err := faas.CheckCode(draft.Code); err != nil {
		return nil, faas.Unchanged, err
	}
	f.ref, f.draft = ref, draft
	return f.fn, f.change, f.err
}

func (f *fakeRegistry) Patch(_ context.Context, ref faas.Ref, settings faas.SettingsPatch) (*faas.Function, faas.Change, error) {
	f.ref, f.settings = ref, settings
	return f.fn, f.change, f.err
}

func (f *fakeRegistry) Rename(_ context.Context, ref faas.Ref, name string) (*faas.Function, faas.Change, error) {
	f.ref, f.name = ref, name
	return f.fn, f.change, f.err
}

// Versions has as many as the function has numbers.
func (f *fakeRegistry) Versions(_ context.Context, fn *faas.Function, before, limit int) (page []*faas.Version, err error) {
	for _, number := range slices.Backward(fn.Versions) {
		if (before == 0 || number < before) && len(page) < limit {
			v := *fn.Live()
			v.Number = number
			page = append(page, &v)
		}
	}
	return page, f.err
}

func (f *fakeRegistry) Delete(_ context.Context, ref faas.Ref) error {
	f.ref = ref
	return f.err
}

func (f *fakeRegistry) Resolve(_ context.Context, ref faas.Ref) (*faas.Function, *faas.Version, error) {
	f.ref = ref
	return f.fn, f.fn.Live(), f.err
}

func (f *fakeRegistry) List(_ context.Context, prefix, after string, limit int) ([]*faas.Function, error) {
	f.prefix, f.after, f.limit = prefix, after, limit
	second := *f.fn
	second.ID = otherID
	return []*faas.Function{f.fn, &second}[:min(2, limit)], f.err
}

func (f *fakeRegistry) IDs(context.Context) ([]string, error) {
	return []string{testID, otherID}, f.err
}

func (f *fakeRegistry) Code(context.Context, *faas.Version) (string, error) { return f.code, f.err }

func (f *fakeRegistry) Sandboxes(context.Context, *faas.Version) ([]faas.SandboxInfo, error) {
	return f.sandboxes, f.err
}

func (f *fakeRegistry) Holder(_ context.Context, token string) (string, faas.VersionKey, bool) {
	return "00112233aabbccdd", f.fn.Live().Key(), token == sandboxToken
}

// sandboxToken is that of the fake registry's one sandbox.
const sandboxToken = "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e"

// received is a call as an invoker has it, once its body was received.
type received struct {
	faas.Invocation
	Stream io.ReadCloser // the rest of the body; nil for none
	Drop   func()        // nil for a body that came with the call

	// What the result is to have.
	Version *faas.Version
	Timing  faas.Timing
}

// invoker is a faas.Invoker that is one function.
type invoker func(ctx context.Context, call *received) (faas.Result, error)

// Invoke implements faas.Invoker.
func (f invoker) Invoke(ctx context.Context, call *faas.Invocation, body faas.LiveBody) (result faas.Result, err error) {
	got := &received{Invocation: *call}
	answered := false
	if body != nil {
		defer func() {
			if !answered || err != nil {
				body.Drop()
			}
		}()
		got.Drop = body.Drop
		if got.Body, got.Stream, err = body.Receive(); err != nil {
			return result, err
		}
	}
	result, err = f(ctx, got)
	answered = true
	result.Version, result.Timing = got.Version, got.Timing
	return result, err
}

// fakeTokens are as many as a test needs, by secret.
type fakeTokens struct {
	faas.Tokens // what is not here is not asked for
	by          map[string]*faas.Token
}

func (f *fakeTokens) Required() bool                 { return len(f.by) > 0 }
func (f *fakeTokens) Find(secret string) *faas.Token { return f.by[secret] }

// plainResult is what a function's plain value comes to.
func plainResult(body string) faas.Result {
	return faas.Result{
		Status:      http.StatusOK,
		ContentType: "application/json",
		Body:        io.NopCloser(strings.NewReader(body)),
		Length:      int64(len(body)),
	}
}

const testMaxBody = 6 << 20

// registered is what is registered, and where it runs.
type registered interface {
	faas.Registry
	faas.Locator
}

// newAPI returns an API over a registry and an invoker, which may be nil when
// the test does not get that far.
func newAPI(t *testing.T, registry registered, invoke invoker) *API {
	a := New(Config{
		Log:     zerolog.New(zerolog.NewTestWriter(t)),
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "metrics") }),
		Build:   api.Build{Version: "1", Commit: "c", Go: "go", Engine: "docker"},
		MaxBody: testMaxBody,
		Hosts:   []string{"example.com", "h", "x"}, // as tests have it
	})
	a.Open(Backend{Registry: registry, Locator: registry, Invoker: invoke, Tokens: &fakeTokens{}, Audit: &fakeAudit{}})
	a.Unready(nil)
	return a
}

// serve answers one request. Header comes as names and values in turn.
func serve(a *API, method, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	return w
}

// wantProblem fails the test unless an answer is an error of that status and
// code, and returns it.
func wantProblem(t *testing.T, status int, header http.Header, body string, wantStatus int, wantCode faas.Code) api.Problem {
	t.Helper()
	var p api.Problem
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatalf("answered %d %q, which is no problem document: %v", status, body, err)
	}
	if status != wantStatus || p.Status != wantStatus || p.Code != wantCode {
		t.Fatalf("answered %d %s, want %d %s", status, body, wantStatus, wantCode)
	}
	if kind := header.Get("Content-Type"); kind != "application/problem+json" {
		t.Errorf("an error has the Content-Type %q", kind)
	}
	if p.Type != "urn:fob:error:"+string(wantCode) || p.Title == "" || p.Detail == "" {
		t.Errorf("the error lacks something: %s", body)
	}
	return p
}

package httpapi

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
)

// fakeAudit remembers what was recorded.
type fakeAudit struct {
	mu       sync.Mutex
	entries  []faas.AuditEntry
	recorded func() // called with each

	lines []string // that Read hands out
	err   error    // of Read, behind them
	query faas.AuditQuery
}

func (f *fakeAudit) Record(entry faas.AuditEntry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entries = append(f.entries, entry)
	if f.recorded != nil {
		f.recorded()
	}
}

func (f *fakeAudit) Read(query faas.AuditQuery, emit func([]byte) error) error {
	f.query = query
	for _, line := range f.lines {
		if err := emit([]byte(line + "\n")); err != nil {
			return err
		}
	}
	return f.err
}

// audited returns an API and its audit log.
func audited(t *testing.T, registry registered) (*API, *fakeAudit) {
	log := &fakeAudit{}
	a := newAPI(t, registry, nil)
	a.Open(Backend{Registry: registry, Locator: registry, Audit: log, Tokens: &fakeTokens{}})
	return a, log
}

func TestChangesAreRecorded(t *testing.T) {
	const code = "def callme(): return 'a value'"
	done := faas.AuditEntry{Who: "anonymous", From: "192.0.2.1:1234", ID: testID, Name: "hello", Version: 3, Outcome: "ok", CallID: "mine:1"}
	for _, c := range []struct {
		request, body string
		err           error
		want          faas.AuditEntry
	}{
		{"POST /api/gen?name=hello", code, nil, faas.AuditEntry{Action: "function.create"}},
		{"PUT /api/functions/hello", code, nil, faas.AuditEntry{Action: "function.put"}},
		{"PATCH /api/functions/hello?timeout=1s", "", nil, faas.AuditEntry{Action: "function.patch"}},
		{"PATCH /api/functions/hello?name=hallo", "", nil, faas.AuditEntry{Action: "function.rename"}},
		{"DELETE /api/functions/hello", "", nil, faas.AuditEntry{Action: "function.delete"}},

		{"POST /api/gen?name=hello", "", nil, faas.AuditEntry{Action: "function.create", Name: "hello", Request: "POST /api/gen", Outcome: "bad_request"}},
		{"PUT /api/functions/hello", code, faas.Errorf(faas.CodeBadCode, "no"),
			faas.AuditEntry{Action: "function.put", Name: "hello", Request: "PUT /api/functions/hello", Outcome: "does_not_compile"}},
		{"PATCH /api/functions/" + testID + "?timeout=1s", "", faas.Errorf(faas.CodeUnknownFunction, "no"),
			faas.AuditEntry{Action: "function.patch", ID: testID, Request: "PATCH /api/functions/" + testID, Outcome: "unknown_function"}},
		{"DELETE /api/functions/hello", "", errors.New("the disk is full"),
			faas.AuditEntry{Action: "function.delete", Name: "hello", Request: "DELETE /api/functions/hello", Outcome: "internal"}},
		{"DELETE /api/functions/a%00b", "", nil,
			faas.AuditEntry{Action: "function.delete", Request: "DELETE /api/functions/a%00b", Outcome: "bad_request"}},
	} {
		registry := newFakeRegistry()
		registry.err = c.err
		a, log := audited(t, registry)
		method, target, _ := strings.Cut(c.request, " ")
		answered := httptest.NewRecorder()
		log.recorded = func() {
			if answered.Flushed || answered.Body.Len() > 0 {
				t.Errorf("%s: recorded only when it was answered", c.request)
			}
		}
		r := httptest.NewRequest(method, target, strings.NewReader(c.body))
		r.Header.Set("X-Call-Id", "mine:1")
		a.ServeHTTP(answered, r)
		want := c.want
		if want.Outcome == "" {
			want, want.Action = done, c.want.Action
		}
		want.Who, want.From, want.CallID = done.Who, done.From, done.CallID
		if len(log.entries) != 1 || log.entries[0] != want {
			t.Errorf("%s: recorded %+v, want %+v", c.request, log.entries, want)
		}
	}
}

// What only asks is not recorded, and a call is not.
func TestQuestionsAreNotRecorded(t *testing.T) {
	registry := newFakeRegistry()
	a, log := audited(t, registry)
	for _, path := range []string{"/api/stats", "/api/functions", "/api/functions/hello", "/api/cs/hello", "/api/meta/hello", "/api/audit", "/nowhere", "/healthz", "/metrics"} {
		serve(a, "GET", path, "")
	}
	serve(a, "DELETE", "/api/stats", "")
	o := a.opened.Load()
	a.Open(Backend{Registry: registry, Locator: registry, Audit: log, Tokens: &fakeTokens{}, Invoker: invoker(func(context.Context, *received) (faas.Result, error) {
		return faas.Result{}, faas.Errorf(faas.CodeRaised, "no")
	})})
	serve(a, "GET", "/api/call/hello", "")
	a.Open(o.Backend)
	if len(log.entries) > 0 {
		t.Errorf("recorded %+v", log.entries)
	}
}

func TestRefusalsAreRecordedOnce(t *testing.T) {
	for _, code := range []faas.Code{"unauthorized", "forbidden", "bad_host", "cross_site", "rate_limited"} {
		registry := newFakeRegistry()
		registry.err = faas.Errorf(code, "no")
		a, log := audited(t, registry)
		serve(a, "DELETE", "/api/functions/hello?secret=x", "")
		want := faas.AuditEntry{Who: "anonymous", From: "192.0.2.1:1234", Action: "refused", Request: "DELETE /api/functions/hello", Outcome: string(code)}
		if len(log.entries) != 1 || log.entries[0] != want {
			t.Errorf("recorded %+v, want %+v", log.entries, want)
		}
	}
}

// panicky is a registry that does what no code should.
type panicky struct{ registered }

func (panicky) Create(context.Context, string, faas.Draft) (*faas.Function, error) { panic("oh") }

func TestPanicsAreRecorded(t *testing.T) {
	a, log := audited(t, panicky{})
	if w := serve(a, "POST", "/api/gen?name=hello", "def callme(): pass"); w.Code != http.StatusInternalServerError {
		t.Errorf("answered %d", w.Code)
	}
	if len(log.entries) != 1 || log.entries[0].Outcome != "internal" || log.entries[0].Name != "hello" {
		t.Errorf("recorded %+v", log.entries)
	}
}

func TestWhoIsLocal(t *testing.T) {
	a, log := audited(t, newFakeRegistry())
	w := httptest.NewRecorder()
	r := httptest.NewRequest("DELETE", "/api/functions/hello", nil)
	r.RemoteAddr = "@" // as of a Unix socket
	a.Local().ServeHTTP(w, r)
	if len(log.entries) != 1 || log.entries[0].Who != "local" || log.entries[0].From != "" {
		t.Errorf("recorded %+v", log.entries)
	}
}

func TestAuditIsRead(t *testing.T) {
	a, log := audited(t, newFakeRegistry())
	log.lines = []string{`{"seq":1}`, `{"seq":2}`}
	w := serve(a, "GET", "/api/audit?limit=5&after=7&since=2026-01-31T12:00:00Z", "")
	if w.Code != 200 || w.Body.String() != "{\"seq\":1}\n{\"seq\":2}\n" || w.Header().Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("answered %d %s %v", w.Code, w.Body, w.Header())
	}
	if q := log.query; q.Limit != 5 || q.After != 7 || q.Since.Unix() != 1769860800 || q.Last {
		t.Errorf("asked for %+v", q)
	}
	log.lines = nil
	if w = serve(a, "GET", "/api/audit", ""); w.Code != 200 || w.Body.Len() > 0 || !log.query.Last || log.query.Limit != defaultEntries {
		t.Errorf("answered %d %s, having asked for %+v", w.Code, w.Body, log.query)
	}
	for _, query := range []string{"limit=0", "limit=10001", "limit=x", "after=-1", "after=", "since=yesterday", "colour=red", "limit=1&limit=2", "after=%zz"} {
		w := serve(a, "GET", "/api/audit?"+query, "")
		wantProblem(t, w.Code, w.Header(), w.Body.String(), 400, faas.CodeBadRequest)
	}
	log.err = errors.New("the disk is gone")
	w = serve(a, "GET", "/api/audit", "")
	wantProblem(t, w.Code, w.Header(), w.Body.String(), 500, faas.CodeInternal)
	// What fails later breaks the answer off.
	log.lines = []string{strings.Repeat(" ", answerPiece+1)}
	defer func() {
		if recover() != http.ErrAbortHandler {
			t.Error("a broken answer looks like a whole one")
		}
	}()
	serve(a, "GET", "/api/audit", "")
}

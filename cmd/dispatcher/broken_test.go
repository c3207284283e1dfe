package main

import (
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/flockofbirds/fob/api"
)

// A log that cannot be written fails no change, is told, and is counted.
func TestAuditFailureIsTold(t *testing.T) {
	r := boot(t)
	if err := r.audit.Close(); err != nil { // as near as it gets to a full disk
		t.Fatal(err)
	}
	if _, err := r.asks.Register("?name=one", "def callme(): pass"); err != nil {
		t.Fatal(err)
	}
	if m, err := r.asks.Metrics(); err != nil || m["fob_audit_failures_total"] != 1 {
		t.Errorf("the failure is not counted: %v", err)
	}
}

// A store that fails, which nothing but a broken disk makes it, is an answer that
// openapi.yaml has for each route that needs it. TestOpenAPI has all other answers.
func TestStoreFailureIsTold(t *testing.T) {
	document, err := openapi3.NewLoader().LoadFromData(api.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	r := boot(t)
	const code = "def callme(): return 1\n"
	if err := r.asks.Put("hello", code); err != nil {
		t.Fatal(err)
	}
	ann, err := r.asks.MakeToken("ann", "", "admin")
	if err != nil {
		t.Fatal(err)
	}
	r.asks.Token = ann.Secret
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ method, route, path, body string }{
		{"POST", "/api/gen", "/api/gen", code},
		{"PUT", "/api/functions/{ref}", "/api/functions/hello", code + "#"},
		{"PATCH", "/api/functions/{ref}", "/api/functions/hello?timeout=1s", ""},
		{"DELETE", "/api/functions/{ref}", "/api/functions/hello", ""},
		{"GET", "/api/cs/{ref}", "/api/cs/hello", ""},
		{"POST", "/api/tokens", "/api/tokens", `{"name": "bob", "grants": ["read"]}`},
		{"DELETE", "/api/tokens/{id}", "/api/tokens/" + ann.ID, ""},
		{"GET", "/api/secrets", "/api/secrets", ""},
		{"GET", "/api/backup", "/api/backup", ""},
		{"PUT", "/api/secrets/{name}", "/api/secrets/KEY", "x"},
		{"DELETE", "/api/secrets/{name}", "/api/secrets/KEY", ""},
		{"POST", "/api/secrets/rotate-key", "/api/secrets/rotate-key", ""},
	} {
		a, err := r.asks.Do(c.method, c.path, c.body)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := a.Problem(); err != nil || a.Status != 500 || p.Code != "internal" || p.Detail == "" || strings.Contains(p.Detail, r.cfg.Data) {
			t.Errorf("%s %s: answered %d %s (%v)", c.method, c.path, a.Status, a.Body, err)
		}
		if document.Paths.Value(c.route).GetOperation(c.method).Responses.Status(500) == nil {
			t.Errorf("%s %s: openapi.yaml does not say that it may be answered 500", c.method, c.route)
		}
	}
}

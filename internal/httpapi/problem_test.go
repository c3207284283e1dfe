package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

func TestDocumentKnowsCodes(t *testing.T) {
	doc := described(t)
	var rows strings.Builder
	var codes []any
	for _, c := range faas.CodeTable {
		fmt.Fprintf(&rows, "| %d | `%s` | %s |\n", c.Status, c.Code, c.When)
		codes = append(codes, string(c.Code))
	}
	if !strings.Contains(doc.Info.Description, "| status | code | when |\n|---|---|---|\n"+rows.String()+"\n") {
		t.Errorf("the description's table of errors is to have these rows:\n%s", &rows)
	}
	if documented := doc.Components.Schemas["Problem"].Value.Properties["code"].Value.Enum; !slices.Equal(documented, codes) {
		t.Errorf("the schema Problem has the codes\n%v, and not\n%v", documented, codes)
	}
}

func TestDocumentKnowsSettings(t *testing.T) {
	doc := described(t)
	schemas := doc.Components.Schemas
	for schema, more := range map[string]int{"Settings": 0, "FunctionChange": 1} { // the name
		properties := schemas[schema].Value.Properties
		for _, name := range faas.SettingNames() {
			if properties[name] == nil {
				t.Errorf("the schema %s lacks %s", schema, name)
			} else if schemas["Draft"].Value.Properties[name] == nil {
				t.Errorf("the schema Draft lacks %s", name)
			}
		}
		if len(properties) != len(faas.SettingNames())+more {
			t.Errorf("the schema %s has a setting too many", schema)
		}
	}
	for path, method := range map[string]string{"/api/gen": "POST", "/api/functions/{ref}": "PUT", "/api/functions/{ref} ": "PATCH"} {
		operation := doc.Paths.Value(strings.TrimSpace(path)).GetOperation(method)
		defaults := make(map[string]string)
		for _, name := range faas.SettingNames() {
			p := operation.Parameters.GetByInAndName("query", name)
			if p == nil {
				t.Errorf("%s %s lacks the parameter %s", method, path, name)
				continue
			}
			switch value := p.Schema.Value.Default.(type) {
			case string:
				defaults[name] = value
			case float64:
				defaults[name] = strconv.FormatFloat(value, 'f', -1, 64)
			case bool:
				defaults[name] = strconv.FormatBool(value)
			default:
				t.Errorf("the default of %s is documented as %v", name, value)
			}
		}
		if s, err := parse(t, defaults).Apply(faas.Settings{}); err != nil || s != faas.DefaultSettings() {
			t.Errorf("%s %s documents the defaults %v: %v", method, path, s, err)
		}
	}
}

func TestProblem(t *testing.T) {
	raised := &faas.Raised{Type: "KeyError", Message: "'<x>'", Line: 2, Traceback: "…\n"}
	for _, info := range faas.CodeTable {
		code := info.Code
		registry := newFakeRegistry()
		registry.err = &faas.Error{Code: code, Message: "it's <so>", Raised: raised, Cause: errors.New("the inside")}
		w := serve(newAPI(t, registry, nil), "GET", "/api/cs/hello", "")
		p := wantProblem(t, w.Code, w.Header(), w.Body.String(), info.Status, code)
		if p.Title != info.Title || p.Detail != "it's <so>" || p.Error == nil || *p.Error != *raised || p.Retryable != info.Retryable || p.CallID != "" {
			t.Errorf("%s: answered %s", code, w.Body)
		}
		if strings.Contains(w.Body.String(), "the inside") || !strings.Contains(w.Body.String(), "<so>") {
			t.Errorf("%s: answered %s", code, w.Body)
		}
		if got := w.Header().Get("Fob-Error"); got != string(info.Fault) {
			t.Errorf("%s: Fob-Error: %s, want %s", code, got, info.Fault)
		}
		if got, want := w.Header().Get("Retry-After") != "", info.Status == 429 || info.Status == 503 || info.Status == 507; got != want {
			t.Errorf("%s: Retry-After is there: %v, want %v", code, got, want)
		}
	}
}

func TestUnknownErrorsStayInside(t *testing.T) {
	for what, err := range map[string]error{
		"no error of the domain": errors.New("secret path /var/lib"),
		"a deadline of its own":  context.DeadlineExceeded,
		"a code without entry":   faas.Errorf("brand_new", "hello"),
	} {
		registry := newFakeRegistry()
		registry.err = err
		w := serve(newAPI(t, registry, nil), "GET", "/api/cs/hello", "")
		if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s: %d %s", what, w.Code, w.Body)
		}
	}
}

func TestRetryAfterIsWholeSeconds(t *testing.T) {
	for after, want := range map[time.Duration]string{
		0:                       "1",
		time.Millisecond:        "1",
		time.Second:             "1",
		1001 * time.Millisecond: "2",
		time.Minute:             "60",
	} {
		registry := newFakeRegistry()
		registry.err = faas.Errorf(faas.CodeNoCapacity, "none").After(after)
		if got := serve(newAPI(t, registry, nil), "GET", "/api/cs/hello", "").Header().Get("Retry-After"); got != want {
			t.Errorf("after %v: Retry-After: %s, want %s", after, got, want)
		}
	}
}

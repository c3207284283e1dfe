package httpapi

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// declaredCodes reads the constants of type Code, and the status that the
// comment of each promises, from their source.
func declaredCodes(t *testing.T) map[faas.Code]int {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../faas/error.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	codes := make(map[faas.Code]int)
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); !ok || kind.Name != "Code" {
			return true
		}
		text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		comment := strings.TrimSpace(spec.Comment.Text())
		status, err := strconv.Atoi(comment[:min(3, len(comment))])
		if err != nil {
			t.Errorf("the comment of %s does not begin with its status: %q", text, comment)
		}
		codes[faas.Code(text)] = status
		return true
	})
	if len(codes) < 19 {
		t.Fatalf("found only the codes %v", codes)
	}
	return codes
}

func TestEveryCodeHasItsStatus(t *testing.T) {
	codes := declaredCodes(t)
	codes[codeBadHost], codes[codeCrossSite], codes[codeUnknownCoding] = 403, 403, 415
	codes[codeBadExpectation], codes[codeHeadersTooLarge], codes[codeUnknownEncoding], codes[codeUnsupportedHTTP] = 417, 431, 501, 505
	for code, status := range codes {
		if entry := statuses[code]; entry.status != status || entry.title == "" {
			t.Errorf("the table has %v for %s, which is %d", entry, code, status)
		}
	}
	if len(statuses) != len(codes) {
		t.Errorf("the table has %d codes, and there are %d", len(statuses), len(codes))
	}
}

func TestDocumentKnowsCodesAndSettings(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(api.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	schemas := doc.Components.Schemas
	documented := schemas["Problem"].Value.Properties["code"].Value.Enum
	for code, entry := range statuses {
		if !slices.Contains(documented, any(string(code))) {
			t.Errorf("the schema Problem lacks the code %s", code)
		}
		if row := "| " + strconv.Itoa(entry.status) + " | `" + string(code) + "` |"; !strings.Contains(doc.Info.Description, row) {
			t.Errorf("the table of errors lacks %s", row)
		}
	}
	if len(documented) != len(statuses) {
		t.Errorf("the schema Problem has the codes %v", documented)
	}
	for _, schema := range []string{"Settings", "SettingsChange"} {
		properties := schemas[schema].Value.Properties
		for _, name := range faas.SettingNames() {
			if properties[name] == nil {
				t.Errorf("the schema %s lacks %s", schema, name)
			} else if schemas["Draft"].Value.Properties[name] == nil {
				t.Errorf("the schema Draft lacks %s", name)
			}
		}
		if len(properties) != len(faas.SettingNames()) {
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
	for code, entry := range statuses {
		registry := newFakeRegistry()
		registry.err = &faas.Error{Code: code, Message: "it's <so>", Raised: raised, Cause: errors.New("the inside")}
		w := serve(newAPI(t, registry, nil), "GET", "/api/cs/hello", "")
		p := wantProblem(t, w.Code, w.Header(), w.Body.String(), entry.status, code)
		if p.Detail != "it's <so>" || p.Error == nil || *p.Error != *raised || p.Retryable != code.Retryable() || p.CallID != "" {
			t.Errorf("%s: answered %s", code, w.Body)
		}
		if strings.Contains(w.Body.String(), "the inside") || !strings.Contains(w.Body.String(), "<so>") {
			t.Errorf("%s: answered %s", code, w.Body)
		}
		fault := "platform"
		if code.FunctionsFault() {
			fault = "function"
		}
		if got := w.Header().Get("Fob-Error"); got != fault {
			t.Errorf("%s: Fob-Error: %s, want %s", code, got, fault)
		}
		if got, want := w.Header().Get("Retry-After") != "", entry.status == 429 || entry.status == 503 || entry.status == 507; got != want {
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

package httpapi

import (
	"encoding"
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// routeOf returns the route with that method and path, as in "GET /healthz".
func routeOf(t *testing.T, text string) Route {
	t.Helper()
	for _, rt := range Routes() {
		if rt.Method+" "+rt.Path == text {
			return rt
		}
	}
	t.Fatalf("there is no route %s", text)
	return Route{}
}

// described reads openapi.yaml.
func described(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(api.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestDocumentKnowsRoutes holds the skeleton of openapi.yaml against the table:
// operations, who may call them, parameters of the query, bodies, answers with
// their documents, and errors with their codes.
func TestDocumentKnowsRoutes(t *testing.T) {
	doc := described(t)
	known := map[*openapi3.Operation]bool{}
	for _, rt := range Routes() {
		item := doc.Paths.Value(strings.ReplaceAll(rt.Path, "*", "{path}"))
		for _, method := range rt.Methods() {
			if item == nil || item.GetOperation(method) == nil {
				t.Errorf("the document lacks %s %s", method, rt.Path)
				continue
			}
			operation := item.GetOperation(method)
			if rt.Method == Any && known[operation] {
				continue // which has a row of its own
			}
			known[operation] = true
			t.Run(method+" "+rt.Path, func(t *testing.T) { checkOperation(t, &rt, item, operation) })
		}
	}
	for path, item := range doc.Paths.Map() {
		for method, operation := range item.Operations() {
			if !known[operation] {
				t.Errorf("there is no route %s %s", method, path)
			}
		}
	}
}

func checkOperation(t *testing.T, rt *Route, item *openapi3.PathItem, operation *openapi3.Operation) {
	if open := operation.Security != nil && len(*operation.Security) == 0; open != (rt.Scope == "") {
		t.Errorf("the document says that everybody may ask it: %v", open)
	}
	if rt.Scope != faas.ScopeInvoke { // whose parameters are the function's
		var parameters []string
		for _, p := range slices.Concat(item.Parameters, operation.Parameters) {
			if p.Value.In == openapi3.ParameterInQuery {
				parameters = append(parameters, p.Value.Name)
			}
		}
		if !slices.Equal(slices.Sorted(slices.Values(parameters)), slices.Sorted(slices.Values(rt.Parameters()))) {
			t.Errorf("documented are the parameters %v, and there are %v", parameters, rt.Parameters())
		}
	}
	if body := operation.RequestBody; body == nil && rt.Takes != nil && rt.Method != Any || body != nil && rt.Takes == nil {
		t.Errorf("it takes %T, and a body is documented: %v", rt.Takes, body != nil)
	} else if body != nil {
		checkContent(t, "the body", rt.Takes, body.Value.Content)
	}
	errors := map[int][]faas.Code{}
	for _, code := range rt.Codes() {
		errors[code.Info().Status] = append(errors[code.Info().Status], code)
	}
	for text, response := range operation.Responses.Map() {
		status, err := strconv.Atoi(text)
		gives, fine := rt.Gives[status]
		switch {
		case err != nil: // the function's own answers, of any status
		case fine:
			checkContent(t, text, gives, response.Value.Content)
		case len(errors[status]) == 0:
			t.Errorf("%d is documented, and the route has no code for it", status)
		}
		for _, code := range errors[status] {
			if !strings.Contains(*response.Value.Description, "`"+string(code)+"`") {
				t.Errorf("the description of %d does not say %s: %s", status, code, *response.Value.Description)
			}
		}
	}
	if operation.Responses.Default() != nil {
		return
	}
	for _, status := range slices.Concat(slices.Collect(maps.Keys(rt.Gives)), slices.Collect(maps.Keys(errors))) {
		if operation.Responses.Status(status) == nil {
			t.Errorf("%d is not documented", status)
		}
	}
}

// checkContent holds a documented body against a value of its type, or its media
// type.
func checkContent(t *testing.T, what string, value any, content openapi3.Content) {
	t.Helper()
	m, is := value.(media)
	if !is {
		m = "application/json"
	}
	switch documented := content[string(m)]; {
	case value == nil && len(content) == 0:
	case value == nil || documented == nil:
		t.Errorf("%s is %T %v, and documented as %v", what, value, value, slices.Collect(maps.Keys(content)))
	case !is:
		checkSchema(t, what, reflect.TypeOf(value), documented.Schema.Value)
	}
}

// checkSchema holds a documented object against the type that JSON makes it of.
func checkSchema(t *testing.T, what string, of reflect.Type, schema *openapi3.Schema) {
	t.Helper()
	for of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	switch {
	case of.Implements(reflect.TypeFor[json.Marshaler]()), of.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
	case of.Kind() == reflect.Slice && schema.Items != nil:
		checkSchema(t, what+"[]", of.Elem(), schema.Items.Value)
	case of.Kind() == reflect.Struct:
		var names, required []string
		for _, field := range reflect.VisibleFields(of) {
			name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name == "" || name == "-" {
				continue // embedded, or not ours to show
			}
			names = append(names, name)
			if options == "" {
				required = append(required, name)
			}
			if property := schema.Properties[name]; property != nil {
				checkSchema(t, what+"."+name, field.Type, property.Value)
			}
		}
		slices.Sort(names)
		slices.Sort(required)
		if documented := slices.Sorted(maps.Keys(schema.Properties)); !slices.Equal(documented, names) {
			t.Errorf("%s is documented with the members %v, and has %v", what, documented, names)
		}
		if documented := slices.Sorted(slices.Values(schema.Required)); !slices.Equal(documented, required) {
			t.Errorf("%s is documented to have always %v, and has %v", what, documented, required)
		}
	}
}

// TestRoutes: what all rows have in common.
func TestRoutes(t *testing.T) {
	seen := map[string]bool{}
	for _, rt := range Routes() {
		name := rt.Method + " " + rt.Path
		if seen[name] || rt.Doc == "" || len(rt.Gives) == 0 {
			t.Errorf("%s is there twice, or lacks something: %+v", name, rt)
		}
		seen[name] = true
		if (rt.Scope == "") != (rt.Span == "") {
			t.Errorf("%s asks for %q of %q", name, rt.Scope, rt.Span)
		}
		if rt.Method != http.MethodGet && rt.Scope != faas.ScopeInvoke && rt.Action == "" {
			t.Errorf("%s changes something, and has no action for the audit log", name)
		}
		if (rt.Span == ForOne) != strings.Contains(rt.Path, "{ref}") {
			t.Errorf("%s asks for %q, and has no ref to go by", name, rt.Span)
		}
	}
}

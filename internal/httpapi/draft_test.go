package httpapi

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

const code = "def callme():\n    return {'a': 1}\n"

func TestDraft(t *testing.T) {
	type settings = map[string]string
	for what, c := range map[string]struct {
		query, body string
		name, lang  string
		code        string
		settings    settings
	}{
		"code":                        {body: code, code: code},
		"settings in the query":       {query: "?lang=node&name=x&timeout=5s&cpus=0.5", body: code, code: code, name: "x", lang: "node", settings: settings{"timeout": "5s", "cpus": "0.5"}},
		"an envelope":                 {body: `{"code": "c\n"}`, code: "c\n"},
		"an envelope with everything": {body: `{"lang": "node", "name": "x", "code": "c", "cpus": 0.5, "memory": "1GB", "concurrency": 12}`, code: "c", lang: "node", name: "x", settings: settings{"cpus": "0.5", "memory": "1GB", "concurrency": "12"}},
		"both":                        {query: "?timeout=1s", body: `{"code": "c", "queue": 0}`, code: "c", settings: settings{"timeout": "1s", "queue": "0"}},
		"an envelope, spaced out":     {body: " \r\n\t{\n \"code\":\t\"c\" }\n", code: "c"},
		"escapes in an envelope":      {body: `{"code": "\u00e4\ud83d\udc26\""}`, code: "ä🐦\""},
		"a JavaScript block":          {body: "{ let a = 1 }", code: "{ let a = 1 }"},
		"a JavaScript comment":        {body: "{// }", code: "{// }"},
		"a brace":                     {body: "{", code: "{"},
		"a JSON array":                {body: `["code"]`, code: `["code"]`},
		"a JSON string":               {body: `"code"`, code: `"code"`},
		"no line break at the end":    {body: "x", code: "x"},
		"Windows line breaks":         {body: "a\r\nb\r\n", code: "a\r\nb\r\n"},
		"unicode":                     {body: "# 🐦\n", code: "# 🐦\n"},
	} {
		// What clients say of the same body: HTTPie for <, curl, fetch, nobody.
		for _, contentType := range []string{"application/json", "application/x-www-form-urlencoded", "text/plain;charset=UTF-8", "multipart/form-data", "no/such; thing", ""} {
			registry := newFakeRegistry()
			w := serve(newAPI(t, registry, nil), "POST", "/api/gen"+c.query, c.body, "Content-Type", contentType)
			if w.Code != http.StatusOK {
				t.Errorf("%s as %q: %d %s", what, contentType, w.Code, w.Body)
				continue
			}
			d := registry.draft
			if registry.name != c.name || d.Lang != c.lang || d.Code != c.code || !reflect.DeepEqual(d.Settings, parse(t, c.settings)) {
				t.Errorf("%s as %q: got name %q and %+v", what, contentType, registry.name, d)
			}
		}
	}
}

// parse returns settings that were given as text.
func parse(t *testing.T, texts map[string]string) faas.SettingsPatch {
	t.Helper()
	var patch faas.SettingsPatch
	for name, text := range texts {
		if err := patch.Set(name, text); err != nil {
			t.Fatal(err)
		}
	}
	return patch
}

func TestDraftRefuses(t *testing.T) {
	for what, c := range map[string]struct{ query, body string }{
		"nothing":                      {},
		"blanks":                       {body: " \n\t"},
		"binary":                       {body: "\x7fELF\x00\x00"},
		"invalid UTF-8":                {body: "x = '\xff'"},
		"invalid UTF-8 in an envelope": {body: "{\"code\": \"x = '\xff'\"}"},
		"NUL in an envelope":           {body: `{"code": "a\u0000b"}`},
		"an empty object":              {body: "{}"},
		"no code":                      {body: `{"lang": "python"}`},
		"empty code":                   {body: `{"code": ""}`},
		"code of the wrong type":       {body: `{"code": 1}`},
		"null code":                    {body: `{"code": null}`},
		"an object cut short":          {body: `{"code": "x"`},
		"something behind the object":  {body: `{"code": "x"} {"code": "y"}`},
		"a deep object":                {body: `{"code": ` + strings.Repeat("[", 20000)},
		"unknown setting":              {query: "?colour=blue", body: code},
		"unknown member":               {body: `{"code": "x", "colour": "blue"}`},
		"member of another case":       {body: `{"Code": "x"}`},
		"boolean member":               {body: `{"code": "x", "queue": true}`},
		"null member":                  {body: `{"code": "x", "queue": null}`},
		"object member":                {body: `{"code": "x", "queue": {}}`},
		"array member":                 {body: `{"code": "x", "name": ["a"]}`},
		"twice in the query":           {query: "?queue=1&queue=1", body: code},
		"name twice":                   {query: "?name=a&name=b", body: code},
		"in query and body":            {query: "?queue=1", body: `{"code": "x", "queue": 1}`},
		"lang in query and body":       {query: "?lang=node", body: `{"code": "x", "lang": "node"}`},
		"twice in the body":            {body: `{"code": "x", "queue": 1, "queue": 2}`},
		"empty name":                   {query: "?name=", body: code},
		"empty lang":                   {query: "?lang", body: code},
		"bad percent":                  {query: "?lang=%zz", body: code},
		"code in the query":            {query: "?code=x", body: code},
	} {
		registry := newFakeRegistry()
		w := serve(newAPI(t, registry, nil), "POST", "/api/gen"+c.query, c.body)
		if w.Code != http.StatusBadRequest || registry.draft.Code != "" {
			t.Errorf("%s: %d %s", what, w.Code, w.Body)
			continue
		}
		wantProblem(t, w.Code, w.Header(), w.Body.String(), 400, faas.CodeBadRequest)
	}
}

func TestPut(t *testing.T) {
	registry := newFakeRegistry()
	a := newAPI(t, registry, nil)
	changed := func(w *httptest.ResponseRecorder) bool {
		t.Helper()
		var doc api.ChangedFunction
		if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || doc.ID != testID || doc.Version == nil || doc.Version.Number != 3 || strings.Contains(w.Body.String(), `"versions"`) {
			t.Errorf("answered %s, %v", w.Body, err)
		}
		return doc.Changed
	}
	registry.change = faas.Created
	w := serve(a, "PUT", "/api/functions/hello?queue=3", code)
	if w.Code != http.StatusCreated || w.Header().Get("Location") != "/api/functions/"+testID || !changed(w) {
		t.Errorf("a new function: %d %v", w.Code, w.Header())
	}
	if registry.ref.Name != "hello" || registry.draft.Code != code || !reflect.DeepEqual(registry.draft.Settings, parse(t, map[string]string{"queue": "3"})) {
		t.Errorf("got %v, %v", registry.ref, registry.draft)
	}
	for _, change := range []faas.Change{faas.Changed, faas.Unchanged} {
		registry.change = change
		if w := serve(a, "PUT", "/api/functions/"+testID, code); w.Code != http.StatusOK || registry.ref.ID != testID || changed(w) != (change == faas.Changed) {
			t.Errorf("a new version, or none: %d, %s", w.Code, w.Body)
		}
		if w := serve(a, "PATCH", "/api/functions/"+testID+"?queue=3", ""); w.Code != http.StatusOK || changed(w) != (change == faas.Changed) {
			t.Errorf("patched: %d, %s", w.Code, w.Body)
		}
	}
	if w := serve(a, "PUT", "/api/functions/hello?name=hello", code); w.Code != http.StatusOK {
		t.Errorf("the same name again: %d %s", w.Code, w.Body)
	}
	w = serve(a, "PUT", "/api/functions/hello?name=goodbye", code)
	wantProblem(t, w.Code, w.Header(), w.Body.String(), 400, faas.CodeBadRequest)
}

// TestRename: a name alone renames, wherever it stands.
func TestRename(t *testing.T) {
	for _, c := range [][2]string{{"?name=x", ""}, {"", `{"name": "x"}`}} {
		registry := newFakeRegistry()
		registry.change = faas.Changed
		w := serve(newAPI(t, registry, nil), "PATCH", "/api/functions/hello"+c[0], c[1])
		if w.Code != http.StatusOK || registry.name != "x" || registry.ref.Name != "hello" || !strings.Contains(w.Body.String(), `"changed": true`) {
			t.Errorf("%s %s: %d %s, renamed to %q", c[0], c[1], w.Code, w.Body, registry.name)
		}
	}
}

func TestPatch(t *testing.T) {
	for what, c := range map[string]struct {
		query, body string
		want        map[string]string // nil: refused
	}{
		"query":             {"?queue=1&timeout=2s", "", map[string]string{"queue": "1", "timeout": "2s"}},
		"body":              {"", `{"queue": 1, "timeout": "2s"}`, map[string]string{"queue": "1", "timeout": "2s"}},
		"both":              {"?queue=1", ` {"timeout": "2s"} `, map[string]string{"queue": "1", "timeout": "2s"}},
		"nothing":           {"", "", map[string]string{}}, // for the registry to refuse
		"code":              {"", `{"code": "x"}`, nil},
		"lang":              {"?lang=node", "", nil},
		"name and setting":  {"?queue=1", `{"name": "x"}`, nil},
		"empty name":        {"?name=", "", nil},
		"name twice":        {"?name=x", `{"name": "x"}`, nil},
		"no object":         {"", `[1]`, nil},
		"null":              {"", `null`, nil},
		"no JSON":           {"", `queue=1`, nil},
		"in query and body": {"?queue=1", `{"queue": 1}`, nil},
	} {
		registry := newFakeRegistry()
		w := serve(newAPI(t, registry, nil), "PATCH", "/api/functions/hello"+c.query, c.body)
		if c.want == nil {
			wantProblem(t, w.Code, w.Header(), w.Body.String(), 400, faas.CodeBadRequest)
		} else if w.Code != http.StatusOK || !reflect.DeepEqual(registry.settings, parse(t, c.want)) {
			t.Errorf("%s: %d, %v", what, w.Code, registry.settings)
		}
	}
}

package httpapi

import (
	"fmt"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
)

// flood is an object or a query of half a million names, as large as a body may be
// or nearly so.
func flood(open, format, between, end string) string {
	var all strings.Builder
	all.WriteString(open)
	for i := range 480_000 {
		if i > 0 {
			all.WriteString(between)
		}
		fmt.Fprintf(&all, format, i)
	}
	all.WriteString(end)
	return all.String()
}

// TestFloods sends documents and queries of very many names. Whatever is wrong with
// them is told at the first, so that it costs a stranger more than us.
func TestFloods(t *testing.T) {
	document := func(body string) error {
		g, _ := readQuery("", "lang", "name")
		return g.readObject([]byte(body), "code")
	}
	settings := func(body string) error {
		g, _ := readQuery("")
		return g.readObject([]byte(body))
	}
	token := func(body string) error {
		_, err := readToken([]byte(body))
		return err
	}
	query := func(text string) error {
		_, err := readQuery(text, "lang", "name")
		return err
	}
	queryOf := func(route string) func(text string) error {
		names := routeOf(t, route).Query
		return func(text string) error {
			_, err := readParameters(text, names...)
			return err
		}
	}
	strange := flood("{", `"a%d":0`, ",", "}")
	for what, c := range map[string]struct {
		read        func(string) error
		given, says string
	}{
		"a document of unknown members":    {document, strange, `"a0"`},
		"settings that are unknown":        {settings, strange, `"a0"`},
		"a token of unknown members":       {token, strange, `"a0"`},
		"behind good ones":                 {document, `{"code": "c", "queue": 1, ` + strange[1:], `"a0"`},
		"the same member":                  {document, flood(`{"code": "c",`, `"queue":%d`, ",", "}"), `"queue" is given twice`},
		"the same member of a token":       {token, flood("{", `"name":"%d"`, ",", "}"), `"name" is given twice`},
		"not even an object's end":         {document, flood("{", `"a%d":0`, ",", ""), `"a0"`},
		"a deep member":                    {document, `{"a0": ` + strings.Repeat("[", 3<<20), `"a0"`},
		"variables":                        {document, flood(`{"code": "c", "env": {`, `"A%d":""`, ",", "}}"), "env has 6"},
		"variables as text":                {settings, flood(`{"env": "`, `A%d=`, ",", `"}`), "env has 4"},
		"secrets":                          {settings, flood(`{"secrets": [`, `"A%d"`, ",", "]}"), "secrets has 4"},
		"grants":                           {token, flood(`{"name": "x", "grants": [`, `"read:a%d"`, ",", "]}"), "grants has 7"},
		"a query of unknown parameters":    {query, flood("", "a%d=1", "&", ""), `"a0"`},
		"the same parameter":               {query, flood("", "queue=%d", "&", ""), `"queue" is given twice`},
		"a query of the audit log":         {queryOf("GET /api/audit"), flood("", "a%d=1", "&", ""), `"a0"`},
		"a query of a list":                {queryOf("GET /api/functions"), flood("", "limit=%d", "&", ""), `"limit" is given twice`},
		"a query of a secret's functions":  {queryOf("PUT /api/secrets/{name}"), flood("", "a%d=1", "&", ""), `"a0"`},
		"arguments of a call":              {func(text string) error { _, err := parseArgs(text); return err }, flood("", "a%d=1", "&", ""), "bytes"},
		"arguments in the original's form": {func(text string) error { _, err := parseArgs(text); return err }, flood("", "a:%d", ",", "")[:maxQuery], "more than 1000"},
	} {
		err := c.read(c.given)
		if code := faas.CodeOf(err); code != faas.CodeBadRequest && code != faas.CodeTooLarge || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %.300v", what, err)
			continue
		}
		if n := testing.AllocsPerRun(1, func() { c.read(c.given) }); n > 300 {
			t.Errorf("%s: a refusal makes %v allocations", what, n)
		}
	}
}

package logs

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"github.com/flockofbirds/fob/internal/faas"
)

// filter finds the lines that a query asks for.
type filter struct {
	faas.LogQuery
	functions map[string]bool // nil for all
	terms     []term
}

// term is a part of a query's text. It is in a line that has it anywhere, and if it is
// member:value also in a line that is a JSON object with such a member.
type term struct {
	text   []byte
	member []string // its path; nil if the term is not member:value
	value  string
}

func newFilter(q faas.LogQuery) *filter {
	f := &filter{LogQuery: q}
	if q.Functions != nil {
		f.functions = map[string]bool{}
		for _, id := range q.Functions {
			f.functions[id] = true
		}
	}
	for _, text := range split(q.Text) {
		t := term{text: []byte(text)}
		if m := memberPattern.FindStringSubmatch(text); m != nil {
			t.member, t.value = strings.Split(m[1], "."), m[2]
		}
		f.terms = append(f.terms, t)
	}
	return f
}

// memberPattern matches member:value. The path of a member in a member has dots.
var memberPattern = regexp.MustCompile(`(?s)^([A-Za-z0-9_@$-]+(?:\.[A-Za-z0-9_@$-]+)*):(.+)$`)

// split splits a query's text at blanks. What is in double quotes stays together; a quote
// without its end is a character like any other.
func split(text string) (terms []string) {
	for text = strings.TrimLeft(text, " "); text != ""; text = strings.TrimLeft(text, " ") {
		term := ""
		for text != "" && text[0] != ' ' {
			if inside, rest, closed := strings.Cut(text[1:], `"`); text[0] == '"' && closed {
				term, text = term+inside, rest
				continue
			}
			term, text = term+text[:1], text[1:]
		}
		terms = append(terms, term)
	}
	return terms
}

// has reports whether lines of a function are asked for.
func (f *filter) has(function string) bool { return f.functions == nil || f.functions[function] }

// matches reports whether a line is asked for.
func (f *filter) matches(l *found) bool {
	switch {
	case f.Before > 0 && l.number >= f.Before, l.number <= f.After:
	case f.Call != "" && string(l.call) != f.Call:
	case f.Version > 0 && l.version != f.Version:
	case f.Levels != nil && !slices.Contains(f.Levels, l.level):
	case l.time.Before(f.Since), !f.Until.IsZero() && l.time.After(f.Until):
	default:
		return f.contains(l.text)
	}
	return false
}

// contains reports whether a text has all terms.
func (f *filter) contains(text []byte) bool {
	var object map[string]any
	for _, t := range f.terms {
		if bytes.Contains(text, t.text) {
			continue
		}
		if t.member == nil || !bytes.HasPrefix(bytes.TrimLeft(text, " \t"), []byte("{")) || !bytes.Contains(text, []byte(t.member[0])) {
			return false
		}
		if object == nil {
			in := json.NewDecoder(bytes.NewReader(text))
			in.UseNumber()
			if in.Decode(&object) != nil || object == nil {
				return false
			}
		}
		if !hasMember(object, t.member, t.value) {
			return false
		}
	}
	return true
}

// hasMember reports whether a JSON object has a member with a value. Texts are compared
// as they are, anything else as JSON writes it; of a list one item is enough.
func hasMember(object map[string]any, path []string, value string) bool {
	got, ok := object[path[0]]
	if !ok {
		return false
	}
	if len(path) > 1 {
		inner, ok := got.(map[string]any)
		return ok && hasMember(inner, path[1:], value)
	}
	items, ok := got.([]any)
	if !ok {
		items = []any{got}
	}
	return slices.ContainsFunc(items, func(item any) bool {
		switch item := item.(type) {
		case string:
			return item == value
		case json.Number:
			return item.String() == value
		case bool:
			return item && value == "true" || !item && value == "false"
		case nil:
			return value == "null"
		}
		return false
	})
}

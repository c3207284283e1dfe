package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/flockofbirds/fob/internal/faas"
)

// readDraft reads what will become a version: either code in the body and settings as
// query parameters, or everything in one JSON object. The Content-Type does not tell
// which (for < hello.py HTTPie sends application/json, curl a form type), so the body
// does: if it begins like a JSON object it is taken for one, because hardly any program
// begins so.
func (b *bodies) readDraft(w http.ResponseWriter, r *http.Request) (name string, draft faas.Draft, err error) {
	given, err := readQuery(r.URL.RawQuery, "lang", "name")
	if err != nil {
		return "", draft, err
	}
	body, err := b.read(w, r)
	if err != nil {
		return "", draft, err
	}
	if kind := r.Header.Get("Content-Type"); strings.HasPrefix(strings.ToLower(kind), "multipart/") && bytes.HasPrefix(body, []byte("--")) {
		return "", draft, faas.Errorf(faas.CodeBadRequest, "the body is a multipart form, as curl -F makes it: send the code as it is, as with curl --data-binary @hello.py")
	}
	if beginsLikeObject(body) {
		if err := given.readObject(body, "code"); err != nil {
			return "", draft, err
		}
		draft.Code = given.words["code"]
	} else {
		draft.Code = string(body)
	}
	name, named := given.words["name"]
	if named && name == "" {
		return "", draft, faas.Errorf(faas.CodeBadRequest, "the name is empty: leave it out for a function without one")
	}
	lang, said := given.words["lang"]
	if said && lang == "" {
		return "", draft, faas.Errorf(faas.CodeBadRequest, "lang is empty: leave it out for the default")
	}
	draft.Lang, draft.Settings = lang, given.settings
	return name, draft, nil
}

// readPatch reads settings, or a new name, from query parameters, a JSON object, or both.
func (b *bodies) readPatch(w http.ResponseWriter, r *http.Request) (name string, settings faas.SettingsPatch, err error) {
	given, err := readQuery(r.URL.RawQuery, "name")
	if err != nil {
		return "", given.settings, err
	}
	body, err := b.read(w, r)
	if err == nil && len(bytes.TrimSpace(body)) > 0 {
		err = given.readObject(body)
	}
	name, named := given.words["name"]
	switch {
	case err != nil || !named:
	case name == "":
		err = faas.Errorf(faas.CodeBadRequest, "the name is empty: a function that has a name can only get another one")
	case !given.settings.Empty():
		err = faas.Errorf(faas.CodeBadRequest, "name renames the function, and settings make a new version: send them one after the other")
	}
	return name, given.settings, err
}

// beginsLikeObject reports whether text begins as every JSON object does, and no
// sensible program: with { followed by " or }.
func beginsLikeObject(text []byte) bool {
	text = bytes.TrimPrefix(text, []byte(byteOrderMark))
	rest, ok := bytes.CutPrefix(bytes.TrimSpace(text), []byte("{"))
	rest = bytes.TrimLeft(rest, " \t\r\n")
	return ok && len(rest) > 0 && (rest[0] == '"' || rest[0] == '}')
}

// sent is what a client sent: settings, and words beside them, such as a name.
type sent struct {
	also     []string // words that are allowed
	words    map[string]string
	settings faas.SettingsPatch
}

// readQuery reads settings, and the words in also, from a query string. After an error
// it still returns what it has read.
func readQuery(query string, also ...string) (*sent, error) {
	g := &sent{also: also, words: make(map[string]string)}
	return g, eachParameter(query, g.known, g.set)
}

// readObject adds the members of a JSON object to what the query gave. It must have all
// the words in must.
func (g *sent) readObject(body []byte, must ...string) error {
	g.also = append(must, g.also...)
	err := eachMember(body, func(name string) error {
		if err := g.known(name); err != nil {
			return err
		}
		if _, word := g.words[name]; word || g.settings.Has(name) {
			return faas.Errorf(faas.CodeBadRequest, "%s is given both in the query and in the body", name)
		}
		return nil
	}, g.member)
	if err != nil {
		return err
	}
	for _, word := range must {
		if _, there := g.words[word]; !there {
			return faas.Errorf(faas.CodeBadRequest, `the JSON object has no member %s; it is {"code": "…", "lang": "python", …}`, word)
		}
	}
	return nil
}

// known fails if name is neither an allowed word nor a setting.
func (g *sent) known(name string) error {
	if slices.Contains(g.also, name) || faas.FindSetting(name) != nil {
		return nil
	}
	return faas.UnknownSetting(name, g.also...)
}

// set takes a word or a setting as text.
func (g *sent) set(name, text string) error {
	if slices.Contains(g.also, name) {
		g.words[name] = text
		return nil
	}
	return g.settings.Set(name, text)
}

// maxSetting bounds the text of a setting in a JSON document, in bytes. The longest is
// env: 32 KB, of which JSON may escape each byte to six.
const maxSetting = 256 << 10

// member takes a member of a JSON object. Its value has the setting's own type, or is a
// string or number that a query could have.
func (g *sent) member(name string, value json.RawMessage) error {
	kind := typeOf(value)
	switch {
	case name == "code":
		if kind != "string" {
			return faas.Errorf(faas.CodeBadRequest, "the member code is not a string")
		}
	case len(value) > maxSetting:
		return faas.Errorf(faas.CodeBadRequest, "the member %s has %d bytes, more than any that is allowed", name, len(value))
	}
	text := string(value) // JSON writes a value of the setting's type as a query does
	if kind == "string" {
		if err := json.Unmarshal(value, &text); err != nil {
			return faas.Errorf(faas.CodeBadRequest, "the member %s cannot be read", name)
		}
	} else if setting := faas.FindSetting(name); kind != "number" && (setting == nil || setting.Type != kind) {
		return faas.Errorf(faas.CodeBadRequest, "the member %s is neither a string nor a number", name)
	}
	return g.set(name, text)
}

// typeOf returns JSON Schema's name for the type of a value.
func typeOf(value json.RawMessage) string {
	switch value[0] {
	case '"':
		return "string"
	case '{':
		return "object"
	case '[':
		return "array"
	case 't', 'f':
		return "boolean"
	case 'n':
		return "null"
	}
	return "number"
}

package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/flockofbirds/fob/internal/faas"
)

// readDraft reads what is to become a version: the code as the body, with
// settings as query parameters, or all of it as one JSON object. The client's
// Content-Type says nothing (HTTPie sends application/json for < hello.py, curl
// a form type), so the body itself tells: one that begins like a JSON object is
// meant as one, for hardly any program does.
func (a *API) readDraft(w http.ResponseWriter, r *http.Request) (name string, draft faas.Draft, err error) {
	given, err := readQuery(r.URL.RawQuery, "lang", "name")
	if err != nil {
		return "", draft, err
	}
	body, err := a.readBody(w, r)
	if err != nil {
		return "", draft, err
	}
	if beginsLikeObject(body) {
		if draft.Code, err = readObject(body, given, "code", "lang", "name"); err != nil {
			return "", draft, err
		}
	} else {
		draft.Code = string(body)
	}
	name, named := given["name"]
	if named && name == "" {
		return "", draft, faas.Errorf(faas.CodeBadRequest, "the name is empty: leave it out for a function without one")
	}
	lang, said := given["lang"]
	if said && lang == "" {
		return "", draft, faas.Errorf(faas.CodeBadRequest, "lang is empty: leave it out for the default")
	}
	draft.Lang = lang
	delete(given, "name")
	delete(given, "lang")
	draft.Settings = given
	return name, draft, nil
}

// readPatch reads settings, as query parameters, a JSON object, or both.
func (a *API) readPatch(w http.ResponseWriter, r *http.Request) (faas.SettingsPatch, error) {
	given, err := readQuery(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	body, err := a.readBody(w, r)
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(body)) > 0 {
		if _, err := readObject(body, given); err != nil {
			return nil, err
		}
	}
	return given, nil
}

// readQuery reads settings, and what else is allowed, from a query string.
func readQuery(query string, also ...string) (faas.SettingsPatch, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, faas.Errorf(faas.CodeBadRequest, "the query is not properly percent-encoded")
	}
	given := make(faas.SettingsPatch)
	for name, texts := range values {
		if err := checkSetting(name, also); err != nil {
			return nil, err
		}
		if len(texts) > 1 {
			return nil, faas.Errorf(faas.CodeBadRequest, "%s is given twice", name)
		}
		given[name] = texts[0]
	}
	return given, nil
}

// beginsLikeObject reports whether text begins as no program in a sensible
// mood does, but every JSON object: { and then " or }.
func beginsLikeObject(text []byte) bool {
	rest, ok := bytes.CutPrefix(bytes.TrimSpace(text), []byte("{"))
	rest = bytes.TrimLeft(rest, " \t\r\n")
	return ok && len(rest) > 0 && (rest[0] == '"' || rest[0] == '}')
}

// readObject adds a JSON object's members to given, and returns its member
// code, which it must have if that is allowed.
func readObject(body []byte, given faas.SettingsPatch, also ...string) (code string, err error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil || members == nil {
		why := "it is not an object"
		if err != nil {
			why = err.Error()
		}
		return "", faas.Errorf(faas.CodeBadRequest, "the body cannot be read as a JSON object: %s", why)
	}
	if !utf8.Valid(body) { // else what is not would be replaced in silence
		return "", faas.Errorf(faas.CodeBadRequest, "the body is not UTF-8 text")
	}
	if name, twice := repeated(body); twice {
		return "", faas.Errorf(faas.CodeBadRequest, "the member %.80q is given twice", name)
	}
	hasCode := false
	for name, raw := range members {
		if err := checkSetting(name, also); err != nil {
			return "", err
		}
		if name == "code" {
			hasCode = true
			if err := json.Unmarshal(raw, &code); err != nil || raw[0] != '"' {
				return "", faas.Errorf(faas.CodeBadRequest, "the member code is not a string")
			}
			continue
		}
		if _, twice := given[name]; twice {
			return "", faas.Errorf(faas.CodeBadRequest, "%s is given both in the query and in the body", name)
		}
		text := string(raw)
		switch raw[0] {
		case '"':
			if err := json.Unmarshal(raw, &text); err != nil {
				return "", faas.Errorf(faas.CodeBadRequest, "the member %s cannot be read", name)
			}
		case '{':
			if name != "env" {
				return "", notText(name)
			}
		case '[':
			if name != "secrets" {
				return "", notText(name)
			}
		case 't', 'f':
			if name != "public" {
				return "", notText(name)
			}
		case 'n':
			return "", notText(name)
		}
		given[name] = text
	}
	if len(also) > 0 && !hasCode {
		return "", faas.Errorf(faas.CodeBadRequest, `the JSON object has no member code; it is {"code": "…", "lang": "python", …}`)
	}
	return code, nil
}

func notText(name string) error {
	return faas.Errorf(faas.CodeBadRequest, "the member %s is neither a string nor a number", name)
}

// repeated returns a member that a valid JSON object has twice, if there is one.
func repeated(object []byte) (name string, twice bool) {
	d := json.NewDecoder(bytes.NewReader(object))
	d.Token() // the opening brace
	seen := make(map[string]bool)
	for d.More() {
		token, _ := d.Token()
		name, _ := token.(string)
		var value json.RawMessage
		if err := d.Decode(&value); err != nil || seen[name] {
			return name, seen[name]
		}
		seen[name] = true
	}
	return "", false
}

func checkSetting(name string, also []string) error {
	for _, other := range also {
		if name == other {
			return nil
		}
	}
	if faas.IsSetting(name) {
		return nil
	}
	known := strings.Join(append(also, faas.SettingNames()...), ", ")
	return faas.Errorf(faas.CodeBadRequest, "there is no setting %.80q; there are %s", name, known)
}

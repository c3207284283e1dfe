package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"

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
	if kind := r.Header.Get("Content-Type"); strings.HasPrefix(strings.ToLower(kind), "multipart/") && bytes.HasPrefix(body, []byte("--")) {
		return "", draft, faas.Errorf(faas.CodeBadRequest, "the body is a multipart form, as curl -F makes it: send the code as it is, as with curl --data-binary @hello.py")
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
	given := make(faas.SettingsPatch)
	err := eachParameter(query, func(name string) error { return checkSetting(name, also) }, func(name, value string) error {
		given[name] = value
		return nil
	})
	if err != nil {
		return nil, err
	}
	return given, nil
}

// beginsLikeObject reports whether text begins as no program in a sensible
// mood does, but every JSON object: { and then " or }.
func beginsLikeObject(text []byte) bool {
	text = bytes.TrimPrefix(text, []byte(byteOrderMark))
	rest, ok := bytes.CutPrefix(bytes.TrimSpace(text), []byte("{"))
	rest = bytes.TrimLeft(rest, " \t\r\n")
	return ok && len(rest) > 0 && (rest[0] == '"' || rest[0] == '}')
}

// readObject adds a JSON object's members to given, and returns its member
// code, which it must have if that is allowed.
func readObject(body []byte, given faas.SettingsPatch, also ...string) (code string, err error) {
	hasCode := false
	err = eachMember(body, func(name string) error {
		if err := checkSetting(name, also); err != nil {
			return err
		}
		if _, twice := given[name]; twice {
			return faas.Errorf(faas.CodeBadRequest, "%s is given both in the query and in the body", name)
		}
		return nil
	}, func(name string, raw json.RawMessage) error {
		if name == "code" {
			hasCode = true
			if err := json.Unmarshal(raw, &code); err != nil || raw[0] != '"' {
				return faas.Errorf(faas.CodeBadRequest, "the member code is not a string")
			}
			return nil
		}
		if len(raw) > maxSetting {
			return faas.Errorf(faas.CodeBadRequest, "the member %s has %d bytes, more than any that is allowed", name, len(raw))
		}
		text := string(raw)
		switch raw[0] {
		case '"':
			if err := json.Unmarshal(raw, &text); err != nil {
				return faas.Errorf(faas.CodeBadRequest, "the member %s cannot be read", name)
			}
		case '{':
			if name != "env" {
				return notText(name)
			}
		case '[':
			if name != "secrets" {
				return notText(name)
			}
		case 't', 'f':
			if name != "public" {
				return notText(name)
			}
		case 'n':
			return notText(name)
		}
		given[name] = text
		return nil
	})
	if err != nil {
		return "", err
	}
	if len(also) > 0 && !hasCode {
		return "", faas.Errorf(faas.CodeBadRequest, `the JSON object has no member code; it is {"code": "…", "lang": "python", …}`)
	}
	return code, nil
}

// maxSetting is how long a setting's text may be in a document, in bytes. Env has
// the longest: 32 KB, of which JSON may write each byte as six.
const maxSetting = 256 << 10

func notText(name string) error {
	return faas.Errorf(faas.CodeBadRequest, "the member %s is neither a string nor a number", name)
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

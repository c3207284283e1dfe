package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/flockofbirds/fob/internal/faas"
)

// eachMember calls give for each member of a JSON object. Before it looks at a member's
// value, it asks known whether there may be a member of that name. It stops at the first
// name that is unknown or repeated: a body may have half a million of them, and refusing
// it should cost no more than reading up to the wrong one.
func eachMember(body []byte, known func(name string) error, give func(name string, value json.RawMessage) error) error {
	bad := func(err error) error {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return faas.Errorf(faas.CodeBadRequest, "the body cannot be read as a JSON object: %s", err)
	}
	if !utf8.Valid(body) { // otherwise invalid bytes would be replaced silently
		return faas.NotUTF8("the body", body)
	}
	body = bytes.TrimPrefix(body, []byte(byteOrderMark))
	d := json.NewDecoder(bytes.NewReader(body))
	switch brace, err := d.Token(); {
	case err != nil:
		return bad(err)
	case brace != json.Delim('{'):
		return bad(errors.New("it is not an object"))
	}
	seen := make(map[string]bool)
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return bad(err)
		}
		name, _ := token.(string) // cannot be anything but a string
		if seen[name] {
			return twice(name)
		}
		if err := known(name); err != nil {
			return err
		}
		seen[name] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return bad(err)
		}
		if err := give(name, value); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return bad(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return bad(errors.New("there is something behind it"))
	}
	return nil
}

// byteOrderMark begins files that editors on Windows write.
const byteOrderMark = "\ufeff"

// eachParameter does the same for the parameters of a query string.
func eachParameter(query string, known func(name string) error, give func(name, value string) error) error {
	seen := make(map[string]bool)
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		rawName, rawValue, _ := strings.Cut(part, "=")
		name, err1 := url.QueryUnescape(rawName)
		value, err2 := url.QueryUnescape(rawValue)
		if err1 != nil || err2 != nil || strings.Contains(part, ";") { // some programs take it for an &
			return faas.Errorf(faas.CodeBadRequest, "the query is not properly percent-encoded")
		}
		if seen[name] {
			return twice(name)
		}
		if err := known(name); err != nil {
			return err
		}
		seen[name] = true
		if err := give(name, value); err != nil {
			return err
		}
	}
	return nil
}

func twice(name string) error {
	return faas.Errorf(faas.CodeBadRequest, "%.80q is given twice", name)
}

// readParameters reads a query string that may have the parameters names.
func readParameters(query string, names ...string) (map[string]string, error) {
	given := make(map[string]string)
	err := eachParameter(query, func(name string) error {
		if slices.Contains(names, name) {
			return nil
		}
		return faas.Errorf(faas.CodeBadRequest, "the query takes %s, each once, not %.80q", strings.Join(names, ", "), name)
	}, func(name, value string) error {
		given[name] = value
		return nil
	})
	return given, err
}

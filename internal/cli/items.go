package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// separators say what an item of a call is, as in HTTPie. Of those that begin at the
// same character the longest counts, so they are in order of length.
var separators = []string{":=@", ":=", "=@", "==", "=", ":", "@"}

// items are what a call sends, as its command line has it.
type items struct {
	query  url.Values
	header http.Header
	names  []string                   // of fields, in order
	fields map[string]json.RawMessage // arguments
	files  [][2]string                // fields of a form: name and path
	body   string                     // path of the body; "" for none, "-" for standard input
}

// readItems reads a=text, a:=JSON, a=@file, a:=@file, name==query, Header:value,
// name@file and @file. A backslash takes its meaning from a separator.
func readItems(words []string) (*items, error) {
	it := &items{query: url.Values{}, header: http.Header{}, fields: map[string]json.RawMessage{}}
	for _, word := range words {
		name, separator, value := splitItem(word)
		if err := it.add(name, separator, value); err != nil {
			return nil, fmt.Errorf("%s: %w", word, err)
		}
	}
	if it.body != "" && len(it.fields)+len(it.files) > 0 {
		return nil, fmt.Errorf("@%s is the whole body: give either it or arguments", it.body)
	}
	return it, nil
}

// splitItem splits an item at its first separator, which is "" if there is none.
func splitItem(word string) (name, separator, value string) {
	var b strings.Builder
	for i := 0; i < len(word); i++ {
		if word[i] == '\\' && i+1 < len(word) && strings.ContainsRune("=:@\\", rune(word[i+1])) {
			i++
			b.WriteByte(word[i])
			continue
		}
		for _, s := range separators {
			if strings.HasPrefix(word[i:], s) {
				return b.String(), s, word[i+len(s):]
			}
		}
		b.WriteByte(word[i])
	}
	return word, "", ""
}

func (it *items) add(name, separator, value string) error {
	switch {
	case separator == "@" && name == "":
		if it.body != "" {
			return fmt.Errorf("there is a body already, @%s", it.body)
		}
		it.body = value
		return nil
	case separator == "" || name == "":
		return fmt.Errorf("that is no argument: write name=text, name:=JSON, name=@file, name==query, Header:value, name@file or @file")
	}
	switch separator {
	case "==":
		it.query.Add(name, value)
		return nil
	case ":":
		it.header.Add(name, value)
		return nil
	case "@":
		it.files = append(it.files, [2]string{name, value})
		return nil
	}
	if strings.HasSuffix(separator, "@") {
		text, err := os.ReadFile(value)
		if err != nil {
			return err
		}
		value = string(text)
	}
	if _, twice := it.fields[name]; twice {
		return fmt.Errorf("%s is given twice", name)
	}
	it.names = append(it.names, name)
	if separator[0] == ':' {
		if !json.Valid([]byte(value)) {
			return fmt.Errorf("%.80s is not JSON: write %s=… for a text", value, name)
		}
		it.fields[name] = json.RawMessage(value)
		return nil
	}
	text, err := json.Marshal(value)
	it.fields[name] = text
	return err
}

// attach gives a request the items' body and header. The body is closed with the
// request.
func (it *items) attach(r *http.Request) error {
	for name, values := range it.header {
		if name == "Host" {
			r.Host = values[0]
		}
		r.Header[name] = values
	}
	kind := ""
	switch {
	case it.body == "-":
		r.Body, r.ContentLength = os.Stdin, -1
	case it.body != "":
		file, err := os.Open(it.body)
		if err != nil {
			return err
		}
		if info, err := file.Stat(); err == nil && info.IsDir() {
			file.Close()
			return fmt.Errorf("%s is a folder", it.body)
		} else if err == nil && info.Mode().IsRegular() {
			r.ContentLength = info.Size()
		}
		r.Body = file
		if kind = mime.TypeByExtension(filepath.Ext(it.body)); kind == "" {
			kind = "application/octet-stream"
		}
	case len(it.files) > 0:
		body, into := io.Pipe()
		form := multipart.NewWriter(into)
		kind = form.FormDataContentType()
		r.Body = body
		go func() { into.CloseWithError(it.writeForm(form)) }()
	case len(it.fields) > 0:
		body := it.object()
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		kind = "application/json"
	}
	if _, given := r.Header["Content-Type"]; !given && kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	return nil
}

// object returns the fields as a JSON object, in their order.
func (it *items) object() []byte {
	b := []byte{'{'}
	for i, name := range it.names {
		if i > 0 {
			b = append(b, ',')
		}
		key, _ := json.Marshal(name) // a string
		b = append(append(append(b, key...), ':'), it.fields[name]...)
	}
	return append(b, '}')
}

// writeForm writes the fields and files as a form.
func (it *items) writeForm(form *multipart.Writer) error {
	for _, name := range it.names {
		text := string(it.fields[name])
		if text[0] == '"' {
			if err := json.Unmarshal(it.fields[name], &text); err != nil {
				return err
			}
		}
		if err := form.WriteField(name, text); err != nil {
			return err
		}
	}
	for _, one := range it.files {
		if err := writeFile(form, one[0], one[1]); err != nil {
			return err
		}
	}
	return form.Close()
}

func writeFile(form *multipart.Writer, field, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	part, err := form.CreateFormFile(field, filepath.Base(path))
	if err != nil {
		return err
	}
	_, err = io.Copy(part, file)
	return err
}

package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
)

// answer sends v as JSON.
func answer(w http.ResponseWriter, status int, v any) error {
	send(w, status, encode(v))
	return nil
}

// send sends a body that is JSON.
func send(w http.ResponseWriter, status int, body []byte) {
	inert(w.Header())
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body) // an error has nowhere to go
}

// encode writes JSON byte for byte as the original did: with a space after each colon
// and comma, without a line break at the end, and without escapes for HTML.
func encode(v any) []byte {
	var compact bytes.Buffer
	e := json.NewEncoder(&compact)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // cannot happen: JSON can hold our own types
	}
	in := bytes.TrimSuffix(compact.Bytes(), []byte("\n"))
	out := make([]byte, 0, len(in)+len(in)/8)
	inString := false
	for i := 0; i < len(in); i++ {
		c := in[i]
		out = append(out, c)
		switch {
		case inString && c == '\\':
			i++
			out = append(out, in[i])
		case c == '"':
			inString = !inString
		case !inString && (c == ':' || c == ','):
			out = append(out, ' ')
		}
	}
	return out
}

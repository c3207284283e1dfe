package history

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/flockofbirds/fob/internal/faas"
)

// encode returns the JSON of a record. A search for text encodes the text in the same
// way, because it compares bytes.
func encode(value any) []byte {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		panic(err) // cannot happen: JSON can hold texts, numbers and times
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

// Bounds of the texts in a record, in bytes.
const (
	maxText      = 1 << 10
	maxTraceback = 8 << 10
)

// omittedCalls is a record that stands for calls that left none of their own: how many
// calls of a function in a minute.
type omittedCalls struct {
	Omitted  int       `json:"omitted"`
	Function string    `json:"function"`
	Minute   time.Time `json:"minute"`
}

var omittedBegin = []byte(`{"omitted":`)

func (o omittedCalls) encode() []byte { return encode(o) }

// bound cuts the texts of a record that may be long. Of a traceback the end matters.
func bound(call *faas.CallRecord) {
	for _, text := range []*string{&call.ID, &call.Name, &call.Method, &call.Path, &call.Caller, &call.Address} {
		*text = clip(*text, maxText)
	}
	if e := call.Error; e != nil {
		bounded := *e // the answer to the call shares it
		bounded.Type, bounded.Message = clip(e.Type, maxText), clip(e.Message, maxText)
		if over := len(e.Traceback) - maxTraceback; over > 0 {
			end := e.Traceback[over:]
			for range utf8.UTFMax - 1 { // not in the middle of a character
				if end != "" && !utf8.RuneStart(end[0]) {
					end = end[1:]
				}
			}
			bounded.Traceback = "…" + end
		}
		call.Error = &bounded
	}
}

// own copies the texts that may be pieces of a request's head, which may be long and
// would stay in memory for as long as the record waits.
func own(call *faas.CallRecord) {
	for _, text := range []*string{&call.ID, &call.Name, &call.Alias, &call.Method, &call.Path} {
		*text = strings.Clone(*text)
	}
}

// sizeOf returns roughly how many bytes a record takes in memory while it waits.
func sizeOf(call *faas.CallRecord) int {
	size := 512 + len(call.ID) + len(call.Path)
	if e := call.Error; e != nil {
		size += 128 + len(e.Type) + len(e.Message) + len(e.Traceback)
	}
	return size
}

// clip returns the beginning of a text that is longer than most bytes.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for range utf8.UTFMax - 1 { // not in the middle of a character
		if most > 0 && !utf8.RuneStart(text[most]) {
			most--
		}
	}
	return text[:most] + "…"
}

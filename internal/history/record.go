package history

import (
	"bytes"
	"encoding/json"
	"time"

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

// omittedCalls is a record that stands for calls that left none of their own: how many
// calls of a function in a minute.
type omittedCalls struct {
	Omitted  int       `json:"omitted"`
	Function string    `json:"function"`
	Minute   time.Time `json:"minute"`
}

var omittedBegin = []byte(`{"omitted":`)

func (o omittedCalls) encode() []byte { return encode(o) }

// sizeOf returns roughly how many bytes a record takes in memory while it waits.
func sizeOf(call *faas.CallRecord) int {
	size := 512 + len(call.ID) + len(call.Path)
	if e := call.Error; e != nil {
		size += 128 + len(e.Type) + len(e.Message) + len(e.Traceback)
	}
	return size
}

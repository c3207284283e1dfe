package history

import (
	"bytes"
	"encoding/json"
	"strconv"
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

// appendCall appends the JSON of a record, byte for byte what encode returns. There is
// one for every call, and encoding/json takes three times as long (BenchmarkEncode).
func appendCall(b []byte, c *faas.CallRecord) []byte {
	b = appendText(append(b, `{"id":`...), c.ID)
	b = appendMember(b, `,"function":`, c.Function)
	b = appendText(append(b, `,"outcome":`...), c.Outcome)
	b = appendMember(b, `,"name":`, c.Name)
	b = appendCount(b, `,"version":`, int64(c.Version))
	b = appendMember(b, `,"alias":`, c.Alias)
	b = appendText(append(b, `,"state":`...), c.State)
	b = c.Started.AppendFormat(append(b, `,"started":"`...), time.RFC3339Nano)
	b = appendNumber(append(b, `","timing":{"queue":`...), c.Timing.Queue)
	b = appendNumber(append(b, `,"start":`...), c.Timing.Start)
	if c.Timing.Load != 0 {
		b = appendNumber(append(b, `,"load":`...), c.Timing.Load)
	}
	b = appendNumber(append(b, `,"run":`...), c.Timing.Run)
	b = appendNumber(append(b, `,"total":`...), c.Timing.Total)
	b = strconv.AppendBool(append(b, `},"cold":`...), c.Cold)
	b = appendCount(b, `,"status":`, int64(c.Status))
	b = appendMember(b, `,"method":`, c.Method)
	b = appendMember(b, `,"path":`, c.Path)
	b = strconv.AppendInt(append(b, `,"bytes_in":`...), c.BytesIn, 10)
	b = strconv.AppendInt(append(b, `,"bytes_out":`...), c.BytesOut, 10)
	b = appendText(append(b, `,"caller":`...), c.Caller)
	b = appendMember(b, `,"address":`, c.Address)
	b = appendMember(b, `,"trace":`, c.Trace)
	b = appendMember(b, `,"span":`, c.Span)
	b = appendMember(b, `,"parent":`, c.Parent)
	b = appendMember(b, `,"sandbox":`, c.Sandbox)
	if u := c.Usage; u != (faas.CallUsage{}) {
		b = appendNumber(append(b, `,"usage":{"cpu":`...), u.CPU)
		b = appendCount(b, `,"memory":`, u.Memory)
		if u.Shared {
			b = append(b, `,"shared":true`...)
		}
		b = append(b, '}')
	}
	if c.Error != nil {
		b = append(append(b, `,"error":`...), encode(c.Error)...)
	}
	return append(b, '}')
}

// appendMember appends a member that is left out when it is empty.
func appendMember(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return appendText(append(b, name...), value)
}

// appendCount appends a member that is left out when it is 0.
func appendCount(b []byte, name string, value int64) []byte {
	if value == 0 {
		return b
	}
	return strconv.AppendInt(append(b, name...), value, 10)
}

// appendNumber appends a number that JSON need not write with an exponent.
func appendNumber(b []byte, n float64) []byte {
	if n != 0 && (n < 1e-6 || n >= 1e21) {
		return append(b, encode(n)...)
	}
	return strconv.AppendFloat(b, n, 'f', -1, 64)
}

func appendText(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return append(b, encode(text)...)
		}
	}
	return append(append(append(b, '"'), text...), '"')
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

package logs

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// A record is a line: a byte that says so, flags, the level, and then, each as a varint or
// a text with its length before it: number, time in microseconds since 1970, version, how
// many lines were dropped, sandbox and call. What remains is the text.
const (
	lineMark = 1
	flagMore = 1

	maxField = 255 // bytes of a sandbox's or call's ID
)

var errLine = errors.New("it is no line of a log")

// appendLine appends a line as a record has it.
func appendLine(b []byte, l *faas.LogLine) []byte {
	var flags byte
	if l.More {
		flags = flagMore
	}
	b = append(b, lineMark, flags, byte(max(slices.Index(faas.LogLevels, l.Level), 0)))
	b = binary.AppendUvarint(b, l.Number)
	b = binary.AppendVarint(b, l.Time.UnixMicro())
	b = binary.AppendUvarint(b, uint64(l.Version))
	b = binary.AppendUvarint(b, uint64(l.Dropped))
	for _, text := range []string{l.Sandbox, l.Call} {
		text = text[:min(len(text), maxField)]
		b = append(b, byte(len(text)))
		b = append(b, text...)
	}
	return append(b, l.Text...)
}

// found is a line whose texts are still in its record.
type found struct {
	number        uint64
	time          time.Time
	version       int
	level         string
	more          bool
	dropped       int
	sandbox, call []byte
	text          []byte
}

// parseLine is the inverse of appendLine. It holds on to the record.
func parseLine(record []byte) (f found, err error) {
	if len(record) < 3 || record[0] != lineMark || int(record[2]) >= len(faas.LogLevels) {
		return f, errLine
	}
	f.more, f.level = record[1]&flagMore != 0, faas.LogLevels[record[2]]
	rest, ok := record[3:], true
	unsigned := func() uint64 {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			ok = false
			return 0
		}
		rest = rest[n:]
		return v
	}
	field := func() []byte {
		if len(rest) == 0 || len(rest) < 1+int(rest[0]) {
			ok = false
			return nil
		}
		text := rest[1:][:rest[0]]
		rest = rest[1+len(text):]
		return text
	}
	f.number = unsigned()
	at, n := binary.Varint(rest)
	if n <= 0 {
		return f, errLine
	}
	rest = rest[n:]
	f.time = time.UnixMicro(at).UTC()
	f.version, f.dropped = int(unsigned()), int(unsigned())
	f.sandbox, f.call = field(), field()
	f.text = rest
	if !ok {
		return f, errLine
	}
	return f, nil
}

// line returns the line, of its own.
func (f *found) line(function string) faas.LogLine {
	return faas.LogLine{
		Number: f.number, Function: function, Version: f.version, Sandbox: string(f.sandbox), Call: string(f.call),
		Time: f.time, Level: f.level, More: f.more, Text: slices.Clone(f.text), Dropped: f.dropped,
	}
}

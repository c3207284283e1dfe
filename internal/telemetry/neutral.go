package telemetry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// neutral escapes what is not printable in text, as in JSON, and passes the text on. Text
// from strangers' code gets into the log and onto terminals, in errors and in the last
// lines of containers' logs. There it must not move the cursor, begin a line that looks
// like ours, or change the reading direction. Each Write must have whole characters.
type neutral struct{ out io.Writer }

// Neutral returns a writer for messages that people read on a terminal.
func Neutral(out io.Writer) io.Writer { return neutral{out} }

// Write implements io.Writer.
func (w neutral) Write(p []byte) (int, error) {
	text := p
	if !plain(p) {
		text = appendNeutral(nil, p, '\n')
	}
	if _, err := w.out.Write(text); err != nil {
		return 0, err
	}
	return len(p), nil
}

// appendNeutral appends text with everything escaped that is not printable. keep is a character to leave alone, or -1.
func appendNeutral(b, text []byte, keep rune) []byte {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(b, `\ufffd`...)
		case unicode.IsPrint(r) || r == keep:
			b = append(b, text[:size]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, high, low)
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
		text = text[size:]
	}
	return b
}

// Escape returns text with everything escaped that is not printable, line breaks too.
func Escape(text []byte) []byte {
	if plain(text) && !bytes.HasSuffix(text, []byte("\n")) {
		return text
	}
	return appendNeutral(nil, text, -1)
}

// plain reports whether text is ASCII without control characters, except for a line
// break at its end.
func plain(text []byte) bool {
	for _, c := range bytes.TrimSuffix(text, []byte("\n")) {
		if c < ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// neutralize escapes an event that is logged as text, as far as the console writer does
// not: that one quotes texts, but neither the message nor values that are not texts.
func neutralize(event map[string]any) error {
	for name, value := range event {
		switch v := value.(type) {
		case string:
			if name == "message" && !plain([]byte(v)) {
				event[name] = string(appendNeutral(nil, []byte(v), -1))
			}
		case map[string]any, []any:
			text, err := json.Marshal(v)
			if err != nil {
				return err
			}
			event[name] = json.RawMessage(appendNeutral(nil, text, -1))
		}
	}
	return nil
}

package contract

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf16"
)

// Parts are bytes that a case writes as a text, as a list of lines, or as a list that
// also has objects {"repeat": TEXT, "times": N} or {"bytes": [0, 255]}. A list of texts
// is joined with line breaks, any other list without.
type Parts []byte

// UnmarshalJSON implements json.Unmarshaler.
func (p *Parts) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*p = Parts(text)
		return nil
	}
	var lines []string
	if json.Unmarshal(data, &lines) == nil {
		*p = Parts(strings.Join(lines, "\n"))
		return nil
	}
	var parts []json.RawMessage
	if err := json.Unmarshal(data, &parts); err != nil {
		return fmt.Errorf("want a text or a list, not %s", data)
	}
	for _, part := range parts {
		var some struct {
			Repeat string
			Times  int
			Bytes  []int
		}
		if json.Unmarshal(part, &text) == nil {
			*p = append(*p, text...)
		} else if err := json.Unmarshal(part, &some); err != nil {
			return fmt.Errorf(`want a text, {"repeat", "times"} or {"bytes"}: %w`, err)
		}
		*p = append(*p, strings.Repeat(some.Repeat, some.Times)...)
		for _, b := range some.Bytes {
			*p = append(*p, byte(b))
		}
	}
	return nil
}

// ascii escapes everything in a JSON text that is not ASCII, as Fob-Args requires.
func ascii(data []byte) string {
	var out strings.Builder
	for _, r := range string(data) {
		switch {
		case r < 0x80:
			out.WriteRune(r)
		case r < 0x10000:
			_, _ = fmt.Fprintf(&out, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			_, _ = fmt.Fprintf(&out, `\u%04x\u%04x`, high, low)
		}
	}
	return out.String()
}

package audit

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxText bounds a text in an entry, in bytes.
const maxText = 256

// printable returns text with invisible characters escaped, such as control characters
// and those that change the reading direction, and cut if it is too long. People may
// read the log on a terminal.
func printable(text string) string {
	plain := len(text) <= maxText
	for i := 0; plain && i < len(text); i++ {
		plain = text[i] >= ' ' && text[i] <= '~' && text[i] != '\\'
	}
	if plain {
		return text
	}
	var out strings.Builder
	for i, r := range text {
		if out.Len() >= maxText {
			out.WriteString("…")
			break
		}
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], "\uFFFD"):
			fmt.Fprintf(&out, `\x%02x`, text[i])
		case r == '\\':
			out.WriteString(`\\`)
		case unicode.IsPrint(r):
			out.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&out, `\U%08x`, r)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.String()
}

package audit

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxText is how long a text in an entry may be, in bytes.
const maxText = 256

// printable returns text with everything escaped that is not to be seen, such
// as control characters and those that turn the direction of writing, and cut
// when it is too long: who reads the log does so on a terminal, perhaps.
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

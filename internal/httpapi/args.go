package httpapi

import (
	"fmt"
	"net/url"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/flockofbirds/fob/internal/faas"
)

const (
	// maxQuery, in bytes, is such that three times as much (a character may
	// become a \u escape), with the longest headers that are let in, is less
	// than what a driver takes.
	maxQuery = 32 << 10
	maxArgs  = 1000
)

// parseArgs reads the arguments of a query string in either form, the
// original's ?param1:1,param2:1 or ?param1=1&param2=1, and returns them as a JSON
// object in ASCII, of strings, and of lists of strings for names that are given
// more than once, or with [] behind them. Which of : and = comes first tells the
// forms apart. In the original's, a value reaches to the next comma and may hold
// colons; a comma in it is written %2C.
func parseArgs(query string) ([]byte, error) {
	if query == "" {
		return nil, nil
	}
	if len(query) > maxQuery {
		return nil, faas.Errorf(faas.CodeTooLarge, "the query has %d bytes, and %d are allowed: send the arguments as a JSON object in the body of a POST", len(query), maxQuery)
	}
	separator, colon, unescape := "&", "=", url.QueryUnescape
	if i := strings.IndexAny(query, ":="); i >= 0 && query[i] == ':' {
		// Here + is no blank: only forms have that rule.
		separator, colon, unescape = ",", ":", url.PathUnescape
	}
	out := make([]byte, 0, len(query)+16)
	args := make([]argument, 0, 4)
	for part := range strings.SplitSeq(query, separator) {
		rawName, rawValue, found := strings.Cut(part, colon)
		if !found && separator == "," {
			return nil, faas.Errorf(faas.CodeBadRequest, "%.80q in the query is not NAME:VALUE (a comma inside a value is written %%2C)", part)
		}
		if part == "" {
			continue // as in a=1&&b=2, which forms allow
		}
		name, err := unescape(rawName)
		name, listed := strings.CutSuffix(name, "[]")
		if err != nil || name == "" || !utf8.ValidString(name) {
			return nil, faas.Errorf(faas.CodeBadRequest, "%.80q in the query has no proper parameter name", part)
		}
		value, err := unescape(rawValue)
		if err != nil || !utf8.ValidString(value) {
			return nil, faas.Errorf(faas.CodeBadRequest, "the value of parameter %.80q is not properly percent-encoded UTF-8", name)
		}
		if len(args) == maxArgs {
			return nil, faas.Errorf(faas.CodeBadRequest, "the query has more than %d parameters", maxArgs)
		}
		args = append(args, argument{name: name, value: value, listed: listed})
	}
	for i := range args {
		if args[i].taken {
			continue
		}
		if len(out) == 0 {
			out = append(out, '{')
		} else {
			out = append(out, ',')
		}
		out = appendQuoted(out, args[i].name)
		out = append(out, ':')
		out = appendValues(out, args[i:])
	}
	if len(out) == 0 {
		return nil, nil
	}
	return append(out, '}'), nil
}

// argument is one of a query's.
type argument struct {
	name, value string
	listed      bool // it has [] behind its name
	taken       bool // with a former one of that name
}

// appendValues appends all values of the name that the first argument has, and
// takes these.
func appendValues(b []byte, args []argument) []byte {
	list := args[0].listed
	for i := 1; i < len(args) && !list; i++ {
		list = args[i].name == args[0].name
	}
	if !list {
		return appendQuoted(b, args[0].value)
	}
	separator := byte('[')
	for i := range args {
		if args[i].name == args[0].name {
			b = append(b, separator)
			b = appendQuoted(b, args[i].value)
			args[i].taken = true
			separator = ','
		}
	}
	return append(b, ']')
}

// appendQuoted appends s as a JSON string in ASCII, for it travels in a header.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r >= ' ' && r < 0x7f:
			b = append(b, byte(r))
		case r <= 0xffff:
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, high, low)
		}
	}
	return append(b, '"')
}

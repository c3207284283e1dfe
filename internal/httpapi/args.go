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
	// maxQuery is in bytes. Three times as much (a character may become a \u escape)
	// and the longest headers that are let in together fit into what a driver accepts.
	maxQuery = 32 << 10
	maxArgs  = 1000
)

// parseArgs reads the arguments in a query string, and returns them as a JSON object in
// ASCII. There are two forms: ?param1:1,param2:1, which is the original's, and
// ?param1=1&param2=1. Whether : or = comes first tells them apart. In the original's
// form a value reaches to the next comma and may contain colons; a comma in it is
// written %2C.
//
// Values are strings. A name that is given more than once, or with [] after it, has a
// list of strings.
func parseArgs(query string) ([]byte, error) {
	if query == "" {
		return nil, nil
	}
	if len(query) > maxQuery {
		return nil, faas.Errorf(faas.CodeTooLarge, "the query has %d bytes, and %d are allowed: send the arguments as a JSON object in the body of a POST", len(query), maxQuery)
	}
	separator, colon, unescape := "&", "=", url.QueryUnescape
	if i := strings.IndexAny(query, ":="); i >= 0 && query[i] == ':' {
		// Here + does not mean a blank. Only forms have that rule.
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
			continue // a=1&&b=2, for example, which forms allow
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

// argument is one argument of a query.
type argument struct {
	name, value string
	listed      bool // its name has [] after it
	taken       bool // appended together with an earlier one of that name
}

// appendValues appends all values of the first argument's name, and marks them as
// taken.
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

// appendQuoted appends s as a JSON string in ASCII, because it is sent in a header.
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

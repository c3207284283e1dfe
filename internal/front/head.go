package front

import (
	"bytes"
	"net/http"
	"net/textproto"
	"strings"
)

// A request is plain if it is a GET or a POST, its path begins with the server's
// prefix, its head comes in one read, it says how long its body is, and it uses nothing
// of HTTP that changes how messages or connections end. The checks are strict on
// purpose: everything unusual is left to net/http, which knows what is allowed.

const (
	maxHead    = 8 << 10  // bytes of a plain request's head
	maxBody    = 64 << 10 // bytes of its body
	maxHeaders = 64
)

// head is the parsed head of a plain request.
type head struct {
	method string
	target string // path and query
	path   string
	query  string
	host   string
	length int // of the body
	header http.Header
}

// parse parses a head, without its empty line, into h. It reports false if the request
// is not plain.
func (h *head) parse(text, prefix string) bool {
	line, rest, _ := strings.Cut(text, "\r\n")
	switch {
	case strings.HasPrefix(line, "GET "):
		h.method, line = http.MethodGet, line[4:]
	case strings.HasPrefix(line, "POST "):
		h.method, line = http.MethodPost, line[5:]
	default:
		return false
	}
	target, ok := strings.CutSuffix(line, " HTTP/1.1")
	if !ok || !strings.HasPrefix(target, prefix) || !visible(target) {
		return false
	}
	h.target = target
	h.path, h.query, _ = strings.Cut(target, "?")
	if !simple(h.path[len(prefix):]) || strings.IndexByte(h.query, '#') >= 0 {
		return false
	}
	h.host, h.length = "", -1
	clear(h.header)
	return h.fields(rest)
}

// fields parses the header lines.
func (h *head) fields(text string) bool {
	n := strings.Count(text, "\r\n") + 1
	if n > maxHeaders {
		return false
	}
	values := make([]string, 0, n) // one allocation for all
	for text != "" {
		var line string
		line, text, _ = strings.Cut(text, "\r\n")
		colon := strings.IndexByte(line, ':')
		if colon < 1 || !token(line[:colon]) {
			return false
		}
		name, value := canonical(line[:colon]), strings.Trim(line[colon+1:], " \t")
		if !printable(value) {
			return false
		}
		switch name {
		case "Host":
			if h.host != "" || !hostname(value) {
				return false
			}
			h.host = value
			continue // as in net/http, it is not in the header
		case "Content-Length":
			if h.length >= 0 || !h.setLength(value) {
				return false
			}
		case "Connection":
			if !strings.EqualFold(value, "keep-alive") {
				return false
			}
		case "Transfer-Encoding", "Expect", "Upgrade", "Trailer", "Te", "Keep-Alive", "Http2-Settings",
			"Pragma": // for which net/http adds a Cache-Control
			return false
		}
		values = append(values, value)
		last := len(values)
		if before, twice := h.header[name]; twice {
			h.header[name] = append(before, value)
		} else {
			h.header[name] = values[last-1 : last : last]
		}
	}
	return h.host != ""
}

func (h *head) setLength(digits string) bool {
	if digits == "" || len(digits) > 5 {
		return false
	}
	h.length = 0
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return false
		}
		h.length = 10*h.length + int(c-'0')
	}
	return h.length <= maxBody
}

// canonical returns a header's name in its canonical form. Names that nearly every
// client sends need no allocation.
func canonical(name string) string {
	switch name {
	case "Host", "host":
		return "Host"
	case "User-Agent", "user-agent":
		return "User-Agent"
	case "Content-Length", "content-length":
		return "Content-Length"
	case "Content-Type", "content-type":
		return "Content-Type"
	case "Accept", "accept":
		return "Accept"
	case "Accept-Encoding", "accept-encoding":
		return "Accept-Encoding"
	case "Connection", "connection":
		return "Connection"
	}
	return textproto.CanonicalMIMEHeaderKey(name)
}

// simple reports whether the rest of a path needs no unescaping or cleaning.
func simple(segment string) bool {
	for i := range len(segment) {
		c := segment[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '@' || c == ':') {
			return false
		}
	}
	return segment != ""
}

func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// printable reports whether a header's value has no control characters. Like net/http
// it allows bytes beyond ASCII.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

func token(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, s[i]) >= 0 {
			return false
		}
	}
	return true
}

func hostname(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(".-_:[]", c) >= 0) {
			return false
		}
	}
	return s != ""
}

var endOfHead = []byte("\r\n\r\n")

// headEnd returns the index in b at which a head ends, after its empty line, or -1.
func headEnd(b []byte) int {
	if end := bytes.Index(b, endOfHead); end >= 0 {
		return end + len(endOfHead)
	}
	return -1
}

package httpapi

import (
	"net/http"
	"strings"
)

// What a function answers with a browser may show, under the same origin as the
// API. The policy gives such a page an origin of its own, which the API takes
// for another site, and which has no storage, cookies or service workers.
const sandboxPolicy = "sandbox allow-scripts allow-forms allow-popups allow-downloads"

// Values of headers that many answers share. Nobody changes them.
var (
	nosniff    = []string{"nosniff"}
	noReferrer = []string{"no-referrer"}
	inertCSP   = []string{"default-src 'none'"}
)

// inert is for our own answers: whatever is in them, a browser runs nothing.
func inert(h http.Header) {
	h["X-Content-Type-Options"] = nosniff
	h["Content-Security-Policy"] = inertCSP
}

// contain is for a function's answer of that media type; policies are those of
// the function's own, which go on to hold.
func contain(h http.Header, mediaType string, policies []string) {
	h["X-Content-Type-Options"] = nosniff
	if isData(mediaType) {
		return
	}
	h["Referrer-Policy"] = noReferrer
	h["Content-Security-Policy"] = append([]string{sandboxPolicy}, policies...)
}

// isData reports whether no browser renders what has that Content-Type. One with
// a comma may be two, of which browsers take the last.
func isData(contentType string) bool {
	if contentType == "application/json" {
		return true
	}
	if strings.IndexByte(contentType, ',') >= 0 {
		return false
	}
	essence, _, _ := strings.Cut(contentType, ";")
	switch strings.ToLower(strings.Trim(essence, " \t")) {
	case "application/json", "application/x-ndjson", "application/ndjson", "text/event-stream":
		return true
	}
	return false
}

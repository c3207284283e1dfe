package httpapi

import (
	"net/http"
	"strings"

	"github.com/flockofbirds/fob/internal/faas"
)

// screen keeps web pages from using the API by way of a browser that can reach
// it, which needs no more than being opened. It reports whether a request may go
// on; one that may not has been answered. What is no browser's passes: it can
// say anything in its headers anyway.
func (a *API) screen(w http.ResponseWriter, r *http.Request) bool {
	target, ok := a.client(r)
	if !ok {
		a.turnAway(w, r, faas.Errorf(faas.CodeBadHost, "this dispatcher is not known as %.100q: use its address, or have whoever runs it add the name to FOB_HOSTS", r.Host))
		return false
	}
	if speculative(r.Header) {
		// Even for a function with cors: whoever lists an origin lets its pages
		// call, and not a browser guess what they may call.
		a.turnAway(w, r, faas.Errorf(faas.CodeCrossSite, "a browser made this request ahead of need (prefetch or prerender); nothing here is answered to those"))
		return false
	}
	origins, sites := r.Header["Origin"], r.Header["Sec-Fetch-Site"]
	if len(origins) == 0 && len(sites) == 0 || ownPage(target, origins, sites, r.Header["Referer"]) {
		return true
	}
	return a.crossSite(w, r, origins)
}

// speculative reports whether a browser makes a request before anybody has asked
// for what it fetches. Any page can have it do so for any address, and it then
// says Sec-Fetch-Site: none, as of one that the user typed.
func speculative(h http.Header) bool {
	if h["Sec-Purpose"] != nil { // which no page can set, and which means nothing else
		return true
	}
	// What browsers said before, as names that others may use for something else.
	for _, name := range [...]string{"Purpose", "X-Purpose", "X-Moz"} {
		for _, value := range h[name] {
			value = strings.ToLower(value)
			if strings.HasPrefix(value, "prefetch") || strings.HasPrefix(value, "prerender") || strings.HasPrefix(value, "preview") {
				return true
			}
		}
	}
	return false
}

// turnAway answers a request that is to get no further, which counts like any
// other of its address.
func (a *API) turnAway(w http.ResponseWriter, r *http.Request, why error) {
	if err := a.guard.addresses.allow(addressOf(r), "from your address"); err != nil {
		why = err
	}
	a.problem(w, r, why)
}

// ownPage reports whether what a browser says of a request means that a page of
// this very origin made it, or the user by typing its address. All headers
// have to agree, for browsers that leave some of them out.
func ownPage(target origin, origins, sites, referers []string) bool {
	for _, site := range sites {
		if site != "same-origin" && site != "none" {
			return false
		}
	}
	if len(sites) > 0 { // else anything may have sent it, and a Referer is nobody's word
		for _, page := range referers {
			if page != "" && !target.is(originOf(page)) {
				return false
			}
		}
	}
	for _, o := range origins {
		if !target.is(o) {
			return false
		}
	}
	return true
}

// originOf is the origin of a page's URL, as browsers write these.
func originOf(page string) string {
	scheme, rest, _ := strings.Cut(page, "://")
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	return scheme + "://" + rest
}

// is reports whether a browser calls it that. Where its scheme is not known it may
// be either: behind a proxy that ends TLS we see http where the browser sees https.
func (o origin) is(text string) bool {
	scheme, rest, _ := strings.Cut(text, "://")
	if o.scheme != "" && scheme != o.scheme {
		return false
	}
	usual := ":443"
	switch scheme {
	case "https":
	case "http":
		usual = ":80"
	default: // and null
		return false
	}
	return rest != "" && strings.EqualFold(strings.TrimSuffix(rest, usual), strings.TrimSuffix(o.host, usual))
}

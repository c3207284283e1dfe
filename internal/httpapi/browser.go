package httpapi

import (
	"net/http"
	"strings"

	"github.com/flockofbirds/fob/internal/faas"
)

// screen keeps other sites' pages from using the API through a browser that can reach
// it. It reports whether a request may go on; it has answered one that may not.
// Requests that are not from a browser pass, because such clients can put anything in
// their headers anyway.
func (a *API) screen(w http.ResponseWriter, r *http.Request) bool {
	target, ok := a.client(r)
	if !ok {
		a.turnAway(w, r, faas.Errorf(faas.CodeBadHost, "this dispatcher is not known as %.100q: use its address, or have whoever runs it add the name to FOB_HOSTS", r.Host))
		return false
	}
	if speculative(r.Header) {
		// Even for a function with cors: it allows an origin's pages to call, but not a
		// browser to guess what they may call.
		a.turnAway(w, r, faas.Errorf(faas.CodeCrossSite, "a browser made this request ahead of need (prefetch or prerender); such requests are not answered"))
		return false
	}
	origins, sites := r.Header["Origin"], r.Header["Sec-Fetch-Site"]
	if len(origins) == 0 && len(sites) == 0 || ownPage(target, origins, sites, r.Header["Referer"]) {
		return true
	}
	return a.crossSite(w, r, origins)
}

// speculative reports whether a browser makes a request before anybody asked for it.
// Any page can make it do so for any address; the browser then sends Sec-Fetch-Site:
// none, as for an address that the user typed.
func speculative(h http.Header) bool {
	if h["Sec-Purpose"] != nil { // no page can set it, and it has no other meaning
		return true
	}
	// Older browsers used these names. Others may use them for something else.
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

// turnAway answers a request that is refused. It counts towards the limit of its
// address.
func (a *API) turnAway(w http.ResponseWriter, r *http.Request, why error) {
	if err := a.guard.addresses.allow(addressOf(r), "from your address"); err != nil {
		why = err
	}
	a.problem(w, r, why)
}

// ownPage reports whether a browser's headers mean that the request comes from a page
// of this origin, or from the user, who typed its address. All headers have to agree,
// because browsers leave some out.
func ownPage(target origin, origins, sites, referers []string) bool {
	for _, site := range sites {
		if site != "same-origin" && site != "none" {
			return false
		}
	}
	if len(sites) > 0 { // otherwise anything may have sent it, and a Referer proves nothing
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

// originOf returns the origin of a page's URL as browsers write it.
func originOf(page string) string {
	scheme, rest, _ := strings.Cut(page, "://")
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	return scheme + "://" + rest
}

// is reports whether a browser calls the origin by that text. Without a known scheme
// http and https both match: behind a proxy that ends TLS, we see http where the
// browser sees https.
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
	default: // including null
		return false
	}
	return rest != "" && strings.EqualFold(strings.TrimSuffix(rest, usual), strings.TrimSuffix(o.host, usual))
}

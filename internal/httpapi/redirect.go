package httpapi

import (
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/flockofbirds/fob/internal/faas"
)

// A redirect is a request that a function has a browser make, and the browser
// makes it as the page or user that it answers: one to the API would be let in. So
// a function may redirect to itself, and to other hosts.

// home is where the API is: the names that it goes by, and the port that it
// listens on, or 0 when that is not known.
type home struct {
	hosts
	port int
}

// checkRedirect fails when an answer of the version's redirects to the API, but
// to the version's own function.
func (s *calls) checkRedirect(r *http.Request, v *faas.Version, result *faas.Result) error {
	if result.Status/100 != 3 {
		return nil
	}
	for _, location := range result.Header["Location"] {
		where, ours, clear := s.home.follow(r.Host, r.URL.EscapedPath(), location)
		switch {
		case !clear:
			return faas.Errorf(faas.CodeBadAnswer, "the function redirects to %.200q, which not all browsers read the same: write it as /path or https://host/path, in ASCII", location)
		case ours && !s.leadsTo(r, v, where):
			return faas.Errorf(faas.CodeBadAnswer, "the function redirects to %.200q, which is the dispatcher's: it may redirect to itself, and to other hosts", location)
		}
	}
	return nil
}

// leadsTo reports whether a path is one of the version's function, for us, and
// for a proxy that decodes and cleans it before it passes it on.
func (s *calls) leadsTo(r *http.Request, v *faas.Version, where string) bool {
	decoded, err := url.PathUnescape(where)
	if err != nil || v == nil {
		return false
	}
	for _, p := range [...]string{where, path.Clean(strings.ReplaceAll(decoded, `\`, "/"))} {
		rest, is := strings.CutPrefix(p, CallPrefix)
		text, _, _ := strings.Cut(rest, "/")
		ref, err := faas.ParseRef(text)
		if !is || err != nil {
			return false
		}
		fn, _, err := s.registry.Resolve(r.Context(), faas.Ref{ID: ref.ID, Name: ref.Name})
		if err != nil || fn.ID != v.FunctionID {
			return false
		}
	}
	return true
}

// follow returns where a Location leads from a path of that Host, as browsers
// read it (WHATWG URL): a backslash is a slash, and tabs and blanks around it do
// not count. It is ours when that is the API, and then where is its path. What is
// not clear a browser may read in another way.
func (h *home) follow(host, from, location string) (where string, ours, clear bool) {
	location = strings.NewReplacer("\t", "", `\`, "/").Replace(strings.Trim(location, " \t"))
	if end := strings.IndexAny(location, "?#"); end >= 0 {
		location = location[:end]
	}
	scheme, rest := cutScheme(location)
	switch scheme {
	case "":
	case "http", "https":
		if !strings.HasPrefix(rest, "//") { // relative, if the page has that scheme
			return "", false, false
		}
	default:
		return "", false, true
	}
	if strings.HasPrefix(rest, "//") {
		authority, path, _ := strings.Cut(strings.TrimLeft(rest, "/"), "/")
		if ours, clear = h.isOurs(host, scheme, authority); !ours {
			return "", false, clear
		}
		rest = "/" + path
	}
	if rest == "" {
		return from, true, true
	}
	return resolvePath(from, rest), true, true
}

// cutScheme returns a URL's scheme in lower case, or "", and what is behind it.
func cutScheme(location string) (scheme, rest string) {
	for i, c := range []byte(location) {
		switch {
		case 'a' <= c|0x20 && c|0x20 <= 'z':
		case i > 0 && ('0' <= c && c <= '9' || c == '+' || c == '-' || c == '.'):
		case i > 0 && c == ':':
			return strings.ToLower(location[:i]), location[i+1:]
		default:
			return "", location
		}
	}
	return "", location
}

// isOurs reports whether a URL's authority is one that the API answers to: a name
// that it goes by, or any address, for that may be this machine's; and a port that
// the request came to, or that the API listens on.
func (h *home) isOurs(host, scheme, authority string) (ours, clear bool) {
	authority = authority[strings.LastIndexByte(authority, '@')+1:]
	name, port := authority, ""
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		name, port = authority[:i], authority[i:]
	}
	if !isPort(port) || !isClear(name) {
		return false, false
	}
	if !h.allow(name) {
		return false, true
	}
	switch strings.TrimPrefix(port, ":") {
	case "":
		return scheme != "http" && h.isPortOurs(host, 443) || scheme != "https" && h.isPortOurs(host, 80), true
	default:
		n, err := strconv.ParseUint(port[1:], 10, 16)
		return err == nil && h.isPortOurs(host, int(n)), err == nil
	}
}

// isPortOurs reports whether a request with that Host came to a port, as far as
// that can be told without the scheme, or the API listens on it.
func (h *home) isPortOurs(host string, port int) bool {
	if port == h.port {
		return true
	}
	text := host[strings.LastIndexAny(host, ":]")+1:]
	if !strings.Contains(host, ":"+text) || text == "" || text == "80" || text == "443" {
		return port == 80 || port == 443
	}
	return text == strconv.Itoa(port)
}

// isClear reports whether all browsers take a URL's host for what it looks like.
// They decode and map some characters, and know numbers as addresses that we do
// not, such as 0x7f.1.
func isClear(name string) bool {
	if name == "" {
		return false
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"%<>^`+"`{|}", c) >= 0 {
			return false
		}
	}
	if name[0] == '[' {
		ip, err := netip.ParseAddr(strings.TrimSuffix(name[1:], "]"))
		return err == nil && ip.Is6() && strings.HasSuffix(name, "]")
	}
	last := strings.TrimSuffix(name, ".")
	last = last[strings.LastIndexByte(last, '.')+1:]
	if last == "" || '0' <= last[0] && last[0] <= '9' { // no top-level domain begins so
		ip, err := netip.ParseAddr(name)
		return err == nil && ip.Is4()
	}
	return true
}

// resolvePath returns the path that a relative one leads to.
func resolvePath(from, relative string) string {
	if !strings.HasPrefix(relative, "/") {
		relative = from[:strings.LastIndexByte(from, '/')+1] + relative
	}
	var out []string
	segments := strings.Split(strings.TrimPrefix(relative, "/"), "/")
	for i, segment := range segments {
		last := i == len(segments)-1
		switch dots := strings.ReplaceAll(strings.ToLower(segment), "%2e", "."); dots {
		case ".", "..":
			if dots == ".." && len(out) > 0 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, segment)
		}
	}
	return "/" + strings.Join(out, "/")
}

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

// With a redirect a function makes the browser send a request, in the name of the page
// or user that called the function. To the API such a request would look legitimate. So
// a function may redirect only to itself, and to other hosts.

// home is where the API is: its names, and the port on which it listens, or 0 if
// unknown.
type home struct {
	hosts
	port int
}

// checkRedirect fails if an answer redirects to the API, except to the function that
// gave it.
func (s *calls) checkRedirect(r *http.Request, result faas.Result) error {
	if result.Status/100 != 3 {
		return nil
	}
	for _, location := range result.Header["Location"] {
		where, ours, clear := s.home.follow(r.Host, r.URL.EscapedPath(), location)
		switch {
		case !clear:
			return faas.Errorf(faas.CodeBadAnswer, "the function redirects to %.200q, which not all browsers read the same: write it as /path or https://host/path, in ASCII", location)
		case ours && !s.leadsTo(r, result.Version, where):
			return faas.Errorf(faas.CodeBadAnswer, "the function redirects to %.200q, which is the dispatcher's: it may redirect to itself, and to other hosts", location)
		}
	}
	return nil
}

// leadsTo reports whether a path leads to the version's function: for us, and also for
// a proxy that decodes and cleans it before it passes it on.
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

// follow returns where a Location leads from a path on that host, by the rules of
// browsers (WHATWG URL): a backslash is a slash, and tabs and blanks around it do not
// count. ours reports whether that is the API; where is then the path. If clear is
// false, browsers may disagree.
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

// cutScheme returns a URL's scheme in lower case, or "", and the rest of the URL.
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

// isOurs reports whether a URL's authority is one of the API's. Its host is then a name
// of the API, or any address, because it may be this machine's; its port is the one to
// which the request came, or the one on which the API listens.
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

// isPortOurs reports whether port is the one in that Host, as far as this can be told
// without the scheme, or the one on which the API listens.
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

// isClear reports whether every browser takes a URL's host for what it looks like.
// Browsers decode and map some characters, and take some numbers for addresses that we
// do not, such as 0x7f.1.
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

package httpapi

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// hosts are the names to which the API answers. In DNS rebinding an attacker makes a
// name of their own point to this machine; to the browser their page then has the API's
// origin. But the page cannot choose the name in its requests. So a name must be one
// that we know, or one that no attacker's name server is asked about.
type hosts struct {
	exact  map[string]bool
	suffix []string // .example.com for *.example.com
}

func newHosts(patterns []string) hosts {
	h := hosts{exact: make(map[string]bool)}
	for _, p := range patterns {
		p = strings.ToLower(p)
		if suffix, wild := strings.CutPrefix(p, "*"); wild {
			h.suffix = append(h.suffix, suffix)
		} else {
			h.exact[p] = true
		}
	}
	return h
}

var hostPattern = regexp.MustCompile(`^(\*\.)?[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$`)

// CheckHost returns what is wrong with a name in Config.Hosts, or nil.
func CheckHost(pattern string) error {
	if !hostPattern.MatchString(strings.ToLower(pattern)) || len(pattern) > 253 {
		return fmt.Errorf("%.80q is not a host name like fob.example.com or *.example.com, without a port", pattern)
	}
	return nil
}

// allow reports whether a request with that Host header is for us. A request without
// one does not come from a browser.
func (h *hosts) allow(host string) bool {
	if host == "" || host == "localhost" {
		return true
	}
	if host[0] == '[' {
		text, port, ok := strings.Cut(host[1:], "]")
		ip, err := netip.ParseAddr(text)
		return ok && isPort(port) && err == nil && ip.Is6() && ip.Zone() == ""
	}
	if i := strings.IndexByte(host, ':'); i >= 0 {
		if !isPort(host[i:]) {
			return false
		}
		host = host[:i]
	}
	if host != "" && '0' <= host[0] && host[0] <= '9' {
		if ip, err := netip.ParseAddr(host); err == nil {
			return ip.Is4()
		}
	}
	return h.allowName(host)
}

// allowName is allow for a host that is not an address.
func (h *hosts) allowName(name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for _, c := range []byte(name) {
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	if name == "localhost" || strings.HasSuffix(name, ".localhost") || h.exact[name] {
		return true
	}
	for _, suffix := range h.suffix {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// isPort reports whether text is empty, or a colon and a port.
func isPort(text string) bool {
	if text == "" {
		return true
	}
	if text[0] != ':' || len(text) > 6 {
		return false
	}
	for _, c := range []byte(text[1:]) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

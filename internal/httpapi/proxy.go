package httpapi

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// The headers in which a proxy says for whom it asks. Others that begin like them,
// X-Real-Ip and Forwarded (RFC 7239) are never read: one set of headers is enough
// to agree on, and all common proxies send this one.
const (
	forwardedFor   = "X-Forwarded-For"
	forwardedProto = "X-Forwarded-Proto"
	forwardedHost  = "X-Forwarded-Host"
)

// origin is what a browser calls the origin of a request's target, where it is
// known: a trusted proxy says the scheme.
type origin struct{ scheme, host string }

// client puts a request in the place of the one that a trusted proxy was sent: its
// RemoteAddr, its Host, and three headers for the function, with one value each.
// It returns false when the Host is not one of ours, with which it is. What others
// than trusted proxies say of for whom they ask is dropped.
func (a *API) client(r *http.Request) (target origin, ok bool) {
	target.host, ok = r.Host, a.home.allow(r.Host)
	said, proxies := takeForwarded(r.Header), proxies(a.cfg.TrustedProxies)
	peer, known := remoteAddr(r)
	if said == nil || !known || !proxies.trusts(peer) {
		return target, ok
	}
	if from := proxies.furthest(peer, said[forwardedFor]); from != peer {
		r.RemoteAddr = from.String()
		peer = from
	}
	if host := last(said[forwardedHost]); host != "" && ok {
		r.Host, target.host, ok = host, host, a.home.allow(host)
	}
	if scheme := strings.ToLower(last(said[forwardedProto])); scheme == "http" || scheme == "https" {
		target.scheme = scheme
		r.Header[forwardedProto] = []string{scheme}
	}
	r.Header[forwardedFor] = []string{peer.String()}
	r.Header[forwardedHost] = []string{target.host}
	return target, ok
}

// takeForwarded removes what a request says about whom it was made for, and
// returns it; nil for nothing.
func takeForwarded(h http.Header) (said http.Header) {
	for name, values := range h {
		if forwards(name) {
			if said == nil {
				said = make(http.Header, 3)
			}
			said[name] = values
			delete(h, name)
		}
	}
	return said
}

// forwards reports whether a header says for whom a proxy asks, be it with _ for -,
// which some frameworks take for the same.
func forwards(name string) bool {
	name = strings.ReplaceAll(name, "_", "-")
	const begin = "X-Forwarded"
	return len(name) >= len(begin) && strings.EqualFold(name[:len(begin)], begin) || strings.EqualFold(name, "Forwarded") || strings.EqualFold(name, "X-Real-Ip")
}

// proxies are the addresses of trusted proxies.
type proxies []netip.Prefix

func (p proxies) trusts(addr netip.Addr) bool {
	return slices.ContainsFunc(p, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// furthest returns the address that the nearest trusted proxies had a request
// from: each proxy adds whom it was asked by at the end of the chain, and what is
// left of somebody who is not trusted may be invented.
func (p proxies) furthest(peer netip.Addr, chain []string) netip.Addr {
	for rest := strings.Join(chain, ","); rest != "" && p.trusts(peer); {
		i := strings.LastIndexByte(rest, ',')
		from, ok := parseAddr(strings.Trim(rest[i+1:], " \t"))
		if !ok {
			return peer // as far as it makes sense
		}
		peer, rest = from, rest[:max(i, 0)]
	}
	return peer
}

// last is what the nearest proxy says, where each adds its own at the end.
func last(values []string) string {
	if len(values) == 0 {
		return ""
	}
	value := values[len(values)-1]
	return strings.Trim(value[strings.LastIndexByte(value, ',')+1:], " \t")
}

// parseAddr reads an address, perhaps with a port, perhaps in brackets.
func parseAddr(text string) (addr netip.Addr, ok bool) {
	if both, err := netip.ParseAddrPort(text); err == nil {
		return both.Addr().Unmap().WithZone(""), true
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	return addr.Unmap().WithZone(""), err == nil
}

// remoteAddr is the address that a request comes from, if it comes from one.
func remoteAddr(r *http.Request) (netip.Addr, bool) { return parseAddr(r.RemoteAddr) }

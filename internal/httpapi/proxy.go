package httpapi

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// The headers in which a proxy says for whom it asks. X-Real-Ip and Forwarded (RFC
// 7239) are never read. To agree on one set of headers is enough, and all common
// proxies send this one.
const (
	forwardedFor   = "X-Forwarded-For"
	forwardedProto = "X-Forwarded-Proto"
	forwardedHost  = "X-Forwarded-Host"
)

// origin is a browser's name for the origin of a request's target, as far as it is
// known: only a trusted proxy tells the scheme.
type origin struct{ scheme, host string }

// client undoes what a trusted proxy did to a request. It restores RemoteAddr and Host,
// and sets three headers for the function, each with one value. It returns false if the
// Host is not one of ours. What others than trusted proxies say about the client, it
// removes.
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

// takeForwarded removes the headers in which a request says for whom it was made. It
// returns them, or nil if there are none.
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

// forwards reports whether a header says for whom a proxy asks. It treats _ like -, as
// some frameworks do.
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

// furthest returns the address from which the nearest chain of trusted proxies got a
// request. Each proxy adds the address of its client at the end. What comes before an
// address that is not trusted may be invented.
func (p proxies) furthest(peer netip.Addr, chain []string) netip.Addr {
	for rest := strings.Join(chain, ","); rest != "" && p.trusts(peer); {
		i := strings.LastIndexByte(rest, ',')
		from, ok := parseAddr(strings.Trim(rest[i+1:], " \t"))
		if !ok {
			return peer // the last that makes sense
		}
		peer, rest = from, rest[:max(i, 0)]
	}
	return peer
}

// last returns what the nearest proxy said, which is at the end.
func last(values []string) string {
	if len(values) == 0 {
		return ""
	}
	value := values[len(values)-1]
	return strings.Trim(value[strings.LastIndexByte(value, ',')+1:], " \t")
}

// parseAddr reads an address, with or without a port and brackets.
func parseAddr(text string) (addr netip.Addr, ok bool) {
	if both, err := netip.ParseAddrPort(text); err == nil {
		return both.Addr().Unmap().WithZone(""), true
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	return addr.Unmap().WithZone(""), err == nil
}

// remoteAddr returns the address from which a request comes, if it comes from one.
func remoteAddr(r *http.Request) (netip.Addr, bool) { return parseAddr(r.RemoteAddr) }

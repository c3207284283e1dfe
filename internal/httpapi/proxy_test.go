package httpapi

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/faas"
)

// behind returns an API that trusts proxies on this machine and in 10.0.0.0/8, and
// what its function was called with last.
func behind(rate Rate) (a *API, got *received, log *fakeAudit) {
	got, log = new(received), &fakeAudit{}
	a = New(Config{
		Metrics: http.NotFoundHandler(), MaxBody: testMaxBody, Hosts: []string{"fob.example.com"}, RateAddress: rate,
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("10.0.0.0/8")},
	})
	a.Open(Backend{Registry: newFakeRegistry(), Locator: newFakeRegistry(), Tokens: &fakeTokens{}, Audit: log, Invoker: invoker(func(_ context.Context, call *received) (faas.Result, error) {
		*got = *call
		got.Header = call.Header.Clone()
		return plainResult(`1`), nil
	})})
	return a, got, log
}

func from(addr, host string, header http.Header) *http.Request {
	r := httptest.NewRequest("POST", "/api/call/hello", nil)
	r.RemoteAddr, r.Host, r.Header = addr, host, header
	if header == nil {
		r.Header = http.Header{}
	}
	return r
}

// TestForwarded: what trusted proxies say of for whom they ask counts, and nothing
// else does.
func TestForwarded(t *testing.T) {
	const stranger, proxy = "203.0.113.9:5000", "127.0.0.1:5000"
	for what, c := range map[string]struct {
		peer      string
		header    http.Header
		from      string // whom the request is counted for
		host      string
		forwarded [3]string // what the function sees as For, Proto and Host
	}{
		"nobody":             {stranger, nil, stranger, "localhost", [3]string{}},
		"a liar":             {stranger, http.Header{forwardedFor: {"198.51.100.1"}, forwardedProto: {"https"}, forwardedHost: {"fob.example.com"}}, stranger, "localhost", [3]string{}},
		"a liar's others":    {stranger, http.Header{"Forwarded": {"for=198.51.100.1"}, "X-Real-Ip": {"198.51.100.1"}, "X_forwarded_for": {"1"}, "X-Forwarded-Port": {"1"}, "X-Forwarded": {"1"}}, stranger, "localhost", [3]string{}},
		"a proxy":            {proxy, http.Header{forwardedFor: {"198.51.100.1"}, forwardedProto: {"https"}, forwardedHost: {"fob.example.com"}}, "198.51.100.1", "fob.example.com", [3]string{"198.51.100.1", "https", "fob.example.com"}},
		"a proxy itself":     {proxy, nil, proxy, "localhost", [3]string{}},
		"only an address":    {proxy, http.Header{forwardedFor: {"198.51.100.1"}}, "198.51.100.1", "localhost", [3]string{"198.51.100.1", "", "localhost"}},
		"only a host":        {proxy, http.Header{forwardedHost: {"fob.example.com:8443"}}, proxy, "fob.example.com:8443", [3]string{"127.0.0.1", "", "fob.example.com:8443"}},
		"two proxies":        {proxy, http.Header{forwardedFor: {"198.51.100.1, 10.2.3.4"}}, "198.51.100.1", "localhost", [3]string{"198.51.100.1", "", "localhost"}},
		"in two lines":       {proxy, http.Header{forwardedFor: {"198.51.100.1", "10.2.3.4"}}, "198.51.100.1", "localhost", [3]string{"198.51.100.1", "", "localhost"}},
		"a client that lies": {proxy, http.Header{forwardedFor: {"127.0.0.1, 192.0.2.1, 198.51.100.1, 10.2.3.4"}}, "198.51.100.1", "localhost", [3]string{"198.51.100.1", "", "localhost"}},
		"all trusted":        {proxy, http.Header{forwardedFor: {"10.9.9.9, 10.2.3.4"}}, "10.9.9.9", "localhost", [3]string{"10.9.9.9", "", "localhost"}},
		"nonsense":           {proxy, http.Header{forwardedFor: {"198.51.100.1, unknown"}}, proxy, "localhost", [3]string{"127.0.0.1", "", "localhost"}},
		"nonsense behind":    {proxy, http.Header{forwardedFor: {"198.51.100.1, <x>, 10.2.3.4"}}, "10.2.3.4", "localhost", [3]string{"10.2.3.4", "", "localhost"}},
		"nothing":            {proxy, http.Header{forwardedFor: {""}}, proxy, "localhost", [3]string{"127.0.0.1", "", "localhost"}},
		"commas":             {proxy, http.Header{forwardedFor: {",,"}}, proxy, "localhost", [3]string{"127.0.0.1", "", "localhost"}},
		"with a port":        {proxy, http.Header{forwardedFor: {"198.51.100.1:4711"}}, "198.51.100.1", "localhost", [3]string{"198.51.100.1", "", "localhost"}},
		"IPv6":               {"[::1]:5000", http.Header{forwardedFor: {"2001:db8::7"}}, "2001:db8::7", "localhost", [3]string{"2001:db8::7", "", "localhost"}},
		"IPv6 in brackets":   {"[::1]:5000", http.Header{forwardedFor: {"[2001:db8::7]:4711"}}, "2001:db8::7", "localhost", [3]string{"2001:db8::7", "", "localhost"}},
		"IPv4 in IPv6":       {"[::ffff:127.0.0.1]:5000", http.Header{forwardedFor: {"::ffff:198.51.100.1"}}, "198.51.100.1", "localhost", [3]string{"198.51.100.1", "", "localhost"}},
		"the nearest's word": {proxy, http.Header{forwardedProto: {"http, HTTPS"}, forwardedHost: {"evil.test, fob.example.com"}}, proxy, "fob.example.com", [3]string{"127.0.0.1", "https", "fob.example.com"}},
		"another scheme":     {proxy, http.Header{forwardedProto: {"gopher"}}, proxy, "localhost", [3]string{"127.0.0.1", "", "localhost"}},
		"others of a proxy":  {proxy, http.Header{forwardedFor: {"198.51.100.1"}, "Forwarded": {"for=1"}, "X-Real-Ip": {"1"}, "X-Forwarded-Prefix": {"/x"}}, "198.51.100.1", "localhost", [3]string{"198.51.100.1", "", "localhost"}},
	} {
		a, got, _ := behind(Rate{})
		r := from(c.peer, "localhost", c.header)
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		if w.Code != 200 || r.RemoteAddr != c.from || got.Host != c.host {
			t.Errorf("%s: %d, counted for %s at %s, want %s at %s", what, w.Code, r.RemoteAddr, got.Host, c.from, c.host)
		}
		for i, name := range []string{forwardedFor, forwardedProto, forwardedHost} {
			if value := strings.Join(got.Header[name], "|"); value != c.forwarded[i] {
				t.Errorf("%s: the function sees %s: %q, want %q", what, name, value, c.forwarded[i])
			}
			delete(got.Header, name)
		}
		for name := range got.Header {
			if name != "Traceparent" {
				t.Errorf("%s: the function sees %s", what, name)
			}
		}
	}
}

// TestForwardedHost: the names that a proxy was asked by are held to those that
// the dispatcher goes by, and an Origin to the one that the proxy was asked by.
func TestForwardedHost(t *testing.T) {
	a, _, _ := behind(Rate{})
	for _, c := range []struct {
		peer, host, forwarded, scheme, origin string
		status                                int
	}{
		{"127.0.0.1:1", "localhost", "fob.example.com", "https", "https://fob.example.com", 200},
		{"127.0.0.1:1", "localhost", "fob.example.com:443", "https", "https://fob.example.com", 200},
		{"127.0.0.1:1", "localhost", "fob.example.com:8443", "https", "https://fob.example.com:8443", 200},
		{"127.0.0.1:1", "localhost", "fob.example.com", "https", "", 200},
		{"127.0.0.1:1", "localhost", "fob.example.com", "", "http://fob.example.com", 200},
		{"127.0.0.1:1", "fob.example.com", "", "https", "https://fob.example.com", 200},

		{"127.0.0.1:1", "localhost", "fob.example.com", "https", "http://fob.example.com", 403}, // not the page's scheme
		{"127.0.0.1:1", "localhost", "fob.example.com", "http", "https://fob.example.com", 403},
		{"127.0.0.1:1", "fob.example.com", "", "https", "http://fob.example.com", 403},
		{"127.0.0.1:1", "localhost", "fob.example.com", "https", "https://localhost", 403}, // not whom it asked
		{"127.0.0.1:1", "localhost", "fob.example.com", "https", "https://fob.example.com:8443", 403},
		{"127.0.0.1:1", "localhost", "evil.test", "https", "", 403},
		{"127.0.0.1:1", "localhost", "evil.test", "https", "https://evil.test", 403},
		{"127.0.0.1:1", "evil.test", "fob.example.com", "https", "", 403}, // how the proxy asks counts, too
		{"127.0.0.1:1", "localhost", "fob.example.com, evil.test", "https", "", 403},
		{"127.0.0.1:1", "localhost", "a b", "https", "", 403},

		{"203.0.113.9:1", "localhost", "fob.example.com", "https", "https://fob.example.com", 403}, // nobody's word
		{"203.0.113.9:1", "localhost", "evil.test", "", "", 200},
		{"203.0.113.9:1", "evil.test", "localhost", "", "", 403},
	} {
		header := http.Header{}
		for name, value := range map[string]string{forwardedHost: c.forwarded, forwardedProto: c.scheme, "Origin": c.origin} {
			if value != "" {
				header[name] = []string{value}
			}
		}
		w := httptest.NewRecorder()
		a.ServeHTTP(w, from(c.peer, c.host, header))
		if w.Code != c.status {
			t.Errorf("%+v: answered %d %s", c, w.Code, w.Body)
		}
	}
}

// TestForwardedIsWhoIsLimited: rate limits and the audit log see the client of a
// trusted proxy, and whom a stranger says that it is nobody does.
func TestForwardedIsWhoIsLimited(t *testing.T) {
	a, _, log := behind(Rate{PerSecond: 0.001, Burst: 1})
	ask := func(peer, client string) int {
		w := httptest.NewRecorder()
		a.ServeHTTP(w, from(peer, "localhost", http.Header{forwardedFor: {client}}))
		return w.Code
	}
	for _, c := range []struct {
		peer, client string
		status       int
	}{
		{"127.0.0.1:1", "198.51.100.1", 200},
		{"127.0.0.1:2", "198.51.100.2", 200},
		{"127.0.0.1:3", "198.51.100.1", 429},
		{"10.1.1.1:3", "198.51.100.1", 429},
		{"127.0.0.1:3", "203.0.113.3, 198.51.100.1", 429},
		{"203.0.113.9:1", "198.51.100.4", 200},
		{"203.0.113.9:2", "198.51.100.5", 429}, // however it calls itself
	} {
		if got := ask(c.peer, c.client); got != c.status {
			t.Errorf("%s for %s: answered %d, want %d", c.peer, c.client, got, c.status)
		}
	}
	// Who is refused for the name that it asks, too.
	a.ServeHTTP(httptest.NewRecorder(), from("127.0.0.1:1", "evil.test", http.Header{forwardedFor: {"198.51.100.1"}}))
	said := map[string]int{}
	for _, entry := range log.entries {
		said[entry.From]++
	}
	if said["198.51.100.1"] != 4 || said["203.0.113.9:2"] != 1 || len(said) != 2 {
		t.Errorf("the audit log names %v", said)
	}
}

// TestLocalSeesNoForwarded: over the control socket nobody is behind a proxy.
func TestLocalSeesNoForwarded(t *testing.T) {
	a, got, _ := behind(Rate{})
	w := httptest.NewRecorder()
	a.Local().ServeHTTP(w, from("@", "localhost", http.Header{forwardedFor: {"198.51.100.1"}}))
	if w.Code != 200 || got.Header[forwardedFor] != nil {
		t.Errorf("answered %d, and the function sees %v", w.Code, got.Header)
	}
}

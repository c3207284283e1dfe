package faas

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestParseNetwork(t *testing.T) {
	for text, want := range map[string]string{
		"none": "none", "egress": "egress",
		"allow=example.com":                  "allow=example.com",
		"allow=EXAMPLE.com.":                 "allow=example.com",
		"allow=example.com:443":              "allow=example.com:443",
		"allow=*.example.com:8443,b":         "allow=*.example.com:8443,b",
		"allow=a,A,a.":                       "allow=a",
		"allow=*":                            "allow=*",
		"allow=*:25":                         "allow=*:25",
		"allow=192.0.2.1:5432":               "allow=192.0.2.1:5432",
		"allow=[2001:DB8::0:1]":              "allow=[2001:db8::1]",
		"allow=[2001:db8::1]:1":              "allow=[2001:db8::1]:1",
		"allow=[::ffff:192.0.2.1]":           "allow=192.0.2.1",
		"allow=xn--bcher-kva.example":        "allow=xn--bcher-kva.example",
		"allow=_srv.example.com,my-db":       "allow=_srv.example.com,my-db",
		"allow=1.example.com,a1,0x.y,0xg":    "allow=1.example.com,a1,0x.y,0xg",
		"allow=" + strings.Repeat("a.", 126): "allow=" + strings.Repeat("a.", 125) + "a",
	} {
		n, err := ParseNetwork(text)
		if err != nil || n.String() != want {
			t.Errorf("%q became %q, %v; want %q", text, n, err, want)
		}
	}
	hosts := make([]string, maxHosts+1)
	for i := range hosts {
		hosts[i] = fmt.Sprintf("h%d", i)
	}
	if _, err := ParseNetwork("allow=" + strings.Join(hosts[1:], ",")); err != nil {
		t.Errorf("%d hosts: %v", maxHosts, err)
	}
	for _, text := range []string{
		"", "None", "egress ", "allow", "allow=", "allow=,", "allow=a,", "allow= a", "allow=a b", "allow=a\n", "allow=a\x00",
		"allow=:80", "allow=a:", "allow=a:0", "allow=a:65536", "allow=a:080", "allow=a:+80", "allow=a:http", "allow=a:80:80",
		"allow=http://a", "allow=a/b", "allow=a?b", "allow=u@a", "allow=a..b", "allow=.a", "allow=-a", "allow=a-", "allow=..",
		"allow=**", "allow=*a", "allow=*.", "allow=a.*", "allow=*.*", "allow=*.192.0.2.1", "allow=*.com.*",
		"allow=bücher.example", "allow=" + strings.Repeat("a", 64), "allow=" + strings.Repeat("a.", 128),
		// What one program takes for an address and another for a name.
		"allow=2130706433", "allow=0x7f000001", "allow=0x7f.1", "allow=127.1", "allow=0177.0.0.1", "allow=127.0.0.01", "allow=a.1", "allow=a.0x", "allow=1.2.3.4.5",
		"allow=[fe80::1%25eth0]", "allow=[fe80::1%eth0]", "allow=::1", "allow=[::1", "allow=[127.0.0.1]", "allow=[a]", "allow=[]", "allow=[::1]a", "allow=*.[::1]",
		"allow=" + strings.Join(hosts, ","),
	} {
		if n, err := ParseNetwork(text); err == nil {
			t.Errorf("%q was taken, for %q", text, n)
		}
	}
}

func network(t testing.TB, text string) Network {
	t.Helper()
	n, err := ParseNetwork(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNetworkAllows(t *testing.T) {
	list := network(t, "allow=example.com,*.birds.example:8443,192.0.2.1,[2001:db8::1]:22")
	for target, want := range map[string]bool{
		"example.com 80": true, "example.com 443": true, "example.com 8080": false,
		"evilexample.com 443": false, "www.example.com 443": false, "example.com.evil.com 443": false, "com 443": false,
		"birds.example 8443": false, "a.birds.example 8443": true, "a.b.birds.example 8443": true, "a.birds.example 443": false,
		"evilbirds.example 8443": false, ".birds.example 8443": true, // which ParseHost lets nobody ask for
		"192.0.2.1 443": true, "192.0.2.2 443": false, "2001:db8::1 22": true, "2001:db8::1 443": false, "2001:db8::2 22": false,
	} {
		var host string
		var port uint16
		if _, err := fmt.Sscan(target, &host, &port); err != nil {
			t.Fatal(err)
		}
		if got := list.Allows(host, port); got != want {
			t.Errorf("%s: %v", target, got)
		}
	}
	if any := network(t, "allow=*"); !any.Allows("example.com", 443) || !any.Allows("192.0.2.1", 80) || any.Allows("example.com", 22) {
		t.Error("* is not every host at the web's ports")
	}
	for _, none := range []string{"none", "egress"} { // neither is a list
		if network(t, none).Allows("example.com", 443) {
			t.Errorf("%s allows something", none)
		}
	}
}

func TestNetworkCovers(t *testing.T) {
	for _, c := range []struct{ most, yes, no string }{
		{"none", "none", "egress allow=* allow=a"},
		{"egress", "none egress allow=* allow=a:22", ""},
		{"allow=*", "none allow=* allow=a allow=a:80,b:443 allow=*.a allow=192.0.2.1 allow=*:80", "egress allow=a:22 allow=*:22 allow=a,b:81"},
		{"allow=*:443", "allow=a:443 allow=*:443", "allow=a allow=* allow=a:80"},
		{"allow=*:80,*:443", "allow=a allow=* allow=*.a", "allow=a:22"},
		{"allow=*.a", "none allow=x.a allow=*.x.a allow=*.a allow=x.a:80,y.x.a", "allow=a allow=xa allow=* allow=*.xa allow=x.a:22 allow=192.0.2.1 egress"},
		{"allow=a,b:22", "allow=a allow=b:22 allow=a:443,b:22", "allow=b allow=a:22 allow=c allow=*.a allow=*"},
		{"allow=192.0.2.1", "allow=192.0.2.1 allow=[::ffff:192.0.2.1]:80", "allow=192.0.2.2 allow=*"},
	} {
		most := network(t, c.most)
		for _, text := range strings.Fields(c.yes) {
			if !most.Covers(network(t, text)) {
				t.Errorf("%s does not cover %s", c.most, text)
			}
		}
		for _, text := range strings.Fields(c.no) {
			if most.Covers(network(t, text)) {
				t.Errorf("%s covers %s", c.most, text)
			}
		}
	}
}

// FuzzParseNetwork: what is taken has one spelling, covers itself, and a list
// of what it lists is no more than it.
func FuzzParseNetwork(f *testing.F) {
	for _, text := range []string{
		"none", "egress", "allow=*", "allow=example.com,*.example.com:8443", "allow=[2001:db8::1]:22,192.0.2.1", "allow=127.1", "allow=a:0", "allow=[::ffff:7f00:1]",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseNetwork(text)
		if err != nil {
			return
		}
		again, err := ParseNetwork(n.String())
		if err != nil || again.String() != n.String() || !slices.Equal(again.hosts, n.hosts) {
			t.Fatalf("%q became %q became %q, %v", text, n, again, err)
		}
		if !n.Covers(n) || !network(t, "egress").Covers(n) || !n.Covers(Network{}) {
			t.Fatalf("%q does not cover itself, or egress not it", n)
		}
		for _, rule := range n.hosts {
			one := Network{mode: NetworkAllow, hosts: []hostRule{rule}}
			if !n.Covers(one) || one.Covers(Network{mode: NetworkEgress}) {
				t.Fatalf("%q does not cover %q, or that covers egress", n, one)
			}
		}
	})
}

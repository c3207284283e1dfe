package egress

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// special4 are the IPv4 addresses that are not, or not certainly, hosts of the public
// Internet (IANA IPv4 Special-Purpose Address Registry).
var special4 = prefixes(
	"0.0.0.0/8",       // this network
	"10.0.0.0/8",      // private
	"100.64.0.0/10",   // shared among a carrier's customers
	"127.0.0.0/8",     // loopback
	"169.254.0.0/16",  // link-local; most clouds' metadata
	"172.16.0.0/12",   // private
	"192.0.0.0/24",    // protocol assignments
	"192.0.2.0/24",    // documentation
	"192.88.99.0/24",  // former 6to4 relays
	"192.168.0.0/16",  // private
	"198.18.0.0/15",   // benchmarking
	"198.51.100.0/24", // documentation
	"203.0.113.0/24",  // documentation
	"224.0.0.0/4",     // multicast
	"240.0.0.0/4",     // reserved, and broadcast
)

// Hosts of the public Internet have IPv6 addresses in public6, except those in
// special6. Loopback, link-local, unique local and multicast addresses are outside
// public6.
var (
	public6  = netip.MustParsePrefix("2000::/3")
	special6 = prefixes(
		"2001::/23",     // protocol assignments: Teredo, benchmarking, ORCHID
		"2001:db8::/32", // documentation
		"2002::/16",     // 6to4, which leads to any IPv4 address
		"3fff::/20",     // documentation
	)
)

// nat64 leads to the IPv4 address in its last four bytes. Networks with only IPv6 reach
// every IPv4 host through it.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// metadata are the addresses at which clouds tell a machine's secrets to anybody who
// asks. One of these is allowed only if exactly that address is listed.
var metadata = addresses(
	"169.254.169.254", // nearly all clouds
	"169.254.170.2",   // AWS: credentials of containers
	"169.254.170.23",
	"fd00:ec2::254", // AWS
	"fd00:ec2::23",
	"fd20:ce::254",    // Google
	"100.100.100.200", // Alibaba
	"168.63.129.16",   // Azure; it looks like a public address
	"192.0.0.192",     // Oracle
)

func prefixes(texts ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		all[i] = netip.MustParsePrefix(text)
	}
	return all
}

func addresses(texts ...string) []netip.Addr {
	all := make([]netip.Addr, len(texts))
	for i, text := range texts {
		all[i] = netip.MustParseAddr(text)
	}
	return all
}

// addressRule decides which addresses may be dialled.
type addressRule struct {
	private []netip.Prefix               // allowed, whatever they are
	own     func() ([]netip.Addr, error) // this machine's addresses
}

// check returns why an address must not be dialled, or nil.
func (r addressRule) check(addr netip.Addr) error {
	if addr.Zone() != "" {
		return &refusedAddress{addr, "link-local"}
	}
	addr = addr.Unmap()
	if nat64.Contains(addr) {
		bytes := addr.As16()
		addr = netip.AddrFrom4([4]byte(bytes[12:]))
	}
	listed := slices.ContainsFunc(r.private, func(p netip.Prefix) bool { return p.Contains(addr) })
	if slices.Contains(metadata, addr) {
		if slices.ContainsFunc(r.private, func(p netip.Prefix) bool { return p.IsSingleIP() && p.Addr() == addr }) {
			return nil
		}
		return &refusedAddress{addr, "a cloud's metadata"}
	}
	if listed {
		return nil
	}
	special := slices.ContainsFunc(special4, func(p netip.Prefix) bool { return p.Contains(addr) })
	if addr.Is6() {
		special = !public6.Contains(addr) || slices.ContainsFunc(special6, func(p netip.Prefix) bool { return p.Contains(addr) })
	}
	if special {
		return &refusedAddress{addr, "private or special"}
	}
	// A service that listens on all of this machine's addresses can be reached at the
	// public ones from here, past whatever guards them from outside.
	own, err := r.own()
	if err != nil {
		return fmt.Errorf("finding out this machine's addresses: %w", err)
	}
	if slices.Contains(own, addr) {
		return &refusedAddress{addr, "this machine's own"}
	}
	return nil
}

// refusedAddress is the error of a connection that was refused because of its address.
type refusedAddress struct {
	addr netip.Addr
	kind string
}

func (e *refusedAddress) Error() string { return fmt.Sprintf("%v is %s", e.addr, e.kind) }

// ownAddresses returns the addresses of this machine's interfaces.
func ownAddresses() ([]netip.Addr, error) {
	found, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var all []netip.Addr
	for _, a := range found {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				all = append(all, addr.Unmap())
			}
		}
	}
	return all, nil
}

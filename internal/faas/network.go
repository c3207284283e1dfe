package faas

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// The networks that a version can have. After NetworkAllow follows a list of hosts.
const (
	NetworkEgress = "egress" // out to the world, not to other sandboxes
	NetworkNone   = "none"   // no network
	NetworkAllow  = "allow=" // no network, but a proxy that reaches the listed hosts
)

// maxHosts is how many hosts a list may have, and maxName the length of a host name in
// bytes (RFC 1035).
const (
	maxHosts = 50
	maxName  = 253
)

// Network is what a version may reach. The zero value is no network.
type Network struct {
	mode  string // NetworkEgress or NetworkAllow; empty for none
	hosts []hostRule
}

// hostRule is one HOST[:PORT] of a list. Exactly one of any, suffix and name is set.
type hostRule struct {
	any    bool       // *
	suffix string     // .example.com for *.example.com
	name   string     // example.com, or an address
	ip     netip.Addr // set if name is an address
	port   uint16     // 0 means webPorts
}

// webPorts are the ports of a host that is listed without a port.
var webPorts = [...]uint16{80, 443}

// ParseNetwork reads the setting network: none, egress, or allow=HOST[:PORT],… A HOST
// is a name, *.NAME for all names below it, * for any host, or an IP address (IPv6 in
// brackets).
func ParseNetwork(text string) (Network, error) {
	switch text {
	case NetworkNone:
		return Network{}, nil
	case NetworkEgress:
		return Network{mode: NetworkEgress}, nil
	}
	list, ok := strings.CutPrefix(text, NetworkAllow)
	if !ok {
		return Network{}, errors.New("no such network")
	}
	if list == "" {
		return Network{}, errors.New("the list of hosts is empty; use none")
	}
	n := Network{mode: NetworkAllow}
	for entry := range strings.SplitSeq(list, ",") {
		rule, err := parseRule(entry)
		if err != nil {
			return Network{}, fmt.Errorf("%q: %w", clip(entry, 80), err)
		}
		if slices.Contains(n.hosts, rule) {
			continue
		}
		if len(n.hosts) == maxHosts {
			return Network{}, fmt.Errorf("more than %d hosts", maxHosts)
		}
		n.hosts = append(n.hosts, rule)
	}
	return n, nil
}

func parseRule(entry string) (rule hostRule, err error) {
	host, port := entry, ""
	if i := strings.LastIndexByte(entry, ':'); i >= 0 && i > strings.LastIndexByte(entry, ']') {
		host, port = entry[:i], entry[i+1:]
		if rule.port, err = ParsePort(port); err != nil {
			return rule, err
		}
	}
	if host == "*" {
		rule.any = true
		return rule, nil
	}
	below, wild := strings.CutPrefix(host, "*.")
	if rule.name, rule.ip, err = ParseHost(below); err != nil {
		return rule, err
	}
	if wild {
		if rule.ip.IsValid() {
			return rule, errors.New("there are no names below an address")
		}
		rule.suffix, rule.name = "."+rule.name, ""
	}
	return rule, nil
}

// ParsePort reads a TCP port, 1 to 65535.
func ParsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || text[0] == '0' || text[0] == '+' {
		return 0, errors.New("the port is not a number from 1 to 65535")
	}
	return uint16(n), nil
}

// ParseHost reads the HOST of HOST:PORT and returns its canonical spelling: a name in
// lower case without a dot at its end, or an address, for which ip is set as well. It
// refuses what some programs read as an address and others as a name (2130706433,
// 0x7f.1, 127.1, an IPv6 zone).
func ParseHost(text string) (name string, ip netip.Addr, err error) {
	inner, bracketed := strings.CutPrefix(text, "[")
	if bracketed {
		var closed bool
		if inner, closed = strings.CutSuffix(inner, "]"); !closed {
			return "", ip, errors.New("the bracket is not closed")
		}
	}
	if addr, err := netip.ParseAddr(inner); err == nil {
		switch {
		case addr.Zone() != "":
			return "", ip, errors.New("an address with a zone is one of this machine's own links")
		case addr.Is4() && bracketed:
			return "", ip, errors.New("brackets are for IPv6 addresses")
		case addr.Is6() && !bracketed:
			return "", ip, errors.New("an IPv6 address needs brackets")
		}
		addr = addr.Unmap()
		return addr.String(), addr, nil
	}
	if bracketed {
		return "", ip, errors.New("no IPv6 address is in the brackets")
	}
	name = strings.ToLower(strings.TrimSuffix(text, "."))
	if err := checkHostName(name); err != nil {
		return "", ip, err
	}
	return name, ip, nil
}

// checkHostName returns what is wrong with a host name in lower case, or nil.
func checkHostName(name string) error {
	if name == "" {
		return errors.New("there is no host")
	}
	if len(name) > maxName {
		return fmt.Errorf("a name has at most %d bytes", maxName)
	}
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return errors.New("no host is called so")
		}
		for i := range len(label) {
			c := label[i]
			if c >= 0x80 {
				return errors.New("write the name in ASCII, as DNS has it (xn--)")
			}
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return errors.New("no host is called so")
			}
		}
		last = label
	}
	// Browsers use this rule to tell IPv4 addresses from names (WHATWG URL).
	if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") && strings.Trim(last[2:], "0123456789abcdef") == "" {
		return errors.New("neither a name nor an address that is written as 192.0.2.1")
	}
	return nil
}

// String returns the network in its canonical spelling, which ParseNetwork reads.
func (n Network) String() string {
	switch n.mode {
	case "":
		return NetworkNone
	case NetworkAllow:
		entries := make([]string, len(n.hosts))
		for i, rule := range n.hosts {
			entries[i] = rule.String()
		}
		return NetworkAllow + strings.Join(entries, ",")
	}
	return n.mode
}

func (r hostRule) String() string {
	host := r.name
	switch {
	case r.any:
		host = "*"
	case r.suffix != "":
		host = "*" + r.suffix
	case r.ip.Is6():
		host = "[" + host + "]"
	}
	if r.port != 0 {
		host += ":" + strconv.Itoa(int(r.port))
	}
	return host
}

// Listed reports whether the network is a list of hosts, which the proxy reaches.
func (n Network) Listed() bool { return n.mode == NetworkAllow }

// Bridged returns the network that the sandbox itself has: NetworkEgress or
// NetworkNone. A list of hosts is NetworkNone, with the proxy beside it.
func (n Network) Bridged() string {
	if n.mode == NetworkEgress {
		return NetworkEgress
	}
	return NetworkNone
}

// Allows reports whether a list includes a host, spelled as ParseHost returns it, at a
// port. It says nothing about the address: a listed name may resolve to any.
func (n Network) Allows(host string, port uint16) bool {
	ip, _ := netip.ParseAddr(host) // the zero Addr for a name
	wanted := hostRule{name: host, ip: ip, port: port}
	return slices.ContainsFunc(n.hosts, func(r hostRule) bool { return r.covers(wanted) })
}

// Covers reports whether everything that the other network reaches can be reached with
// this one, too.
func (n Network) Covers(other Network) bool {
	switch {
	case n.mode == NetworkEgress || other.mode == "":
		return true
	case n.mode == "" || other.mode == NetworkEgress:
		return false
	}
	for _, wanted := range other.hosts {
		ports := webPorts[:]
		if wanted.port != 0 {
			ports = []uint16{wanted.port}
		}
		for _, port := range ports {
			wanted.port = port
			if !slices.ContainsFunc(n.hosts, func(r hostRule) bool { return r.covers(wanted) }) {
				return false
			}
		}
	}
	return true
}

// covers reports whether a rule includes everything that another one does. other's port
// is set.
func (r hostRule) covers(other hostRule) bool {
	if r.port != other.port && (r.port != 0 || !slices.Contains(webPorts[:], other.port)) {
		return false
	}
	switch {
	case r.any:
		return true
	case r.suffix != "":
		return !other.any && !other.ip.IsValid() && strings.HasSuffix(other.name+other.suffix, r.suffix) // one of the two is empty
	}
	return !other.any && other.suffix == "" && r.name == other.name
}

package faas

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Origins says which web pages may call a function. Empty, it allows no page of another
// site; AnyOrigin allows every page; otherwise it lists the allowed origins, as
// browsers write them, with commas between.
type Origins string

// AnyOrigin is the Origins of a function that every page may call.
const AnyOrigin Origins = "*"

// maxOrigins bounds the origins that a function may list.
const maxOrigins = 20

// Allows reports whether a page of that origin may call the function. The origin is
// empty if the browser did not send it.
func (o Origins) Allows(origin string) bool {
	if o == AnyOrigin {
		return true
	}
	if origin == "" {
		return false
	}
	for one := range strings.SplitSeq(string(o), ",") {
		if one == origin {
			return true
		}
	}
	return false
}

// parseOrigins reads a list of origins as people write them.
func parseOrigins(text string) (Origins, error) {
	text = strings.TrimSpace(text)
	if text == "" || text == string(AnyOrigin) {
		return Origins(text), nil
	}
	var all []string
	for given := range strings.SplitSeq(text, ",") {
		one, err := parseOrigin(strings.TrimSpace(given))
		if err != nil {
			return "", err
		}
		if !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	if len(all) > maxOrigins {
		return "", fmt.Errorf("these are %d origins", len(all))
	}
	return Origins(strings.Join(all, ",")), nil
}

var originHost = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$`)

// parseOrigin returns an origin as browsers send it: in lower case, and without the
// default port of its scheme.
func parseOrigin(text string) (string, error) {
	bad := errors.New("not an origin such as https://app.example.com or http://localhost:3000, with nothing behind it")
	text = strings.ToLower(text)
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok || scheme != "http" && scheme != "https" {
		return "", bad
	}
	u, err := url.Parse(text)
	if err != nil || u.Host != rest || strings.HasSuffix(rest, ":") {
		return "", bad
	}
	host := u.Hostname()
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Zone() != "" || ip.Is6() != strings.HasPrefix(rest, "[") {
			return "", bad
		}
		if host = ip.String(); ip.Is6() {
			host = "[" + host + "]"
		}
	} else if len(host) > 253 || !originHost.MatchString(host) {
		return "", bad
	}
	if port := u.Port(); port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return "", bad
		}
		if usual := map[string]uint64{"http": 80, "https": 443}[scheme]; n != usual {
			host += ":" + strconv.FormatUint(n, 10)
		}
	}
	return scheme + "://" + host, nil
}

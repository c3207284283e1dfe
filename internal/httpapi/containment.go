package httpapi

import (
	"net/http"
	"strings"
)

// To a browser a function's answer comes from the API's origin. This policy gives the
// rendered answer an origin of its own. To the API that is another site, and it has no
// storage, cookies or service workers. Every answer has the policy, because what is
// data for one browser is a page for another.
const sandboxPolicy = "sandbox allow-scripts allow-forms allow-popups allow-downloads"

// Header values that many answers share. Nobody changes them.
var (
	nosniff    = []string{"nosniff"}
	noReferrer = []string{"no-referrer"}
	inertCSP   = []string{"default-src 'none'"}
	sandboxCSP = []string{sandboxPolicy} // append copies it, because its capacity is its length
)

// inert sets headers of our own answers so that a browser runs nothing in them.
func inert(h http.Header) {
	h["X-Content-Type-Options"] = nosniff
	h["Content-Security-Policy"] = inertCSP
}

// contain sets headers of a function's answer. own are the headers that the function
// set; its own policies stay in force.
func contain(h, own http.Header) {
	h["X-Content-Type-Options"] = nosniff
	h["Referrer-Policy"] = noReferrer
	policies := sandboxCSP
	for _, policy := range own["Content-Security-Policy"] {
		if policy = withoutReports(policy); policy != "" {
			policies = append(policies, policy)
		}
	}
	h["Content-Security-Policy"] = policies
}

// withoutReports removes from content security policies the directives that say where
// to report violations. A browser would send these reports in the name of the API's
// page.
func withoutReports(policies string) string {
	if !strings.Contains(strings.ToLower(policies), "report-") {
		return policies
	}
	var kept []string
	for policy := range strings.SplitSeq(policies, ",") {
		var directives []string
		for directive := range strings.SplitSeq(policy, ";") {
			directive = strings.Trim(directive, " \t")
			name, _, _ := strings.Cut(strings.ReplaceAll(directive, "\t", " "), " ")
			if directive != "" && !strings.EqualFold(name, "report-uri") && !strings.EqualFold(name, "report-to") {
				directives = append(directives, directive)
			}
		}
		if len(directives) > 0 {
			kept = append(kept, strings.Join(directives, "; "))
		}
	}
	return strings.Join(kept, ", ")
}

// ours are headers by which an answer acts for the whole origin, or makes a browser
// send requests that nobody asked for. Functions cannot set them.
// SECURITY.md explains each.
var ours = map[string]bool{
	// Requests that a browser sends by itself.
	"Refresh": true, "Link": true, "Speculation-Rules": true, "Critical-Ch": true, "Accept-Ch": true,
	"Activate-Storage-Access": true, "Sourcemap": true, "X-Sourcemap": true,
	"Report-To": true, "Reporting-Endpoints": true, "Nel": true, "Expect-Ct": true, "X-Xss-Protection": true,
	"Content-Security-Policy-Report-Only": true,

	// Headers that act for the origin.
	"Clear-Site-Data": true, "Service-Worker-Allowed": true, "Set-Login": true, "Idp-Signin-Status": true,
	"Alt-Svc": true, "Strict-Transport-Security": true, "Public-Key-Pins": true, "Public-Key-Pins-Report-Only": true,
	"Use-As-Dictionary": true, "Observe-Browsing-Topics": true, "Shared-Storage-Write": true, "Origin-Agent-Cluster": true,
}

// oursBy are prefixes of further such headers.
var oursBy = [...]string{"Access-Control-", "Attribution-Reporting-", "Ad-Auction-", "Secure-Session-", "Sec-"}

// passes reports whether a function may set a header, whose name is in its canonical
// form.
func passes(name string) bool {
	if ours[name] {
		return false
	}
	for _, prefix := range oursBy {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	return true
}

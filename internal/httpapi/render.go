package httpapi

import (
	"net/http"
	"strings"
)

// What a function answers with comes from the API's origin, as far as a browser
// goes. The policy gives what is shown of it an origin of its own, which the API
// takes for another site, and which has no storage, cookies or service workers.
// It is on every answer: what is data for one browser is a page for another.
const sandboxPolicy = "sandbox allow-scripts allow-forms allow-popups allow-downloads"

// Values of headers that many answers share. Nobody changes them.
var (
	nosniff    = []string{"nosniff"}
	noReferrer = []string{"no-referrer"}
	inertCSP   = []string{"default-src 'none'"}
	sandboxCSP = []string{sandboxPolicy} // whose capacity is its length
)

// inert is for our own answers: whatever is in them, a browser runs nothing.
func inert(h http.Header) {
	h["X-Content-Type-Options"] = nosniff
	h["Content-Security-Policy"] = inertCSP
}

// contain is for a function's answer; own are the headers that it has of the
// function's. Policies of its own go on to hold.
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

// withoutReports drops from content security policies where to report what they
// forbid, which a browser does as the API's page.
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

// ours are the headers by which an answer acts for the whole origin, or has a
// browser make requests that nobody asked for. Functions' answers do not have
// them. SECURITY.md has them as a table, with the reasons; it also says what passes.
var ours = map[string]bool{
	// Requests of the browser's own.
	"Refresh": true, "Link": true, "Speculation-Rules": true, "Critical-Ch": true, "Accept-Ch": true,
	"Activate-Storage-Access": true, "Sourcemap": true, "X-Sourcemap": true,
	"Report-To": true, "Reporting-Endpoints": true, "Nel": true, "Expect-Ct": true, "X-Xss-Protection": true,
	"Content-Security-Policy-Report-Only": true,

	// What is said for the origin.
	"Clear-Site-Data": true, "Service-Worker-Allowed": true, "Set-Login": true, "Idp-Signin-Status": true,
	"Alt-Svc": true, "Strict-Transport-Security": true, "Public-Key-Pins": true, "Public-Key-Pins-Report-Only": true,
	"Use-As-Dictionary": true, "Observe-Browsing-Topics": true, "Shared-Storage-Write": true, "Origin-Agent-Cluster": true,
}

// oursBy are how names begin that are like ours.
var oursBy = [...]string{"Access-Control-", "Attribution-Reporting-", "Ad-Auction-", "Secure-Session-", "Sec-"}

// passes reports whether a header of a function's answer, in its canonical form,
// is for the function to set.
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

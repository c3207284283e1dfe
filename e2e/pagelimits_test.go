package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestPageToken: the page asks for a token once, keeps it for the tab, and shows what it
// allows.
func TestPageToken(t *testing.T) {
	t.Parallel()
	p := boot(t)
	p.do("PUT", "/api/functions/mine", "def callme(): return 1 / 0")
	p.do("PUT", "/api/functions/theirs", "def callme(): return 2")
	p.do("GET", "/api/call/mine", "")
	all, one := p.token("admin"), p.token("read:mine", "invoke:mine")
	b := newTabs(t)
	v := b.page(p)
	v.shows("This dispatcher asks for a token")
	v.until("the field has the focus", "document.activeElement.type === 'password'")
	v.write("input[type=password]", "fob_0123456789abcdef_"+strings.Repeat("0", 64))
	v.press("Enter")
	v.shows("This token does not exist")
	v.write("input[type=password]", "schlüssel")
	v.press("Enter")
	v.shows("letters and digits only")
	v.write("input[type=password]", all.Secret)
	v.press("Enter")
	v.shows("theirs")
	v.do("Page.reload", nil)
	v.shows("theirs")
	v.visit("#/machine")
	v.shows(one.ID)
	if text := v.text(); strings.Contains(text, all.Secret) {
		t.Errorf("the page shows the token: %s", text)
	}

	// Another tab has to be told.
	other := b.page(p)
	other.shows("This dispatcher asks for a token")
	other.write("input[type=password]", one.Secret)
	other.press("Enter")
	other.shows("mine")
	if text := other.text(); strings.Contains(text, "theirs") {
		t.Errorf("a token for one function shows others: %s", text)
	}
	other.until("its figures come from the history", "document.querySelector('td[data-title=Errors]').textContent === '100 %'")
	other.visit("#/machine")
	other.shows("The metrics need a token that may read all functions")
	other.visit("#/f/mine/code")
	other.write(".editor textarea", "def callme(): return 3")
	other.click("button", "Deploy")
	other.shows("forbidden")
	other.visit("#/f/mine/call")
	other.click("button.primary", "Call")
	other.shows("ZeroDivisionError")

	// A token that ends takes everything off the page.
	p.local("DELETE", "/api/tokens/"+one.ID, "")
	other.visit("#/f/mine")
	other.shows("This token does not exist, has expired, or was revoked")
	v.click("button", "Forget token")
	v.shows("This dispatcher asks for a token")
	v.do("Page.reload", nil)
	v.shows("This dispatcher asks for a token")
}

// TestPageIsSafe: what functions are called, say and raise is text to the page, and
// nothing that a function serves can run there.
func TestPageIsSafe(t *testing.T) {
	t.Parallel()
	p, v := pageOf(t)
	const evil = "<img src=x onerror='window.hacked = 1'><script>window.hacked = 2</script>"
	p.do("PUT", "/api/functions/evil?"+url.Values{"description": {evil}}.Encode(), fmt.Sprintf(`
import fob
def callme(what="raise", **others):
    if what == "raise": raise ValueError(%[1]q)
    if what == "plain": return %[1]q
    if what == "script": return fob.Response("window.hacked = 3", headers={"Content-Type": "text/javascript"})
    if what == "password": return fob.Response("no", status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    return fob.Response(%[1]q, headers={"Content-Type": "text/html", "Set-Cookie": "mine=1; Path=/"})
`, evil))
	v.visit("#/f/evil/call")
	for what, shows := range map[string]string{"raise": "ValueError", "plain": "<script>", "script": "window.hacked = 3", "password": "401", "html": "<img src=x"} {
		v.write("input[name=what]", what)
		v.click("button.primary", "Call")
		v.shows(shows)
	}
	if cookies := v.run("document.cookie"); cookies != `""` {
		t.Errorf("a call that the page made set the cookie %s", cookies)
	}
	for _, hash := range []string{"#/", "#/f/evil", "#/f/evil/code", "#/f/evil/settings", "#/calls", "#/machine", "#/" + evil, "#/f/" + evil, "#/call/%zz", "#/calls?function=%zz&text=" + evil} {
		v.visit(hash)
		v.until("it has loaded", "!document.querySelector('[aria-busy]')")
	}
	failed := v.run("fetch('/api/calls?outcome=failed').then((a) => a.json()).then((d) => d.calls[0].id)")
	v.visit("#/call/" + strings.Trim(failed, `"`))
	v.shows("ValueError")
	v.well(p.Addr())

	// Even somebody who got that far could not go on from there.
	got := v.run(`(async () => {
		const ends = [];
		const attempt = async (bad) => { try { await bad(); ends.push('ran'); } catch { ends.push('refused'); } };
		const script = document.createElement('script');
		await attempt(() => { script.src = '/api/call/evil?what=script'; });
		await attempt(() => { document.body.innerHTML = '<b>'; });
		await attempt(() => eval('1'));
		await attempt(() => fetch('http://127.0.0.1:1/', {mode: 'no-cors'}));
		const other = document.createElementNS('http://www.w3.org/2000/svg', 'script');
		await attempt(() => other.setAttribute('href', '/api/call/evil?what=script'));
		await new Promise((later) => setTimeout(later, 500));
		return ends.join() + ' ' + window.hacked;
	})()`)
	if got != `"refused,refused,refused,refused,refused undefined"` {
		t.Errorf("the page could do this: %s", got)
	}
	v.troubles = nil // the violations that this was

	// Nobody frames it: a function's page sees an error in the frame.
	p.do("PUT", "/api/functions/framer", `
import fob
def callme(): return fob.Response("<iframe src='/'></iframe>", headers={"Content-Type": "text/html"})
`)
	frame := v.run("fetch('/api/call/framer').then((a) => a.headers.get('Content-Security-Policy'))")
	page := p.do("GET", "/", "", "Accept", "text/html").Header.Get("Content-Security-Policy")
	if !strings.Contains(frame, "sandbox") || !strings.Contains(page, "frame-ancestors 'none'") {
		t.Errorf("the policies are %s and %s", frame, page)
	}
	if body := p.do("GET", "/", "", "Accept", "text/html", "Sec-Fetch-Site", "cross-site").Status; body != 403 {
		t.Errorf("a page of another site that loads the page is answered %d", body)
	}
}

// TestPageWithoutScript: with JavaScript off the page says how to do it with curl.
func TestPageWithoutScript(t *testing.T) {
	t.Parallel()
	_, v := pageOf(t)
	v.do("Emulation.setScriptExecutionDisabled", map[string]any{"value": true})
	v.do("Page.reload", nil)
	eventually(t, time.Minute, "it shows the lines for curl", func() bool {
		var tree struct {
			Nodes []struct{ Name struct{ Value any } }
		}
		json.Unmarshal(v.do("Accessibility.getFullAXTree", nil), &tree)
		for _, node := range tree.Nodes {
			if text, _ := node.Name.Value.(string); strings.Contains(text, "/api/calls?function=NAME&outcome=failed") {
				return true
			}
		}
		return false
	})
}

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/client"
)

// pageOf boots a dispatcher and opens its page, which must have nothing to complain of
// when the test ends.
func pageOf(t *testing.T, settings ...string) (*dispatcher, *view) {
	t.Helper()
	p := boot(t, settings...)
	return p, newTabs(t).page(p)
}

// page opens the page of a dispatcher.
func (b *tabs) page(p *dispatcher) *view {
	b.t.Helper()
	v := b.openView(p.URL + "/")
	b.t.Cleanup(func() { v.well(p.Addr()) })
	return v
}

// sizes are how wide and high a tab is: of a computer and of a small phone.
var sizes = map[string][2]int{"wide": {1280, 860}, "phone": {360, 740}}

// TestPageViews looks at every view, wide and on a phone, light and dark. With
// FOBTEST_PICTURES=folder it leaves pictures of them there.
func TestPageViews(t *testing.T) {
	t.Parallel()
	p, v := pageOf(t)
	failed, whole := furnish(t, p)
	for _, look := range []struct{ name, hash, shows string }{
		{"functions", "#/", "billing-charge"},
		{"groups", "#/?group=1&sort=rate&down=1", "billing"},
		{"function", "#/f/shop-order", "Last failures"},
		{"call-form", "#/f/shop-order/call", "quantity"},
		{"code", "#/f/shop-order/code", "Deploy"},
		{"log", "#/f/shop-order/logs", ""},
		{"versions", "#/f/shop-order/versions", "From version 1 to version 2"},
		{"settings", "#/f/shop-order/settings", "Everyday"},
		{"call", "#/call/" + failed, "KeyError"},
		{"trace", "#/call/" + whole, "2 calls of one trace"},
		{"calls", "#/calls?outcome=failed", "KeyError"},
		{"map", "#/map", "Edges"},
		{"machine", "#/machine", "Last changes"},
		{"new", "#/new", "Deploy"},
		{"nothing", "#/nowhere", "There is nothing here"},
	} {
		for width, size := range sizes {
			v.size(size[0], size[1])
			v.visit(look.hash)
			v.shows(look.shows)
			v.until(look.name+" has loaded", "!document.querySelector('[aria-busy]')")
			if over := v.run("document.documentElement.scrollWidth - innerWidth"); strings.Trim(over, "-0123456789") != "" || !strings.HasPrefix(over, "-") && over != "0" {
				t.Errorf("%s, %s: the page is %s pixels wider than the window", look.name, width, over)
			}
			for _, scheme := range []string{"light", "dark"} {
				v.scheme(scheme)
				v.picture(look.name + "-" + width + "-" + scheme)
			}
		}
	}
}

// furnish registers functions that call each other and fail now and then, and returns
// the IDs of a call that failed and of one that called another function.
func furnish(t *testing.T, p *dispatcher) (failed, whole string) {
	p.do("PUT", "/api/functions/billing-charge?description=Charges+a+card.&concurrency=4", `
import random, time
def callme(amount: int = 1):
    time.sleep(random.random() / 50)
    print("charging", amount)
    if amount > 90: raise ValueError(f"{amount} is too much for one charge")
    return {"charged": amount}
`)
	p.do("PUT", "/api/functions/shop-order?description=Takes+an+order.&concurrency=4", "def callme(item, quantity: int = 1):\n    return {}\n")
	p.do("PUT", "/api/functions/shop-order?concurrency=4&timeout=5s", fmt.Sprintf(`
import json, urllib.request

prices = {"book": 12, "pen": 2, "lamp": 31}

def callme(request, item="book", quantity: int = 1):
    """Charges what an order costs, and says so."""
    price = prices[item]
    print("order", item, quantity)
    ask = urllib.request.Request(
        "%s/api/call/billing-charge?amount=" + str(price * quantity),
        headers={"Traceparent": request.headers["traceparent"]})
    charged = json.load(urllib.request.urlopen(ask))["result"]
    return {"item": item, **charged}
`, p.URL))
	p.do("PUT", "/api/functions/shop-search?lang=node", "export function callme({ text = '' }) {\n  return ['book', 'pen', 'lamp'].filter((w) => w.includes(text));\n}\n")
	p.do("PUT", "/api/functions/mail-send", "import time\ndef callme(to='you'):\n    time.sleep(0.03)\n    return to\n")
	p.do("PUT", "/api/functions/report?description=%3Cscript%3Ealert(1)%3C/script%3E", "def callme(): return '<img src=x onerror=alert(1)>'")
	p.do("PUT", "/api/functions/billing-refund?max_concurrency=0", "def callme(): return 1")
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			p.do("GET", fmt.Sprintf("/api/call/shop-order?item=%s&quantity=%d", []string{"book", "pen", "lamp", "boat"}[i%4], i%5), "")
			p.do("GET", "/api/call/shop-search?text=p", "")
			p.do("GET", "/api/call/mail-send", "")
		})
	}
	all.Wait()
	p.do("GET", "/api/call/billing-refund", "")
	failed = p.do("GET", "/api/call/shop-order?item=hammer", "").Header.Get("X-Call-Id")
	whole = p.do("GET", "/api/call/shop-order?item=book&quantity=2", "").Header.Get("X-Call-Id")
	eventually(t, time.Minute, "the history has the calls", func() bool {
		return p.do("GET", "/api/calls/"+failed, "").Status == 200 && p.do("GET", "/api/calls/"+whole, "").Status == 200
	})
	return failed, whole
}

// TestPageWalk deploys a broken function, mends it, calls it, and finds the call that
// failed a minute ago in its code, as somebody would who knows only the page.
func TestPageWalk(t *testing.T) {
	t.Parallel()
	p, v := pageOf(t)
	v.shows("There are no functions yet")
	v.click("a", "Write the first function")
	v.write("input[pattern]", "shop")
	v.write(".editor textarea", "prices = {'pen': 2}\ndef callme(item: str, count: int = 1)\n    return prices[item] * count\n")
	v.click("button", "Deploy")
	v.shows("does_not_compile")
	v.until("the line is marked", "document.querySelector('.line.marked .gutter').textContent === '2'")
	if got := p.do("GET", "/api/functions/shop", "").Status; got != 404 {
		t.Fatalf("the broken function is answered %d", got)
	}
	v.write(".editor textarea", "prices = {'pen': 2}\ndef callme(item: str, count: int = 1):\n    print('asked for', item)\n    return prices[item] * count\n")
	v.click("button", "Deploy")

	// It goes on to the form for a call, which has the function's parameters.
	v.write("input[name=item]", "pen")
	v.write("input[name=count]", "3")
	v.click("button.primary", "Call")
	v.shows(`"result": 6`)
	v.until("the line for curl is there", "document.querySelector('.copy code').textContent.includes("+quoted(`--data-raw '{"item":"pen","count":3}'`)+")")
	v.write("input[name=item]", "lamp")
	v.click("button.primary", "Call")
	v.shows("KeyError: 'lamp'")

	// Somebody else, later.
	v.visit("#/")
	v.until("its failures are counted", "document.querySelector('td[data-title=Errors]').textContent === '50 %'")
	v.until("so is how long they ran", "document.querySelector('td[data-title=p95]').textContent.endsWith('ms')")
	v.click("tbody th a", "shop")
	v.shows("Last failures")
	v.click(".calls a", ":") // the time of the call
	v.until("the code has the line marked", "document.querySelector('.code .line.marked .text').textContent.includes('prices[item] * count')")
	v.shows("KeyError: 'lamp'")
	v.shows("What to do")
	v.click("a", "Open the code at line 4")
	v.until("the editor shows the error", "document.querySelector('.editor .note').textContent.includes('lamp')")
	v.write(".editor textarea", "def callme(item: str, count: int = 1):\n    return 0\n")
	v.press("Control+Enter")
	v.shows("Version 2 is live")

	// What changed, and back again.
	v.click(".tabs a", "Versions")
	v.until("the sides stand beside each other", "document.querySelector('.sides .gone').textContent.includes('prices =')")
	v.click("button", "Make live again")
	v.shows("Version 3 is live")
	if code := p.do("GET", "/api/cs/shop", "").Body; !strings.Contains(code, "prices[item] * count") {
		t.Errorf("version 3 is\n%s", code)
	}

	// A setting, with what it does.
	v.click(".tabs a", "Settings")
	v.shows("How long a call may run")
	v.write("#setting-timeout", "five")
	v.click("button", "Save one change")
	v.shows("not a duration")
	v.write("#setting-timeout", "5s")
	v.click("button", "Save one change")
	v.shows("Version 4 is live")
	if shown := p.do("GET", "/api/functions/shop", "").Body; !strings.Contains(shown, `"timeout": "5s"`) {
		t.Errorf("the function is %s", shown)
	}
	v.write("#setting-name", "store")
	v.click("button", "Save one change")
	v.until("it goes on under the new name", "document.querySelector('h1').textContent.includes('store') && location.hash === '#/f/store/settings'")
	v.visit("#/f/store")
	v.shows("KeyError: 'lamp'")
}

// TestPageKeyboard: everything can be reached and done by keys.
func TestPageKeyboard(t *testing.T) {
	t.Parallel()
	p, v := pageOf(t)
	p.do("PUT", "/api/functions/alpha", "def callme(): return 1")
	p.do("PUT", "/api/functions/beta", "def callme(name): return name")
	v.do("Page.reload", nil)
	v.shows("beta")
	// tabTo presses Tab until what a selector finds has the focus, and can be seen to.
	tabTo := func(selector string) {
		t.Helper()
		for range 60 {
			v.press("Tab")
			if v.run("document.activeElement.matches("+quoted(selector)+")") == "true" {
				v.until("the focus is seen", "getComputedStyle(document.activeElement).outlineStyle !== 'none' || document.activeElement.matches('textarea, .skip')")
				return
			}
		}
		t.Fatalf("Tab never comes to %s; the focus is on %s", selector, v.run("document.activeElement.outerHTML"))
	}
	tabTo(".skip")
	v.press("Enter")
	v.until("the content has the focus", "document.activeElement.matches('main')")
	tabTo("input[type=search]")
	v.do("Input.insertText", map[string]any{"text": "bet"})
	v.shows("1 of 2")
	tabTo("tbody th a")
	v.press("Enter")
	v.shows("Last failures")
	tabTo(".tabs a[href$=code]")
	v.press("Enter")
	v.shows("leaves the field")
	tabTo(".editor textarea")
	v.run("document.activeElement.setSelectionRange(0, 0)")
	v.do("Input.insertText", map[string]any{"text": "def helper():\n"})
	v.press("Tab")
	v.do("Input.insertText", map[string]any{"text": "return 5\n"})
	v.press("Control+Enter")
	v.shows("Version 2 is live")
	if code := p.do("GET", "/api/cs/beta", "").Body; !strings.HasPrefix(code, "def helper():\n    return 5\ndef callme") {
		t.Errorf("the code is\n%s", code)
	}
	v.press("Escape")
	v.press("Tab")
	v.until("Escape and Tab left the field", "!document.activeElement.matches('textarea')")
	for _, missing := range []string{"input, select, textarea", "button, a"} {
		if nameless := v.run("[...document.querySelectorAll(" + quoted(missing) + ")].filter((e) => !(e.labels?.length || e.ariaLabel || e.textContent.trim())).map((e) => e.outerHTML)"); nameless != "[]" {
			t.Errorf("these have no name for who cannot see: %s", nameless)
		}
	}
}

// TestPageWhileAway: two tabs stay open while the dispatcher is killed and started anew,
// and go on by themselves.
func TestPageWhileAway(t *testing.T) {
	t.Parallel()
	addr, err := client.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	settings := []string{"FOB_ADDR=" + addr, "FOB_DATA=" + shortDir(t)}
	p := boot(t, settings...)
	p.do("PUT", "/api/functions/before", "def callme(): return 1")
	b := newTabs(t)
	list, log := b.page(p), b.page(p)
	log.visit("#/f/before")
	list.shows("before")
	log.shows("Last failures")
	p.kill()
	list.shows("The dispatcher does not answer. Trying again")
	log.shows("The dispatcher does not answer. Trying again")
	list.shows("before") // what was there stays
	again := boot(t, settings...)
	again.do("PUT", "/api/functions/after", "def callme(): return 1")
	again.do("GET", "/api/call/before", "")
	list.shows("after")
	log.until("the other tab counts the new call", "document.querySelector('.summary').textContent.startsWith('1 calls') || document.querySelector('.summary').textContent.includes('1 call')")
	for _, v := range []*view{list, log} {
		v.until("it no longer says that it is away", "!document.querySelector('.away')")
	}
}

// inFront serves some paths itself, and has the dispatcher serve all others.
func inFront(t *testing.T, p *dispatcher, paths map[string]http.HandlerFunc) *httptest.Server {
	t.Helper()
	target, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	others := httputil.NewSingleHostReverseProxy(target)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if own := paths[r.URL.Path]; own != nil {
			own(w, r)
		} else {
			others.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

// TestPageSandboxes: the page shows how many sandboxes a function has and should have, and
// the scaler's reason.
func TestPageSandboxes(t *testing.T) {
	t.Parallel()
	p := boot(t)
	p.do("PUT", "/api/functions/shop", "def callme(): return 1")
	var list api.Functions
	if err := json.Unmarshal([]byte(p.do("GET", "/api/functions", "").Body), &list); err != nil {
		t.Fatal(err)
	}
	id := list.Functions[0].ID
	front := inFront(t, p, map[string]http.HandlerFunc{"/metrics": func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "fob_scaler_sandboxes{function=%q} 3\nfob_scaler_wanted_sandboxes{function=%[1]q} 5\nfob_scaler_reason{function=%[1]q,reason=\"demand\"} 1\n"+
			"fob_data_size_bytes 2e9\nfob_data_free_bytes 1e9\nfob_sandboxes{state=\"idle\"} 3\nfob_sandboxes_limit 10\n", id)
	}})
	v := newTabs(t).openView(front.URL)
	v.until("the list has the sandboxes", "document.querySelector('td[data-title=Sandboxes]').textContent === '3'")
	v.visit("#/f/shop")
	v.until("the chart has the reason", "[...document.querySelectorAll('.charts h2')].some((h) => h.textContent === 'Sandboxes demand')")
	v.visit("#/machine")
	v.shows("Disk of the data folder")
	v.shows("3 idle")
	v.well(strings.TrimPrefix(front.URL, "http://"))
}

// TestPageOfAThousand: with a thousand functions, search, groups and sorting work; the log
// says how long a search takes until it is drawn.
func TestPageOfAThousand(t *testing.T) {
	t.Parallel()
	p := boot(t)
	p.do("PUT", "/api/functions/real", "def callme(): return 1")
	var real api.Functions
	if err := json.Unmarshal([]byte(p.do("GET", "/api/functions", "").Body), &real); err != nil {
		t.Fatal(err)
	}
	thousand := api.Functions{}
	for i := range 1000 {
		fn := real.Functions[0]
		fn.ID, fn.Name = fmt.Sprintf("00000000-0000-4000-8000-%012d", i), fmt.Sprintf("team%d-task-%d", i%20, i)
		thousand.Functions = append(thousand.Functions, fn)
	}
	list, err := json.Marshal(thousand)
	if err != nil {
		t.Fatal(err)
	}
	front := inFront(t, p, map[string]http.HandlerFunc{"/api/functions": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(list)
	}})
	v := newTabs(t).openView(front.URL)
	v.shows("Functions 1000")
	v.shows("more rows")
	took := v.run(`(async () => {
		const field = document.querySelector('input[type=search]'), times = [];
		const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;
		for (const text of ['t', 'te', 'team7', 'team7-task-1', '', 'no such', 'task-999', '']) {
			const begun = performance.now();
			set.call(field, text);
			field.dispatchEvent(new Event('input', {bubbles: true}));
			const want = text === 'no such' ? 'No function' : text;
			while (!document.querySelector('main').innerText.includes(want) || field.value !== text) await new Promise((next) => setTimeout(next));
			await new Promise(requestAnimationFrame);
			times.push(performance.now() - begun);
		}
		return times.sort((a, b) => a - b)[Math.floor(times.length / 2)];
	})()`)
	t.Logf("the median search took %s ms", took)
	v.run("document.querySelector('.check input').click()")
	v.until("the groups are there", "document.querySelector('tr.group').innerText.includes('50')")
	v.click("thead button", "Rate")
	v.until("it is sorted", "document.querySelector('th[aria-sort=descending]')")
	v.run("scrollTo(0, 1e9)")
	v.until("more rows come into view", "document.querySelectorAll('tbody tr').length > 100")
	v.well(strings.TrimPrefix(front.URL, "http://"))
}

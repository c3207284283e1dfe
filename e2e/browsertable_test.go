package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// ways are how a page has a browser make a request: a script that makes it to the
// URL target. Those that are quiet a browser may leave out.
var ways = []struct {
	name, script string
	quiet        bool
}{
	{name: "img", script: `add('img', {src: target})`},
	{name: "srcset", script: `add('img', {srcset: target + ' 1x'})`},
	{name: "svg-image", script: `document.body.insertAdjacentHTML('beforeend', '<svg><image href="' + target + '"/></svg>')`},
	{name: "script", script: `add('script', {src: target})`},
	{name: "module", script: `add('script', {src: target, type: 'module'})`},
	{name: "import", script: `import(target).catch(() => {})`},
	{name: "stylesheet", script: `add('link', {rel: 'stylesheet', href: target})`},
	{name: "css-url", script: `add('div', {textContent: 'x', style: 'background: url(' + target + ')'})`},
	{name: "css-import", script: `add('style', {textContent: '@import url(' + target + ')'})`},
	{name: "font", script: `new FontFace('f', 'url(' + target + ')').load().catch(() => {})`},
	{name: "icon", script: `add('link', {rel: 'icon', href: target})`, quiet: true},
	{name: "manifest", script: `add('link', {rel: 'manifest', href: target})`, quiet: true},
	{name: "prefetch", script: `add('link', {rel: 'prefetch', href: target})`},
	{name: "preload", script: `add('link', {rel: 'preload', as: 'image', href: target})`},
	{name: "preload-fetch", script: `add('link', {rel: 'preload', as: 'fetch', href: target, crossOrigin: 'anonymous'})`},
	{name: "modulepreload", script: `add('link', {rel: 'modulepreload', href: target})`},
	{name: "prerender", script: `add('link', {rel: 'prerender', href: target})`, quiet: true},
	{name: "next", script: `add('link', {rel: 'next', href: target})`, quiet: true},
	{name: "dns-prefetch", script: `add('link', {rel: 'dns-prefetch', href: target})`, quiet: true},
	{name: "preconnect", script: `add('link', {rel: 'preconnect', href: target})`, quiet: true},
	{name: "rules-prefetch", script: `rules({prefetch: [{source: 'list', urls: [target], eagerness: 'immediate'}]})`},
	{name: "rules-silent", script: `rules({prefetch: [{source: 'list', urls: [target], eagerness: 'immediate', referrer_policy: 'no-referrer'}]})`},
	{name: "rules-prerender", script: `rules({prerender: [{source: 'list', urls: [target], eagerness: 'immediate'}]})`, quiet: true},
	{name: "iframe", script: `add('iframe', {src: target})`},
	{name: "object", script: `add('object', {data: target})`},
	{name: "embed", script: `add('embed', {src: target})`},
	{name: "video", script: `add('video', {src: target})`},
	{name: "audio", script: `add('audio', {src: target, preload: 'auto'})`},
	{name: "poster", script: `add('video', {poster: target})`},
	{name: "form-get", script: `submit('get')`},
	{name: "form-post", script: `submit('post')`},
	{name: "fetch", script: `fetch(target).catch(() => {})`},
	{name: "fetch-no-cors", script: `fetch(target, {mode: 'no-cors'}).catch(() => {})`},
	{name: "fetch-no-referrer", script: `fetch(target, {mode: 'no-cors', referrerPolicy: 'no-referrer'}).catch(() => {})`},
	{name: "fetch-include", script: `fetch(target, {mode: 'no-cors', credentials: 'include'}).catch(() => {})`},
	{name: "fetch-keepalive", script: `fetch(target, {mode: 'no-cors', keepalive: true}).catch(() => {})`},
	{name: "fetch-post", script: `fetch(target, {method: 'POST', mode: 'no-cors', body: '{}'}).catch(() => {})`},
	{name: "xhr", script: `const x = new XMLHttpRequest(); x.open('POST', target); x.send('{}')`},
	{name: "beacon", script: `navigator.sendBeacon(target, 'x')`},
	{name: "ping", script: `add('a', {href: '#', ping: target}).click()`},
	{name: "events", script: `new EventSource(target)`},
	{name: "worker", script: `new Worker(URL.createObjectURL(new Blob(['importScripts("' + target + '")'])))`, quiet: true},
	{name: "worker-fetch", script: `new Worker(URL.createObjectURL(new Blob(['fetch("' + target + '", {mode: "no-cors"})'])))`, quiet: true},
	{name: "socket", script: `new WebSocket(target.replace('http', 'ws'))`, quiet: true},
	{name: "open", script: `window.open(target)`, quiet: true},
	{name: "open-noreferrer", script: `window.open(target, '_blank', 'noreferrer')`, quiet: true},
	{name: "link", script: `add('a', {href: target, rel: 'noreferrer'}).click()`},
	{name: "navigate", script: `location = target`},
	{name: "replace", script: `location.replace(target)`},
	{name: "meta-refresh", script: `add('meta', {httpEquiv: 'refresh', content: '0;url=' + target})`},
	{name: "meta-csp", script: `add('meta', {httpEquiv: 'content-security-policy', content: "img-src 'none'; report-uri " + target}); add('img', {src: '/x'})`, quiet: true},
}

// leaves are the ways that take the page away, or may: each needs one of its own.
var leaves = []string{"link", "navigate", "replace", "meta-refresh", "ping"}

const wayTools = `
const add = (tag, attributes) => {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (name in e) e[name] = value; else e.setAttribute(name, value);
  if ('srcset' in attributes) e.srcset = attributes.srcset;
  if ('style' in attributes) e.setAttribute('style', attributes.style);
  document.body.appendChild(e);
  return e;
};
const rules = (what) => add('script', {type: 'speculationrules', textContent: JSON.stringify(what)});
const submit = (method) => {
  const form = add('form', {method, action: target, target: 'f' + method});
  const [, name, value] = target.match(/\?(.*)=(.*)/);
  form.appendChild(Object.assign(document.createElement('input'), {name, value}));
  add('iframe', {name: 'f' + method});
  form.submit();
};
`

// wayPage is a page that makes requests, and what they are known by.
type wayPage struct {
	text  string
	makes []string // those that must have been made
}

// wayPages are pages that make requests to prefix + the way's name, so that each
// has a URL of its own.
func wayPages(who, prefix string) (pages []wayPage) {
	page := func(names ...string) {
		p := wayPage{text: "<!doctype html><body><script>\n" + "let target;" + wayTools}
		for _, way := range ways {
			if slices.Contains(names, way.name) {
				by := who + "-" + way.name
				p.text += fmt.Sprintf("target = '%s'; try { ((target) => { %s })(target) } catch (e) {}\n", prefix+by, way.script)
				if !way.quiet {
					p.makes = append(p.makes, by)
				}
			}
		}
		p.text += "</script>"
		pages = append(pages, p)
	}
	var stay []string
	for _, way := range ways {
		if slices.Contains(leaves, way.name) {
			page(way.name)
		} else {
			stay = append(stay, way.name)
		}
	}
	for names := range slices.Chunk(stay, 12) {
		page(names...)
	}
	return pages
}

// TestBrowserTable: whatever foreign pages, pages of functions and answers of
// functions of any type ask a browser to do, it runs no other function.
func TestBrowserTable(t *testing.T) {
	t.Parallel()
	p := boot(t)
	p.gen("?name=victim&max_scale=1", counterCode)
	other := &foreign{pages: make(map[string]string)}
	server := httptest.NewServer(other)
	t.Cleanup(server.Close)
	site := "http://evil.test:" + strings.TrimPrefix(server.URL, "http://127.0.0.1:")

	// What functions answer: by name, whatever the query says.
	p.gen("?name=say&max_scale=2&concurrency=8", `
import fob, json
def callme(status, headers, body=""):
    return fob.Response(body, status=int(status), headers=json.loads(headers))
`)
	say := func(status int, headers map[string]any, body string) string {
		text, _ := json.Marshal(headers)
		return "/api/call/say?" + url.Values{"status": {fmt.Sprint(status)}, "headers": {string(text)}, "body": {body}}.Encode()
	}
	r := newRecorder(t, p.URL, "")
	victim := r.URL + "/api/call/victim?by="
	b := newTabs(t)
	// try opens a page until the requests have been made that it must make. As with
	// again, what the machine's network does may take them away.
	try := func(page string, makes []string) {
		var missing []string
		for range 5 {
			close := b.open(page)
			missing = r.missing(15*time.Second, makes)
			close()
			if len(missing) == 0 {
				return
			}
		}
		t.Errorf("%.100s: these requests were never made: %v", page, missing)
	}

	// Pages of another site, and of a function.
	for i, page := range wayPages("page", victim) {
		path := fmt.Sprintf("/%d", i)
		other.show(path, page.text)
		try(site+path, page.makes)
	}
	for i, page := range wayPages("own", victim) {
		name := fmt.Sprintf("page-%d", i)
		p.gen("?name="+name, "import fob\ndef callme(): return fob.Response("+fmt.Sprintf("%q", page.text)+", headers={'Content-Type': 'text/html'})")
		try(r.URL+"/api/call/"+name, page.makes)
	}

	// Answers of any type, opened by the user, and by a page of the API's origin that
	// the user has open. What a browser does with an answer it does at its end, so
	// the requests that each page makes last are waited for.
	var typed []string
	app := "<!doctype html><body>"
	frame := func(path string) {
		app += "<iframe src='" + strings.ReplaceAll(path, "'", "%27") + "'></iframe>"
	}
	for kind, mediaType := range map[string]string{"json": "application/json", "html": "text/html", "text": "text/plain", "svg": "image/svg+xml", "js": "text/javascript", "events": "text/event-stream", "none": ""} {
		const body = "<svg xmlns='http://www.w3.org/2000/svg'><image href='/x'/></svg>"
		all := map[string]any{"Content-Type": mediaType}
		for name, form := range map[string]string{
			"Refresh":                             "0;url=%s",
			"Link":                                "<%[1]s-prefetch>; rel=prefetch, <%[1]s-fetch>; rel=preload; as=fetch, <%[1]s-image>; rel=preload; as=image, <%[1]s-module>; rel=modulepreload, <%[1]s-style>; rel=stylesheet, <%[1]s-next>; rel=next, <%[1]s-prerender>; rel=prerender",
			"Speculation-Rules":                   `"%s"`,
			"Reporting-Endpoints":                 `e="%s"`,
			"Content-Security-Policy":             "img-src 'none'; report-uri %s; report-to e",
			"Content-Security-Policy-Report-Only": "default-src 'none'; report-uri %s; report-to e",
			"Location":                            "%s",
			"SourceMap":                           "%s",
		} {
			value := fmt.Sprintf(form, victim+kind+"-"+name)
			all[name] = value
			frame(say(200, map[string]any{"Content-Type": mediaType, name: value}, body))
		}
		typed = append(typed, say(200, all, body))
		delete(all, "Refresh") // which takes the page away
		typed = append(typed, say(200, all, body))
	}
	for i, form := range []string{"/api/call/victim?by=%[1]s", "victim?by=%[1]s", "%[2]s/api/call/victim?by=%[1]s", `\api\call\victim?by=%[1]s`, "/api/call/say/../victim?by=%[1]s", "/api/call/say/%%2e%%2e/victim?by=%[1]s", "http:/api/call/victim?by=%[1]s"} {
		for _, status := range []int{300, 301, 302, 303, 307, 308} {
			path := say(status, map[string]any{"Location": fmt.Sprintf(form+"%.0[2]s", fmt.Sprintf("redirect-%d-%d", status, i), r.URL)}, "")
			frame(path)
			if status == 302 || status == 307 {
				typed = append(typed, path)
			}
		}
	}
	for _, path := range typed {
		defer b.open(r.URL + path)()
	}
	r.show(app + "<img src='/api/call/victim?by=app'>")
	try(r.URL+"/app", []string{"app"})
	try(victim+"user", []string{"user"})
	time.Sleep(time.Second)

	r.mu.Lock()
	for by, status := range r.answers {
		if want := map[bool]int{true: 200, false: 403}[by == "app" || by == "user"]; status != want {
			t.Errorf("%s was answered %d, want %d", by, status, want)
		}
	}
	t.Logf("%d requests were made", len(r.answers))
	r.mu.Unlock()
	ran := p.do("GET", "/api/call/victim", "").Body
	if ran != `{"result": ["app", "user"]}` {
		t.Errorf("the victim was run by %s", ran)
	}
}

// foreign is another web site, of pages.
type foreign struct {
	mu    sync.Mutex
	pages map[string]string
}

func (s *foreign) show(path, page string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages[path] = page
}

func (s *foreign) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	page, ok := s.pages[r.URL.Path]
	s.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/html")
	io.WriteString(w, page)
}

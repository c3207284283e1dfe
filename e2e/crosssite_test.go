package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// counterCode is a function that knows who had it run.
const counterCode = `
ran = []
def callme(by=None):
    if by: ran.append(by)
    return ran
`

// An attacker's name that leads to this machine all at once (DNS rebinding)
// makes the dispatcher the same origin as the attacker's page, which still
// learns nothing and runs nothing.
func TestBrowserRebinding(t *testing.T) {
	t.Parallel()
	p := boot(t, "FOB_HOSTS=known.test")
	p.gen("?name=counter&max_scale=1", counterCode)
	attacker := newSite(t)
	page := attacker.page(`
(async () => {
  const who = location.hostname;
  for (const [method, path] of [['GET', '/api/functions'], ['GET', '/api/cs/counter'], ['GET', '/api/call/counter?by=' + who], ['POST', '/api/call/counter?by=' + who],
      ['DELETE', '/api/functions/victim'], ['GET', '/metrics'], ['GET', '/healthz'], ['OPTIONS', '/api/call/counter']]) {
    const answer = await fetch(path, {method});
    await report(who + ' ' + method + ' ' + path.split('?')[0], answer.status + ' ' + (await answer.text()).slice(0, 2000));
  }
  await report(who, 'done');
})()`)
	for name, refused := range map[string]bool{"evil.test": true, "known.test": false, "localhost": false} {
		rebind := func() string {
			p.do("PUT", "/api/functions/victim", "def callme(): return 1")
			return "http://" + name + ":" + newRebinding(t, p.Addr(), page).port() + "/"
		}
		attacker.until(t, rebind, func(reports map[string]string) (wrong []string) {
			if reports[name] == "" {
				return []string{"the page of " + name + " did not come to its end"}
			}
			for what, said := range reports {
				if who, _, is := strings.Cut(what, " "); !is || who != name {
					continue
				}
				if strings.HasPrefix(said, "403 ") != refused || refused && (strings.Contains(said, "ran") || strings.Contains(said, "counter") || !strings.Contains(said, "bad_host")) {
					wrong = append(wrong, fmt.Sprintf("the page read %s: %s", what, said))
				}
			}
			return wrong
		})
		if status := p.do("GET", "/api/functions/victim", "").Status; (status == 200) != refused {
			t.Errorf("after %s the victim is answered %d", name, status)
		}
	}
	ran := p.do("GET", "/api/call/counter", "").Body
	if strings.Contains(ran, "evil") || strings.Count(ran, "known.test") < 2 || strings.Count(ran, "localhost") < 2 {
		t.Errorf("the function was run by %s", ran)
	}
}

// A page of another site cannot have the browser run a function, in any of the
// ways in which a page makes requests; the user can, and pages of the same
// origin.
func TestBrowserCrossSite(t *testing.T) {
	t.Parallel()
	p := boot(t)
	p.gen("?name=counter&max_scale=1", counterCode)
	const app = `<!doctype html><img src="/api/call/counter?by=own-img"><form method=post target=f action="/api/call/counter?by=own-form"></form><iframe name=f></iframe><script>
document.forms[0].submit();
fetch('/api/call/counter?by=own-fetch');
fetch('/api/call/counter?by=own-post', {method: 'POST', body: '{}'});
</script>`
	r := newRecorder(t, p.URL, app)
	evil := newSite(t)
	to := "const to = (how) => '" + r.URL + "/api/call/counter?by=' + location.hostname + '-' + how;\n"
	evil.show(map[string]string{"/go": to + "location = to('navigate');", "/": to + `
const add = (tag, attributes) => document.body.appendChild(Object.assign(document.createElement(tag), attributes));
add('img', {src: to('img')});
add('script', {src: to('script')});
add('link', {rel: 'stylesheet', href: to('style')});
add('iframe', {src: to('frame')});
add('video', {src: to('video')});
add('object', {data: to('object')});
add('iframe', {name: 'f'});
for (const method of ['get', 'post']) {
  const form = add('form', {method, target: 'f' + method, action: to('form-' + method)});
  add('iframe', {name: 'f' + method});
  const field = form.appendChild(document.createElement('input'));
  [field.name, field.value] = ['by', location.hostname + '-form-' + method];
  form.submit();
}
fetch(to('cors')).catch(() => {});
fetch(to('no-cors'), {mode: 'no-cors'});
fetch(to('post'), {method: 'POST', mode: 'no-cors', body: '{}'});
fetch(to('include'), {mode: 'no-cors', credentials: 'include'});
fetch('/bounce?to=' + encodeURIComponent(to('redirect')), {mode: 'no-cors'});
navigator.sendBeacon(to('beacon'), 'x');
new EventSource(to('events'));
`})
	// Another site, another name of this machine, and another port of this one.
	for _, name := range []string{"evil.test", "localhost", "127.0.0.1"} {
		var by []string
		for _, how := range []string{"img", "script", "style", "frame", "video", "object", "form-get", "form-post", "cors", "no-cors", "post", "include", "redirect", "beacon", "events", "navigate"} {
			by = append(by, name+"-"+how)
		}
		r.wants(t, http.StatusForbidden, []string{evil.at(name, "/"), evil.at(name, "/go")}, by)
	}
	p.do("GET", "/api/call/counter", "").wants(t, 200, `{"result": []}`)

	own := []string{"own-fetch", "own-form", "own-img", "own-post", "typed"}
	r.wants(t, http.StatusOK, []string{r.URL + "/api/call/counter?by=typed", r.URL + "/app"}, own)
	ran := p.do("GET", "/api/call/counter", "").Body
	for _, by := range own {
		if !strings.Contains(ran, `"`+by+`"`) {
			t.Errorf("%s is not in %s", by, ran)
		}
	}
}

// Pages of the origins that a function lists read its answers and its errors;
// others neither read nor run it.
func TestBrowserCORS(t *testing.T) {
	t.Parallel()
	p := boot(t)
	apps := newSite(t)
	r := newRecorder(t, p.URL, "")
	apps.show(map[string]string{"/": `
const call = async (what, path, options) => {
  let said;
  try {
    const answer = await fetch('` + r.URL + `/api/call/' + path + (path.includes('?') ? '&' : '?') + 'by=' + location.hostname + '-' + what, options);
    const text = await answer.text();
    said = answer.status + ' ' + answer.headers.get('Fob-Error') + ' ' + answer.headers.get('Fob-Version') + ' ' + (answer.headers.get('X-Call-Id') !== null) + ' ' + text;
  } catch (e) { said = 'unreadable'; }
  await report(location.hostname + ' ' + what, said);
};
(async () => {
  await call('get', 'listed');
  await call('post', 'listed', {method: 'POST', body: '{}', headers: {'Content-Type': 'application/json', Authorization: 'Bearer x', 'Fob-Timeout': '5s', 'X-Call-Id': 'mine', traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'}});
  await call('raised', 'listed?fail=1');
  await call('arguments', 'listed?other=1');
  await call('nothing', 'listed@9');
  await call('off', 'off');
  await call('none', 'silent');
  await call('any', 'any');
  await call('put', 'listed', {method: 'PUT', body: 'x'});
  await call('credentials', 'listed', {credentials: 'include'});
  await report(location.hostname, 'done');
})()`})
	const code = `
ran = []
def callme(by, fail=None):
    ran.append(by)
    if fail: raise RuntimeError("broken")
    return ran
`
	allowed := apps.at("app.test", "")
	p.gen("?name=listed&max_scale=1&cors="+url.QueryEscape(allowed+",https://other.example"), code)
	p.gen("?name=off&max_concurrency=0&cors="+url.QueryEscape(allowed), code)
	p.gen("?name=any&max_scale=1&cors=*", code)
	p.gen("?name=silent&max_scale=1", code)
	const unreadable = "unreadable"
	apps.wants(t, apps.at("app.test", "/"), map[string]string{
		"app.test get": `200 null 1 true {"result": ["app.test-get"`, "app.test post": `200 null 1 true {"result": ["app.test-get"`,
		"app.test raised": "500 function 1 true {", "app.test arguments": "404 function 1 true {", "app.test nothing": "404 platform null true {",
		"app.test off": "429 function 1 true {", "app.test any": `200 null 1 true {"result": ["app.test-any"`,
		"app.test none": unreadable, "app.test put": "405 platform 1 true {", "app.test credentials": unreadable, "app.test": "done",
	})
	apps.wants(t, apps.at("evil.test", "/"), map[string]string{
		"evil.test any": `200 null 1 true {"result": ["app.test-any"`, "evil.test": "done",
		"evil.test get": unreadable, "evil.test post": unreadable, "evil.test raised": unreadable, "evil.test arguments": unreadable, "evil.test nothing": unreadable,
		"evil.test off": unreadable, "evil.test none": unreadable, "evil.test put": unreadable, "evil.test credentials": unreadable,
	})
	// The call with credentials was made, for the page is one of the listed; its
	// answer it may not read.
	ran := p.do("GET", "/api/call/listed?by=me", "").Body
	for by, did := range map[string]bool{"app.test-get": true, "app.test-post": true, "app.test-raised": true, "app.test-credentials": true, "evil": false, "put": false} {
		if strings.Contains(ran, by) != did {
			t.Errorf("%s: %v, and it was run by %s", by, !did, ran)
		}
	}
	p.do("GET", "/api/call/silent?by=me", "").wants(t, 200, `{"result": ["me"]}`)
}

// A page that a function answers with is of no origin that the API trusts,
// whatever the function says about it.
func TestBrowserFunctionsPage(t *testing.T) {
	t.Parallel()
	p := boot(t)
	p.gen("?name=counter&max_scale=1", counterCode)
	p.gen("?name=open&max_scale=1&cors=*", counterCode)
	outside := newSite(t)
	script := outside.page(`
(async () => {
  const attempt = async (what, action) => {
    let said;
    try { said = 'done: ' + await action(); } catch (e) { said = 'failed'; }
    await report(KIND + ' ' + what, said);
  };
  const text = async (path, options) => (await fetch(path, options)).text();
  await attempt('call', () => text('/api/call/counter?by=' + KIND + '-fetch'));
  await attempt('post', () => text('/api/call/counter?by=' + KIND + '-post', {method: 'POST', body: '{}'}));
  await attempt('list', () => text('/api/functions'));
  await attempt('code', () => text('/api/cs/counter'));
  await attempt('delete', () => text('/api/functions/counter', {method: 'DELETE'}));
  await attempt('deploy', () => text('/api/gen', {method: 'POST', body: 'def callme(): pass'}));
  await attempt('worker', () => navigator.serviceWorker.register('/api/call/worker'));
  await attempt('storage', () => localStorage.length);
  await attempt('cookie', () => document.cookie);
  await attempt('frame', () => new Promise((resolve, reject) => {
    const frame = document.body.appendChild(document.createElement('iframe'));
    frame.onload = () => { try { resolve(frame.contentDocument.body.innerText.length); } catch (e) { reject(e); } };
    frame.src = '/api/functions';
  }));
  await attempt('open', () => text('/api/call/open?by=' + KIND));
  for (const tag of ['img', 'script', 'iframe']) document.body.appendChild(document.createElement(tag)).src = '/api/call/counter?by=' + KIND + '-' + tag;
  const form = document.body.appendChild(document.createElement('form'));
  [form.method, form.action, form.target] = ['post', '/api/call/counter?by=' + KIND + '-form', 'own'];
  document.body.appendChild(document.createElement('iframe')).name = 'own';
  form.submit();
  window.open('/api/call/counter?by=' + KIND + '-popup');
})()`)
	p.gen("?name=worker", "import fob\ndef callme(): return fob.Response('self.onfetch = () => {}', headers={'Content-Type': 'text/javascript', 'Service-Worker-Allowed': '/'})")
	r := newRecorder(t, p.URL, "")
	svg := func(page string) string {
		_, inner, _ := strings.Cut(page, "<script>")
		inner, _, _ = strings.Cut(inner, "</script>")
		return `<html xmlns="http://www.w3.org/1999/xhtml"><body><script><![CDATA[` + inner + `]]></script></body></html>`
	}
	for kind, c := range map[string]struct{ page, headers string }{
		"html":    {script, `{"Content-Type": "text/html"}`},
		"lax":     {script, `{"Content-Type": "text/html", "Content-Security-Policy": "sandbox allow-scripts allow-same-origin allow-forms allow-popups", "Access-Control-Allow-Origin": "*"}`},
		"twofold": {script, `{"Content-Type": "application/json, text/html"}`},
		"xhtml":   {svg(script), `{"Content-Type": "application/xhtml+xml"}`},
	} {
		page := strings.ReplaceAll(c.page, "KIND", "'"+kind+"'")
		p.gen("?name="+kind, "import fob\ndef callme(): return fob.Response("+fmt.Sprintf("%q", page)+", headers="+c.headers+")")
		want := map[string]string{kind + " open": "done: {"}
		for _, what := range []string{"call", "post", "list", "code", "delete", "deploy", "worker", "storage", "cookie", "frame"} {
			want[kind+" "+what] = "failed"
		}
		outside.wants(t, r.URL+"/api/call/"+kind, want)
		// Popups need a user's click in some browsers; the others are made.
		r.wants(t, http.StatusForbidden, []string{r.URL + "/api/call/" + kind}, []string{kind + "-fetch", kind + "-post", kind + "-img", kind + "-script", kind + "-iframe", kind + "-form"})
	}
	p.do("GET", "/api/call/counter", "").wants(t, 200, `{"result": []}`)
	if got := strings.Count(p.do("GET", "/api/stats", "").Body, "-") / 4; got != 7 {
		t.Errorf("there are %d functions", got)
	}
}

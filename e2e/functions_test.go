package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

func TestPutMakesVersions(t *testing.T) {
	t.Parallel()
	r := boot(t)
	made := r.do("PUT", "/api/functions/greet?timeout=5s&memory=64MB", `def callme(): return "one"`)
	first := show(t, made, 201)
	if first.Name != "greet" || first.Version.Number != 1 || first.Version.Lang != "python" || first.Aliases["live"] != 1 ||
		first.Version.Settings.Timeout != faas.Duration(5*time.Second) || first.Version.Settings.Memory != 64<<20 || first.Version.Size != 26 {
		t.Errorf("the new function is %+v", first)
	}
	if !strings.Contains(made.Body, `"timeout": "5s"`) || !strings.Contains(made.Body, `"memory": "64MB"`) {
		t.Errorf("it is shown as %s", made.Body)
	}
	if location := made.Header.Get("Location"); location != "/api/functions/"+first.ID {
		t.Errorf("Location is %q", location)
	}
	// Settings not given are kept, the language too.
	second := show(t, r.do("PUT", "/api/functions/greet?timeout=6s", `def callme(): return "two"`), 200)
	if second.ID != first.ID || second.Version.Number != 2 || second.Version.Settings.Memory != 64<<20 || second.Version.Settings.Timeout != faas.Duration(6*time.Second) {
		t.Errorf("the second version is %+v", second)
	}
	// By ID, as one document, and in another language.
	third := show(t, r.do("PUT", "/api/functions/"+first.ID, `{"code": "function callme() { return 'three' }", "lang": "node", "concurrency": 2}`), 200)
	if third.Version.Number != 3 || third.Version.Lang != "node" || third.Version.Settings.Memory != 64<<20 || third.Version.Settings.Concurrency != 2 {
		t.Errorf("the third version is %+v", third)
	}
	fourth := show(t, r.do("PATCH", "/api/functions/greet?timeout=7s", `{"memory": "96MB"}`), 200)
	if fourth.Version.Number != 4 || fourth.Version.Digest != third.Version.Digest || fourth.Version.Settings.Timeout != faas.Duration(7*time.Second) || fourth.Version.Settings.Memory != 96<<20 {
		t.Errorf("the patched version is %+v", fourth)
	}
	if shown := show(t, r.do("GET", "/api/functions/greet", ""), 200); len(shown.Versions) != 4 || shown.Versions[0].Number != 4 || shown.Versions[3].Number != 1 {
		t.Errorf("it has the versions %+v, want 4", shown.Versions)
	}
	for ref, want := range map[string]string{
		"greet": "three", "greet:live": "three", "greet@1": "one", "greet@2": "two", "greet@3": "three", "greet@4": "three",
		first.ID: "three", first.ID + "@1": "one", strings.ToUpper(first.ID) + ":live": "three",
	} {
		r.do("GET", "/api/call/"+ref, "").wants(t, 200, `{"result": "`+want+`"}`)
	}
	r.do("GET", "/api/call/greet@5", "").wantsProblem(t, 404, "unknown_function")
	r.do("GET", "/api/call/greet:gold", "").wantsProblem(t, 404, "unknown_function")
	r.do("GET", "/api/cs/greet@2", "").wants(t, 200, `def callme(): return "two"`)
	r.do("GET", "/api/cs/greet", "").wants(t, 200, `function callme() { return 'three' }`)
	if at := show(t, r.do("GET", "/api/functions/greet@2", ""), 200); at.Version.Number != 2 || at.Aliases["live"] != 4 {
		t.Errorf("greet@2 is shown as %+v", at)
	}
	r.do("GET", "/api/stats", "").wants(t, 200, `{"functions": ["`+first.ID+`"]}`)
}

func TestRefusedChanges(t *testing.T) {
	t.Parallel()
	r := boot(t)
	fn := show(t, r.do("PUT", "/api/functions/greet", `def callme(): return 1`), 201)
	const unknown = "00000000-0000-4000-8000-000000000000"
	for _, c := range []struct {
		method, path, body string
		status             int
		code               string
		words              []string
	}{
		{"PUT", "/api/functions/greet", "def callme(:", 422, "does_not_compile", []string{"SyntaxError"}},
		{"PUT", "/api/functions/greet", "x = 1", 422, "does_not_compile", []string{"callme"}},
		{"PUT", "/api/functions/greet", "", 400, "bad_request", []string{"no code"}},
		{"PUT", "/api/functions/greet?memory=1", "def callme(): return 2", 400, "bad_request", []string{"memory", "32MB"}},
		{"PUT", "/api/functions/greet?lang=cobol", "def callme(): return 2", 415, "unknown_language", []string{"cobol", "python", "node"}},
		{"PUT", "/api/functions/greet?name=other", "def callme(): return 2", 400, "bad_request", []string{"name"}},
		{"PUT", "/api/functions/greet@1", "def callme(): return 2", 400, "bad_request", []string{"greet"}},
		{"PUT", "/api/functions/greet:live", "def callme(): return 2", 400, "bad_request", []string{"greet"}},
		{"PUT", "/api/functions/" + unknown, "def callme(): return 2", 404, "unknown_function", []string{unknown}},
		{"PUT", "/api/functions/-greet", "def callme(): return 2", 400, "bad_request", []string{"-greet"}},
		{"POST", "/api/gen?name=greet", "def callme(): return 2", 409, "name_taken", []string{"greet", "PUT"}},
		{"POST", "/api/gen?name=" + unknown, "def callme(): return 2", 400, "bad_request", []string{"looks like"}},
		{"POST", "/api/gen?name=", "def callme(): return 2", 400, "bad_request", []string{"empty"}},
		{"PATCH", "/api/functions/greet", "", 400, "bad_request", []string{"no setting", "memory"}},
		{"PATCH", "/api/functions/greet?colour=red", "", 400, "bad_request", []string{"colour"}},
		{"PATCH", "/api/functions/greet", `{"code": "def callme(): return 2"}`, 400, "bad_request", []string{"code"}},
		{"PATCH", "/api/functions/greet?memory=1GB", `{"memory": "1GB"}`, 400, "bad_request", []string{"memory", "both"}},
		{"PATCH", "/api/functions/nobody?memory=1GB", "", 404, "unknown_function", []string{"nobody"}},
		{"DELETE", "/api/functions/greet@1", "", 400, "bad_request", []string{"greet"}},
		{"DELETE", "/api/functions/nobody", "", 404, "unknown_function", []string{"nobody"}},
		{"GET", "/api/functions/nobody", "", 404, "unknown_function", []string{"nobody"}},
		{"GET", "/api/functions?limit=0", "", 400, "bad_request", []string{"limit"}},
		{"GET", "/api/functions?after=nobody", "", 400, "bad_request", []string{"nobody"}},
		{"POST", "/api/functions/greet", "", 405, "method_not_allowed", []string{"POST", "PUT"}},
		{"GET", "/api/nothing", "", 404, "unknown_route", []string{"/api/nothing"}},
	} {
		p := r.do(c.method, c.path, c.body).wantsProblem(t, c.status, c.code)
		for _, word := range c.words {
			if !strings.Contains(p.Detail, word) {
				t.Errorf("%s %s: the detail %q lacks %q", c.method, c.path, p.Detail, word)
			}
		}
	}
	if now := show(t, r.do("GET", "/api/functions/greet", ""), 200); now.ID != fn.ID || len(now.Versions) != 1 {
		t.Errorf("after all that the function is %+v", now)
	}
	r.do("GET", "/api/call/greet", "").wants(t, 200, `{"result": 1}`)
}

func TestDelete(t *testing.T) {
	t.Parallel()
	r := boot(t)
	fn := show(t, r.do("PUT", "/api/functions/greet", `def callme(): return 1`), 201)
	other := r.gen("", `def callme(): return 2`)
	r.do("DELETE", "/api/functions/greet", "").wants(t, 204, "")
	for _, path := range []string{"/api/call/greet", "/api/call/" + fn.ID, "/api/meta/greet", "/api/cs/" + fn.ID, "/api/functions/greet"} {
		r.do("GET", path, "").wantsProblem(t, 404, "unknown_function")
	}
	r.do("DELETE", "/api/functions/greet", "").wantsProblem(t, 404, "unknown_function")
	r.do("GET", "/api/stats", "").wants(t, 200, `{"functions": ["`+other+`"]}`)
	// The name is free again, for another function.
	again := show(t, r.do("PUT", "/api/functions/greet", `def callme(): return 3`), 201)
	if again.ID == fn.ID || again.Version.Number != 1 {
		t.Errorf("the new function is %+v", again)
	}
	r.do("GET", "/api/call/greet", "").wants(t, 200, `{"result": 3}`)
}

func TestPages(t *testing.T) {
	t.Parallel()
	r := boot(t)
	var want []string
	for n := range 7 {
		want = append(want, r.gen(fmt.Sprint("?name=f", n), "def callme(): pass"))
	}
	// pages lists the functions in pages of 2, to whoever has that token, and does
	// something between them.
	pages := func(token string, between func(page api.Functions)) (got []string) {
		t.Helper()
		path := "/api/functions?limit=2"
		for pages := 0; ; pages++ {
			var page api.Functions
			a := r.as(token, "GET", path, "")
			if err := json.Unmarshal([]byte(a.Body), &page); err != nil || a.Status != 200 || pages > 3 {
				t.Fatalf("page %d is %d %s", pages, a.Status, a.Body)
			}
			for _, fn := range page.Functions {
				got = append(got, fn.ID)
			}
			if page.Next == nil {
				return got
			}
			between(page)
			path = "/api/functions?limit=2&after=" + url.QueryEscape(*page.Next)
		}
	}
	if got := pages("", func(api.Functions) {}); !slices.Equal(got, want) {
		t.Errorf("the pages list %v, want %v", got, want)
	}
	// Who deletes what it lists sees all the same, limited or not.
	drop := func(page api.Functions) {
		for _, fn := range page.Functions {
			r.local("DELETE", "/api/functions/"+fn.ID, "")
		}
	}
	limited := r.token("read:f0", "read:f2", "read:f3", "read:f6").Secret
	for query, want := range map[string][]string{"name=f": {want[0], want[2], want[3], want[6]}, "name=f2": {want[2]}, "name=f1": {}, "name=g": {}} {
		var page api.Functions
		a := r.as(limited, "GET", "/api/functions?"+query, "")
		if err := json.Unmarshal([]byte(a.Body), &page); err != nil || a.Status != 200 || page.Next != nil {
			t.Fatalf("%s is %d %s", query, a.Status, a.Body)
		}
		got := []string{}
		for _, fn := range page.Functions {
			got = append(got, fn.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s shows %v to whoever may see some, want %v", query, got, want)
		}
	}
	if got := pages(limited, drop); !slices.Equal(got, []string{want[0], want[2], want[3], want[6]}) {
		t.Errorf("whoever may see some is shown %v of %v", got, want)
	}
	for n := range 7 {
		r.local("PUT", fmt.Sprint("/api/functions/f", n), "def callme(): pass")
	}
	all := r.token("read").Secret
	if got := pages(all, drop); len(got) != 7 {
		t.Errorf("of 7 that are deleted meanwhile %v are shown", got)
	}
}

func TestMetaBeforeAndAfter(t *testing.T) {
	t.Parallel()
	r := boot(t)
	flag := filepath.Join(t.TempDir(), "go on")
	id := r.gen("", fmt.Sprintf("import os, time\ndef callme():\n  while not os.path.exists(%q): time.sleep(0.01)\n  return 0", flag))
	w := r.meta(id)
	if w.Host == nil || *w.Host != "127.0.0.1" || w.Port == nil || *w.Port == 0 || len(w.Sandboxes) != 1 || w.Sandboxes[0].State != "ready" || w.Sandboxes[0].Started.IsZero() {
		t.Errorf("meta of a function at rest is %+v", w)
	}
	done := make(chan answered, 1)
	go func() {
		a, err := r.try("GET", "/api/call/"+id, "")
		if err != nil {
			t.Error(err)
		}
		done <- a
	}()
	eventually(t, time.Minute, "the sandbox is busy", func() bool {
		w := r.meta(id)
		return len(w.Sandboxes) == 1 && w.Sandboxes[0].State == "busy" && w.Sandboxes[0].InFlight == 1
	})
	// A new version's meta is its own; the old one's tells where the call runs.
	r.do("PUT", "/api/functions/"+id+"?idle_timeout=1ms", "def callme(): return 1")
	eventually(t, time.Minute, "no sandbox is left", func() bool {
		w := r.meta(id)
		return w.Host == nil && w.Port == nil && len(w.Sandboxes) == 0
	})
	if a := r.do("GET", "/api/meta/"+id, ""); a.Body != `{"host": null, "port": null, "sandboxes": []}` {
		t.Errorf("meta of a function that runs nowhere is %s", a.Body)
	}
	if w := r.meta(id + "@1"); len(w.Sandboxes) != 1 || w.Sandboxes[0].State != "busy" {
		t.Errorf("meta of the old version is %+v", w)
	}
	r.do("GET", "/api/call/"+id, "").wants(t, 200, `{"result": 1}`)
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	(<-done).wants(t, 200, `{"result": 0}`)
}

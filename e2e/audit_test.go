package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/audit"
	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/httpapi"
)

// auditText is what the audit log of a data folder has, line by line.
func auditText(t *testing.T, data string) string {
	t.Helper()
	var text strings.Builder
	err := audit.Read(data, faas.AuditQuery{Limit: 1 << 30}, func(err error) { t.Error(err) }, func(line []byte) error {
		text.Write(line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// auditEntries is the same as entries.
func auditEntries(t *testing.T, data string) []faas.AuditEntry {
	t.Helper()
	var all []faas.AuditEntry
	for line := range strings.Lines(auditText(t, data)) {
		var entry faas.AuditEntry
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		all = append(all, entry)
	}
	return all
}

// audited is what a request to each route that changes something must leave in
// the audit log. The requests are made in this order.
var audited = []struct {
	route   string
	request string // of the route, when that alone is none
	body    string
	want    faas.AuditEntry // and who, from where, when
}{
	{"POST /api/gen", "POST /api/gen?name=one&memory=64MB", "def callme(): return 'canary'", faas.AuditEntry{Action: "function.create", Name: "one", Version: 1}},
	{"PUT /api/functions/{ref}", "PUT /api/functions/one", "def callme(): return 'canary 2'", faas.AuditEntry{Action: "function.put", Name: "one", Version: 2}},
	{"PATCH /api/functions/{ref}", "PATCH /api/functions/one?memory=65MB", "", faas.AuditEntry{Action: "function.patch", Name: "one", Version: 3}},
	{"PUT /api/secrets/{name}", "PUT /api/secrets/KEY?functions=one", "canary 3", faas.AuditEntry{Action: "secret.put", Name: "KEY", Version: 1}},
	{"POST /api/secrets/rotate-key", "", "", faas.AuditEntry{Action: "secret.rotate_key"}},
	{"DELETE /api/secrets/{name}", "DELETE /api/secrets/KEY", "", faas.AuditEntry{Action: "secret.delete", Name: "KEY"}},
	{"DELETE /api/functions/{ref}", "DELETE /api/functions/one", "", faas.AuditEntry{Action: "function.delete", Name: "one", Version: 3}},
}

// changes reports whether a route changes something; calls are not audited.
func changes(method, route string) bool {
	return method != http.MethodGet && method != http.MethodHead && method != http.MethodOptions && !strings.HasPrefix(route, "/api/call/{ref}")
}

// TestAuditEveryChange makes each change that there is a route for, and finds it
// in the log, and no value of it.
func TestAuditEveryChange(t *testing.T) {
	t.Parallel()
	r := boot(t)
	data := r.Data
	listed := []string{}
	for _, c := range audited {
		listed = append(listed, c.route)
		before := len(auditEntries(t, data))
		if c.request == "" {
			c.request = c.route
		}
		method, path, _ := strings.Cut(c.request, " ")
		if a := r.do(method, path, c.body); a.Status/100 != 2 {
			t.Fatalf("%s: %d %s", c.request, a.Status, a.Body)
		}
		all := auditEntries(t, data)
		if len(all) != before+1 {
			t.Fatalf("%s left %d entries", c.request, len(all)-before)
		}
		got, want := all[before], c.want
		if since := time.Since(got.Time); since < 0 || since > time.Minute || !strings.HasPrefix(got.From, "127.0.0.1:") || got.ID == "" && got.Name == "" {
			t.Errorf("%s left %+v", c.request, got)
		}
		want.Seq, want.Time, want.ID, want.From, want.Who, want.Outcome = uint64(before+1), got.Time, got.ID, got.From, "anonymous", "ok"
		if got != want {
			t.Errorf("%s left %+v, want %+v", c.request, got, want)
		}
	}
	// Tokens: whoever shows one is named from then on.
	before := len(auditEntries(t, data))
	var made api.MadeToken
	if a := r.do("POST", "/api/tokens", `{"name": "ann", "grants": ["admin"]}`); json.Unmarshal([]byte(a.Body), &made) != nil || a.Status != 201 {
		t.Fatalf("making a token: %d %s", a.Status, a.Body)
	}
	r.as(made.Secret, "DELETE", "/api/tokens/0123456789abcdef", "").wantsProblem(t, 404, "unknown_token")
	r.as("", "DELETE", "/api/functions/one", "").wantsProblem(t, 401, "unauthorized")
	r.as(made.Secret, "DELETE", "/api/tokens/"+made.ID, "").wants(t, 204, "")
	listed = append(listed, "POST /api/tokens", "DELETE /api/tokens/{id}")
	var got []string
	for _, entry := range auditEntries(t, data)[before:] {
		got = append(got, strings.Join([]string{entry.Who, entry.Action, entry.ID, entry.Name, entry.Request, entry.Outcome}, "|"))
	}
	ann := "token " + made.ID + " (ann)"
	if want := []string{
		"anonymous|token.create|" + made.ID + "|ann||ok",
		ann + "|token.revoke|0123456789abcdef||DELETE /api/tokens/0123456789abcdef|unknown_token",
		"anonymous|refused|||DELETE /api/functions/one|unauthorized",
		ann + "|token.revoke|" + made.ID + "|||ok",
	}; !slices.Equal(got, want) {
		t.Errorf("tokens left\n%q, want\n%q", got, want)
	}
	there := []string{}
	for _, rt := range httpapi.Routes() {
		if changes(rt.Method, rt.Path) {
			there = append(there, rt.Method+" "+rt.Path)
		}
	}
	slices.Sort(listed)
	slices.Sort(there)
	if !slices.Equal(listed, there) {
		t.Errorf("the routes that change something are\n%v\nand those of the test\n%v", there, listed)
	}
	text := auditText(t, data)
	for _, value := range []string{made.Secret, "admin", "canary", "callme", "64MB", "65MB", "memory"} {
		if strings.Contains(text, value) {
			t.Errorf("the log has the value %s", value)
		}
	}
	// Calls, and what only asks, leave none.
	r.gen("?name=two", "def callme(): return 1")
	before = len(auditEntries(t, data))
	for _, path := range []string{"/api/call/two", "/api/call/nobody", "/api/stats", "/api/cs/two", "/api/audit", "/api/functions"} {
		r.do("GET", path, "")
	}
	if n := len(auditEntries(t, data)); n != before {
		t.Errorf("calls and questions left %d entries", n-before)
	}
}

// Whatever a client calls things, an entry is a line that can be printed.
func TestAuditHostileNames(t *testing.T) {
	t.Parallel()
	r := boot(t)
	data := r.Data
	hostile := []string{"\x1b[2J\x1b[31m", "a\r\n{\"seq\":99}\n", "\x00", "\u202e", "\u2028", strings.Repeat("x", 5000), "\xff", "\x7f\u0085"}
	for _, name := range hostile {
		r.do("POST", "/api/gen?name="+url.QueryEscape(name), "def callme(): pass").wantsProblem(t, 400, "bad_request")
	}
	time.Sleep(1100 * time.Millisecond) // that many are written a second
	for _, name := range hostile {
		r.do("DELETE", "/api/functions/"+url.PathEscape(name), "").wantsProblem(t, 400, "bad_request")
	}
	r.terminate() // what failed is written some time later
	for _, c := range auditText(t, data) {
		if c != '\n' && (c < ' ' || c > '~') && c != '…' {
			t.Errorf("the log has the character %U", c)
		}
	}
	all := auditEntries(t, data)
	if len(all) != 2*len(hostile) {
		t.Fatalf("there are %d entries, want %d", len(all), 2*len(hostile))
	}
	for i, entry := range all {
		if entry.Seq != uint64(i+1) || entry.Outcome != "bad_request" || len(entry.Name) > 300 || len(entry.Request) > 300 {
			t.Errorf("an entry is %+v", entry)
		}
	}
}

// TestAuditSurvivesKills kills the dispatcher while changes are made. Each that
// was acknowledged is in the log.
func TestAuditSurvivesKills(t *testing.T) {
	t.Parallel()
	data := shortDir(t)
	settings := []string{"FOB_DATA=" + data, "FOB_POOL=python=1,node=0"}
	acknowledged := map[string]int{} // versions by name
	for round := range 4 {
		p := boot(t, settings...)
		var mu sync.Mutex
		var clients sync.WaitGroup
		for client := range 3 {
			clients.Go(func() {
				for n := 0; ; n++ {
					name := fmt.Sprintf("f%d-%d-%d", round, client, n)
					a, err := p.try("PUT", "/api/functions/"+name+"?max_concurrency=1", "def callme(): pass")
					if err != nil {
						return
					}
					if a.Status == 201 {
						mu.Lock()
						acknowledged[name]++
						mu.Unlock()
					}
					a, err = p.try("DELETE", "/api/functions/"+name, "")
					if err != nil {
						return
					}
					if a.Status == 204 {
						mu.Lock()
						acknowledged[name]++
						mu.Unlock()
					}
				}
			})
		}
		eventually(t, time.Minute, "some changes are acknowledged", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(acknowledged) >= 4*(round+1)
		})
		time.Sleep(rand.N(500 * time.Millisecond))
		p.kill()
		clients.Wait()
	}
	recorded := map[string]int{}
	for _, entry := range auditEntries(t, data) {
		if entry.Outcome == "ok" {
			recorded[entry.Name]++
		}
	}
	n := 0
	for name, changes := range acknowledged {
		n += changes
		if recorded[name] < changes {
			t.Errorf("of %s %d changes are acknowledged, and %d are in the log", name, changes, recorded[name])
		}
	}
	t.Logf("%d changes were acknowledged in 4 lives", n)
	if n < 10 {
		t.Errorf("only %d changes were acknowledged", n)
	}
	p := bootUnready(t, settings...) // clears what the killed ones left
	p.awaitReady(time.Minute)
	p.terminate()
}

// TestAuditCommand prints the log as the program does, of the data folder and
// of a dispatcher, and with none running.
func TestAuditCommand(t *testing.T) {
	t.Parallel()
	data := shortDir(t)
	settings := []string{"FOB_DATA=" + data, "FOB_POOL=python=1,node=0"}
	p := boot(t, settings...)
	p.gen("?name=hello", "def callme(): pass")
	p.do("DELETE", "/api/functions/nobody", "").wantsProblem(t, 404, "unknown_function")
	// What was not done is written soon, not before the answer.
	eventually(t, time.Minute, "the last entry, over the control socket, is the refused deletion", func() bool {
		return strings.Contains(p.local("GET", "/api/audit?limit=1", ""), `"seq":2`)
	})
	run := func(args ...string) string {
		t.Helper()
		return mustCommand(t, data, append([]string{"audit"}, args...)...)
	}
	plain := run()
	if n := strings.Count(plain, "\n"); n != 2 || !strings.Contains(plain, "  ok                function.create  anonymous from 127.0.0.1:") ||
		!strings.Contains(plain, "hello (") || !strings.Contains(plain, "  unknown_function  function.delete  anonymous") || !strings.Contains(plain, "nobody [DELETE /api/functions/nobody]") {
		t.Errorf("it is\n%s", plain)
	}
	raw := auditText(t, data)
	for _, args := range [][]string{{"--json"}, {"--json", "--since=1h"}, {"--json", "--url=" + p.URL}, {"--json", "--since=1h", "--url=" + p.URL}} {
		if got := run(args...); got != raw {
			t.Errorf("%v gives\n%s, and the log is\n%s", args, got, raw)
		}
	}
	if got := run("--since=1ms"); got != "" {
		t.Errorf("of the last millisecond there is %s", got)
	}

	// What comes later comes at once, through the dispatcher's end and start.
	follow := commandOf([]string{"FOB_DATA=" + data}, "audit", "--follow", "--json")
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { follow.Process.Kill(); follow.Wait() }()
	lines := bufio.NewScanner(out)
	next := func(seq uint64) {
		t.Helper()
		var entry faas.AuditEntry
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &entry) != nil || entry.Seq != seq {
			t.Fatalf("the next is %q, want the entry %d", lines.Text(), seq)
		}
	}
	next(1)
	next(2)
	p.do("DELETE", "/api/functions/hello", "").wants(t, 204, "")
	next(3)
	p.terminate()
	if got := run(); strings.Count(got, "\n") != 3 {
		t.Errorf("with none running it is\n%s", got)
	}
	p = boot(t, settings...)
	p.gen("?name=hello", "def callme(): pass")
	next(4)
	p.terminate()
}

// TestAuditOfEarlierVersion starts on the data folder of a version whose log was a
// file of lines: they are read on, and the next entry comes behind them.
func TestAuditOfEarlierVersion(t *testing.T) {
	t.Parallel()
	data := shortDir(t)
	if err := os.CopyFS(data, os.DirFS("../internal/audit/testdata/lines")); err != nil {
		t.Fatal(err)
	}
	r := boot(t, "FOB_DATA="+data)
	r.gen("?name=one", "def callme(): pass")
	all := auditEntries(t, data)
	if n := len(all); n != 51 || all[0].Seq != 1 || all[n-2].Seq != 52 || all[n-1].Seq != 53 || all[n-1].Name != "one" {
		t.Errorf("there are %d entries, the last %+v", n, all[n-1])
	}
	text := auditText(t, data)
	for path, want := range map[string]string{
		"/api/audit":                            text,
		"/api/audit?after=0&limit=1":            text[:strings.Index(text, "\n")+1],
		"/api/audit?after=51":                   text[strings.Index(text, `{"seq":52,`):],
		"/api/audit?limit=1":                    text[strings.Index(text, `{"seq":53,`):],
		"/api/audit?after=53":                   "",
		"/api/audit?since=2026-01-01T00:00:00Z": text,
	} {
		if a := r.do("GET", path, ""); a.Status != 200 || a.Body != want {
			t.Errorf("GET %s answers %d\n%s, want\n%s", path, a.Status, a.Body, want)
		}
	}
}

// TestAuditStandby: who does not serve writes no entry.
func TestAuditStandby(t *testing.T) {
	t.Parallel()
	r := boot(t)
	data := r.Data
	second := bootUnready(t, "FOB_DATA="+data, "FOB_STANDBY=true")
	second.awaitStandby()
	r.gen("?name=one", "def callme(): pass")
	second.do("DELETE", "/api/functions/one", "").wantsProblem(t, 503, "standby")
	second.do("GET", "/api/audit", "").wantsProblem(t, 503, "standby")
	r.terminate()
	second.awaitReady(time.Minute)
	second.do("DELETE", "/api/functions/one", "").wants(t, 204, "")
	var done []string
	for _, entry := range auditEntries(t, data) {
		done = append(done, fmt.Sprint(entry.Seq, entry.Action))
	}
	if want := []string{"1function.create", "2function.delete"}; !slices.Equal(done, want) {
		t.Errorf("the log has %v, want %v", done, want)
	}
}

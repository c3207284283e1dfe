package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/client"
	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/httpapi"
	"github.com/flockofbirds/fob/internal/pages"
)

// probe is what a request to a route has that does not follow from its row.
type probe struct {
	query, body string
	name        string // of the secret; SET when it is not said
	allowed     int    // the status when it is let in; the first that the row gives when it is not said
	fresh       bool   // the function hello must not be there yet
}

const accessCode = "def callme(): return 1\n"

var probes = map[string]probe{
	"POST /api/gen":              {query: "?name=hello", body: accessCode, fresh: true},
	"PUT /api/functions/{ref}":   {body: accessCode},
	"PATCH /api/functions/{ref}": {query: "?timeout=7s"},
	"PUT /api/secrets/{name}":    {body: "x"},
	"GET /api/calls/{id}":        {allowed: 404},
	"DELETE /api/secrets/{name}": {name: "UNSET", allowed: 404},
	"POST /api/tokens":           {body: `{"name": "eve", "grants": ["read"]}`},
	"GET /":                      {allowed: 404}, // for it does not ask for HTML
	"GET /page/{file}":           {allowed: 404},
}

// probeOf returns a request to a route: about the function hello, the secret SET
// or the token VICTIM.
func probeOf(rt *httpapi.Route, method string) (path string, p probe) {
	p = probes[rt.Method+" "+rt.Path]
	if p.name == "" {
		p.name = "SET"
	}
	if p.allowed == 0 {
		p.allowed = slices.Min(slices.Collect(maps.Keys(rt.Gives)))
	}
	if rt.Scope == faas.ScopeInvoke && !slices.Contains([]string{"GET", "HEAD", "POST"}, method) {
		p.allowed = 405 // for hello does not take the request
	}
	return strings.NewReplacer("{ref}", "hello", "*", "", "{name}", p.name, "{id}", "VICTIM").Replace(rt.Path) + p.query, p
}

// prober asks as somebody, from an address of its own that it changes now and
// then: only so many requests that are refused are answered to one.
type prober struct {
	name   string
	scope  string // "open", or the one that its token has
	span   string // of a token: "all", "named" or "other"
	bearer func() string
	client *http.Client
	number byte
	asked  int
}

func newProber(n byte, scope, span string, bearer func() string) *prober {
	p := &prober{name: scope + " " + span, scope: scope, span: span, bearer: bearer, number: n}
	p.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		place := p.asked / 40
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, p.number, byte(place>>8), byte(1+place%254))}}
		return from.DialContext(ctx, network, address)
	}}}
	return p
}

func (p *prober) ask(t *testing.T, method, url, body string, header ...string) answered {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if p.asked++; p.asked%40 == 0 {
		p.client.CloseIdleConnections()
	}
	if bearer := p.bearer(); bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := p.client.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answered{client.Answer{Status: response.StatusCode, Header: response.Header, Body: string(content)}}
}

// want is the status that a cell of the table comes to for somebody.
func (p *prober) want(t *testing.T, cell string, allowed int) int {
	t.Helper()
	switch cell {
	case "yes":
		return allowed
	case "no", "public": // and hello is not public
		return 401
	case "sandbox":
		if p.span == "sandbox" {
			return allowed
		}
		return 401
	case "–":
		return 403
	case "listed":
		return allowed
	case "one", "named", "all":
		if p.span == "all" || p.span == "named" && cell != "all" {
			return allowed
		}
		if cell == "one" {
			return 404
		}
		return 403
	}
	t.Fatalf("the table says %q, which means nothing", cell)
	return 0
}

// probers are all kinds of callers that the table of SECURITY.md tells apart.
func probers(t *testing.T, r *dispatcher) []*prober {
	t.Helper()
	expired, err := r.owner.MakeToken("test", "3s", "admin") // less than a busy machine takes is refused as over already
	if err != nil {
		t.Fatal(err)
	}
	constant := func(text string) func() string { return func() string { return text } }
	all := []*prober{
		newProber(1, "open", "nobody", constant("")),
		newProber(2, "open", "bad", constant("fob_0123456789abcdef_"+strings.Repeat("0", 64))),
		newProber(3, "open", "foreign", constant("theirs")),
		newProber(4, "open", "expired", constant(expired.Secret)),
		newProber(5, "open", "sandbox", func() string { return r.sandboxToken("hello") }),
	}
	for _, scope := range faas.Scopes() {
		for span, of := range map[string]string{"all": "", "named": ":hello", "other": ":other"} {
			all = append(all, newProber(byte(len(all)+1), string(scope), span, constant(r.token(string(scope)+of).Secret)))
		}
	}
	time.Sleep(time.Until(expired.Expires))
	return all
}

// TestAccess asks every route as everybody, and compares with what the table in
// SECURITY.md says.
func TestAccess(t *testing.T) {
	t.Parallel()
	r := boot(t)
	for _, name := range []string{"hello", "other", "open"} {
		r.local("PUT", "/api/functions/"+name, accessCode)
	}
	r.local("PATCH", "/api/functions/open?public=true", "")
	r.local("PUT", "/api/secrets/SET", "x")
	everybody := probers(t, r)
	columns := []string{"open", "invoke", "read", "deploy", "admin"}
	table := pages.Table(t, "SECURITY.md", append([]string{"route"}, columns...)...)

	for _, rt := range httpapi.Routes() {
		row := slices.IndexFunc(table, func(row []string) bool { return row[0] == "`"+rt.Method+" "+rt.Path+"`" })
		if row < 0 {
			t.Fatalf("SECURITY.md does not say who may %s %s", rt.Method, rt.Path)
		}
		cells := table[row][1:]
		for _, method := range rt.Methods() {
			for _, who := range everybody {
				r.probe(t, &rt, method, who, cells[slices.Index(columns, who.scope)])
			}
		}
	}
	// Without any token, everything is open again.
	r.revokeAll(t)
	for _, who := range everybody {
		who.ask(t, "GET", r.URL+"/metrics", "")
		if got := who.ask(t, "GET", r.URL+"/api/functions/other", ""); got.Status != 200 {
			t.Errorf("with no token left, %s hears %d %s", who.name, got.Status, got.Body)
		}
	}
}

// probe asks a route as somebody, for whom its cell of the table says what is to
// come of it.
func (r *dispatcher) probe(t *testing.T, rt *httpapi.Route, method string, who *prober, cell string) {
	t.Helper()
	path, about := probeOf(rt, method)
	there := strings.Contains(r.local("GET", "/api/functions", ""), `"name": "hello"`)
	switch wanted := !about.fresh || who.span == "sandbox"; { // which is that of hello
	case wanted && !there:
		r.local("PUT", "/api/functions/hello", accessCode)
	case !wanted && there:
		r.local("DELETE", "/api/functions/hello", "")
	}
	if prefix, is := strings.CutSuffix(path, "VICTIM"); is {
		path = prefix + r.token("read").ID
	}
	if got, want := who.ask(t, method, r.URL+path, about.body), who.want(t, cell, about.allowed); got.Status != want {
		t.Errorf("%s %s by %s: %d %.300s, and the table's %s means %d", method, path, who.name, got.Status, got.Body, cell, want)
	}
	if rt.Scope != faas.ScopeInvoke {
		return
	}
	// On the way through net/http and the router; and a public function.
	odd := strings.Replace(path, "hello", "hell%6f", 1)
	if got, want := who.ask(t, method, r.URL+odd, about.body), who.want(t, cell, about.allowed); got.Status != want {
		t.Errorf("%s %s by %s: %d %.300s, and the table's %s means %d", method, odd, who.name, got.Status, got.Body, cell, want)
	}
	for _, ref := range []string{"open", "open@1", "ope%6e"} { // its first version was not public
		if got := who.ask(t, method, r.URL+"/api/call/"+ref, about.body); got.Status != about.allowed {
			t.Errorf("calling %s, which is public, by %s: %d %s", ref, who.name, got.Status, got.Body)
		}
	}
}

// revokeAll revokes all tokens.
func (r *dispatcher) revokeAll(t *testing.T) {
	t.Helper()
	var list api.Tokens
	if err := json.Unmarshal([]byte(r.local("GET", "/api/tokens", "")), &list); err != nil {
		t.Fatal(err)
	}
	for _, one := range list.Tokens {
		r.local("DELETE", "/api/tokens/"+one.ID, "")
	}
}

// TestForbiddenLooksMissing compares the answers about a function that somebody
// may know nothing of with those about one that is not there: status, header and
// body, but for its name.
func TestForbiddenLooksMissing(t *testing.T) {
	t.Parallel()
	r := boot(t, "FOB_MAX_BODY=64KB")
	var hidden api.Registered
	if err := json.Unmarshal([]byte(r.local("PUT", "/api/functions/secret", accessCode)), &hidden); err != nil {
		t.Fatal(err)
	}
	r.local("PATCH", "/api/functions/secret?timeout=7s", "")
	for _, name := range []string{"hello", "mine"} {
		r.local("PUT", "/api/functions/"+name, accessCode)
	}
	mine := newProber(100, "own", "mine", func() string { return "" })
	grants := r.token("invoke:mine", "read:mine", "deploy:mine", "admin:gone", "read:"+nobody[:35]+"1")
	mine.bearer = func() string { return grants.Secret }
	var everybody []*prober
	for _, who := range append(probers(t, r), mine) {
		if who.span == "sandbox" {
			token := who.bearer()
			who.bearer = func() string { return token }
		}
		if who.span != "all" { // who may know
			everybody = append(everybody, who)
		}
	}
	upper := strings.ToUpper(hidden.ID)
	big := strings.Repeat("x", 70<<10)
	type question struct {
		method, path, body string
		header             []string
	}
	var questions []question
	for _, suffix := range []string{"", "@1", "@2", "@99", ":live", ":blue", "@0", "@1?a:1", "?a=1&a=1", "?a:1,", "/more", "%20"} {
		for _, method := range []string{"GET", "POST", "DELETE", "HEAD", "PUT"} {
			questions = append(questions, question{method, "/api/call/NAME" + suffix, "", nil})
		}
		for _, method := range []string{"GET", "PUT", "PATCH", "DELETE", "POST", "HEAD", "OPTIONS"} {
			questions = append(questions, question{method, "/api/functions/NAME" + suffix, "", nil})
		}
		questions = append(questions, question{"GET", "/api/meta/NAME" + suffix, "", nil}, question{"GET", "/api/cs/NAME" + suffix, "", nil}, question{"POST", "/api/cs/NAME" + suffix, "", nil})
	}
	for _, body := range []string{"{}", "[1", `{"a": 1}`, "\xff\xfe", big} {
		questions = append(questions, question{"POST", "/api/call/NAME", body, nil}, question{"POST", "/api/call/NAME@7", body, nil})
	}
	questions = append(questions,
		question{"GET", "/api/call/NAME", "", []string{"Fob-Timeout", "soon"}},
		question{"GET", "/api/call/NAME", "", []string{"Fob-Timeout", "1s"}},
		question{"GET", "/api/call/N%41ME", "", nil},
		question{"POST", "/api/gen?name=NAME", accessCode, nil},
		question{"POST", "/api/gen", `{"code": "def callme(): pass", "name": "NAME"}`, nil},
		question{"GET", "/api/functions?after=NAME", "", nil},
		question{"GET", "/api/functions?after=NAME&limit=1", "", nil},
		question{"GET", "/api/functions?name=NAME", "", nil},
	)
	for _, body := range []string{accessCode, "def callme(:", `{"code": 1}`, "", big} {
		for _, query := range []string{"", "?colour=blue", "?timeout=-1", "?lang=cobol", "?name=mine", "?name=NAME", "?memory=1TB"} {
			questions = append(questions, question{"PUT", "/api/functions/NAME" + query, body, nil})
		}
	}
	for _, query := range []string{"?timeout=7s", "?timeout=-1", "?colour=blue", "?public=true"} {
		questions = append(questions, question{"PATCH", "/api/functions/NAME" + query, "", nil}, question{"PATCH", "/api/functions/NAME" + query, "{", nil})
	}
	differ := 0
	for _, who := range everybody {
		for _, q := range questions {
			for there, missing := range map[string]string{"secret": "nobody", hidden.ID: nobody, upper: strings.ToUpper("a0000000-0000-4000-8000-00000000000b")} {
				ask := func(name string) (status int, told string) {
					path := strings.NewReplacer("NAME", name, "N%41ME", name[:1]+fmt.Sprintf("%%%x", name[1])+name[2:]).Replace(q.path)
					a := who.ask(t, q.method, r.URL+path, strings.ReplaceAll(q.body, "NAME", name), append(q.header, "X-Call-Id", "same")...)
					a.Header.Del("Date")
					a.Header.Del("Traceparent") // random
					told = fmt.Sprintf("%d %v %s", a.Status, a.Header, a.Body)
					for _, written := range []string{name, strings.ToLower(name), path} {
						told = strings.ReplaceAll(told, written, "NAME")
					}
					return a.Status, told
				}
				status, one := ask(there)
				_, other := ask(missing)
				if one != other {
					t.Errorf("%s: %s %s of %.40q tells\n%s\nof what there is, and\n%s\nof what there is not", who.name, q.method, q.path, q.body, one, other)
					if differ++; differ > 10 {
						t.FailNow()
					}
				}
				if status < 400 && !strings.HasPrefix(q.path, "/api/functions?") {
					t.Errorf("%s: %s %s was answered %s", who.name, q.method, q.path, one)
				}
			}
		}
	}
	// What is missing is said in the words that everybody hears.
	missing := mine.ask(t, "GET", r.URL+"/api/call/secret", "", "X-Call-Id", "same").Body
	if everywhere := r.as(r.token("admin").Secret, "GET", "/api/call/nobody", ""); strings.Replace(missing, "secret", "nobody", 1) !=
		strings.Replace(everywhere.Body, everywhere.Header.Get("X-Call-Id"), "same", 1) {
		t.Errorf("a token for some hears\n%s\nand one for all\n%s", missing, everywhere.Body)
	}
	// Lists have nothing that is not to be seen, and page as if it were not there.
	var page api.Functions
	two := newProber(101, "own", "two", func() string { return "" })
	both := r.token("read:mine", "admin:hello", "read:gone", "invoke")
	two.bearer = func() string { return both.Secret }
	var names []string
	for after := ""; ; after = "&after=" + *page.Next {
		page.Next = nil
		got := two.ask(t, "GET", r.URL+"/api/functions?limit=1"+after, "")
		if err := json.Unmarshal([]byte(got.Body), &page); err != nil || len(page.Functions) != 1 {
			t.Fatalf("answered %d %s", got.Status, got.Body)
		}
		names = append(names, page.Functions[0].Name)
		if page.Next == nil {
			break
		}
	}
	if got := strings.Join(names, " "); got != "hello mine" {
		t.Errorf("the list has %s", got)
	}
	var stats api.IDs
	if got := two.ask(t, "GET", r.URL+"/api/stats", ""); json.Unmarshal([]byte(got.Body), &stats) != nil || len(stats.Functions) != 2 || slices.Contains(stats.Functions, hidden.ID) {
		t.Errorf("the list of IDs is %s", got.Body)
	}
}

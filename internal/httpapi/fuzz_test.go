package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/faas"
)

// FuzzParseArgs: arguments are what the query says, in either form, and fit a
// header.
func FuzzParseArgs(f *testing.F) {
	for _, seed := range []string{
		"", "a=1", "a:1", "a=1&b=2", "a:1,b:2", "a=1&a=2", "a:x:y,b:%2C", "a=b:c", "a:b=c", "%61=%C3%A4", "a=%ff", "a=%zz", "+=+", "a:+", "&&&", "a", "a,b:1", "=1", ":1", "a=\u202e\U0001f426", "a=\"\\\x7f\x00", ",", "a:1,", "a=1;b=2",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		out, err := parseArgs(query)
		if err != nil {
			if code := faas.CodeOf(err); out != nil || code != faas.CodeBadRequest && (code != faas.CodeTooLarge || len(query) <= maxQuery) {
				t.Fatalf("%q: %s with %v", query, out, err)
			}
			return
		}
		if len(out) == 0 {
			if strings.Trim(query, "&") != "" {
				t.Fatalf("%q has no arguments", query)
			}
			return
		}
		for _, c := range out {
			if c < ' ' || c >= 0x7f {
				t.Fatalf("%q became %q", query, out)
			}
		}
		var args arguments
		d := json.NewDecoder(bytes.NewReader(out))
		if err := d.Decode(&args); err != nil || d.More() {
			t.Fatalf("%q became %s: %v", query, out, err)
		}
		if len(args) > maxArgs {
			t.Fatalf("%d arguments", len(args))
		}
		i := strings.IndexAny(query, ":=")
		if form := i < 0 || query[i] == '='; form && !strings.Contains(query, ";") {
			values, err := url.ParseQuery(query)
			if err != nil {
				t.Fatalf("%q became %s, and net/url says %v", query, out, err)
			}
			want := make(arguments)
			for name, all := range values {
				bare := strings.TrimSuffix(name, "[]")
				want[bare] = append(want[bare], all...)
			}
			if !args.equal(want) {
				t.Fatalf("%q became %q, and is %q for net/url", query, args, want)
			}
		}
		// The same, written in either form, says the same.
		values, colons := make(url.Values), make([]string, 0)
		for name, all := range args {
			name += "[]"
			for _, value := range all {
				values.Add(name, value)
				colons = append(colons, escapeAll(name)+":"+escapeAll(value))
			}
		}
		for _, again := range []string{values.Encode(), strings.Join(colons, ",")} {
			if len(again) > maxQuery {
				continue
			}
			out, err := parseArgs(again)
			if strings.Count(again, "&") >= maxArgs || strings.Count(again, ",") >= maxArgs {
				continue
			}
			var back arguments
			if err != nil || json.Unmarshal(out, &back) != nil || !args.equal(back) {
				t.Fatalf("%q became %q, written %q, and then %s, %v", query, args, again, out, err)
			}
		}
	})
}

// arguments are what parseArgs reads, each as a list.
type arguments map[string][]string

func (a *arguments) UnmarshalJSON(data []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return err
	}
	*a = make(arguments)
	for name, value := range raw {
		list := value
		if value[0] == '"' {
			list = slices.Concat([]byte("["), value, []byte("]"))
		}
		var all []string
		if err := json.Unmarshal(list, &all); err != nil || len(all) == 0 {
			return fmt.Errorf("%s is %s: %w", name, value, err)
		}
		(*a)[name] = all
	}
	return nil
}

// equal compares whatever the order of a name's values.
func (a arguments) equal(b arguments) bool {
	return maps.EqualFunc(a, b, func(x, y []string) bool {
		return slices.Equal(slices.Sorted(slices.Values(x)), slices.Sorted(slices.Values(y)))
	})
}

// escapeAll percent-encodes every byte.
func escapeAll(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteString("%" + strings.ToUpper(string("0123456789abcdef"[s[i]>>4])+string("0123456789abcdef"[s[i]&15])))
	}
	return b.String()
}

// FuzzDraft: what is handed in to become a function is refused, or is what it
// says: the code byte for byte, and no setting more or less.
func FuzzDraft(f *testing.F) {
	for _, seed := range [][2]string{
		{"", "def callme(): pass"}, {"lang=node&name=a&timeout=5s", "x"}, {"", `{"code": "x"}`}, {"", ` {"code": "x", "lang": "node", "memory": 1, "timeout": "5s"}`}, {"timeout=5s", `{"code": "x", "timeout": "6s"}`},
		{"", `{"code": "x", "code": "y"}`}, {"", `{"code": 1}`}, {"", `{"code": null}`}, {"", `{}`}, {"", `{"code": "x"} {}`}, {"", "{\"code\": \"\xff\"}"}, {"", `{"code": "\ud800"}`}, {"", `{"code": "x", "cpus": 1e400}`}, {"", `{"code":"x","\u006came":"y"}`}, {"", `{"Code": "x"}`},
		{"%zz", "x"}, {"name=", "x"}, {"name=a&name=b", "x"}, {"other=1", "x"}, {"", "\x00"}, {"", `{"code": "\u0000"}`},
	} {
		f.Add(seed[0], []byte(seed[1]))
	}
	registry := newFakeRegistry()
	a := New(Config{Log: zerolog.Nop(), Metrics: http.NotFoundHandler(), MaxBody: testMaxBody, Hosts: []string{"example.com"}})
	audit := &fakeAudit{}
	a.Open(Backend{Registry: registry, Locator: registry, Tokens: &fakeTokens{}, Audit: audit})
	f.Fuzz(func(t *testing.T, query string, body []byte) {
		r := httptest.NewRequest("POST", "/api/gen", bytes.NewReader(body))
		r.URL.RawQuery = query
		registry.name, registry.draft, audit.entries = "", faas.Draft{}, nil
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		name, draft := registry.name, registry.draft
		if w.Code != http.StatusOK {
			wantProblem(t, w.Code, w.Header(), w.Body.String(), 400, faas.CodeBadRequest)
			if draft.Code != "" || name != "" {
				t.Fatalf("refused, but registered %q", name)
			}
			return
		}
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatalf("the query %q is taken, and net/url says %v", query, err)
		}
		want := make(map[string]string)
		for setting := range values {
			want[setting] = values.Get(setting)
		}
		code := string(body)
		var members map[string]json.RawMessage
		if trimmed := bytes.TrimSpace(body); len(trimmed) > 1 && trimmed[0] == '{' && json.Unmarshal(body, &members) == nil {
			for member, raw := range members {
				var text string
				if json.Unmarshal(raw, &text) != nil {
					text = string(raw)
				}
				if _, twice := want[member]; twice {
					t.Fatalf("%s is in the query and in the body", member)
				}
				want[member] = text
			}
			code = want["code"]
			delete(want, "code")
		}
		if draft.Code != code || draft.Lang != want["lang"] || name != want["name"] || !utf8.ValidString(draft.Code) || draft.Code == "" {
			t.Fatalf("%q became %q in %q as %q", body, draft.Code, draft.Lang, name)
		}
		delete(want, "lang")
		delete(want, "name")
		if !reflect.DeepEqual(draft.Settings, parse(t, want)) {
			t.Fatalf("%q and %q became the settings %+v, want %q", query, body, draft.Settings, want)
		}
	})
}

// FuzzHosts: what is let in as a host is one for others too, and one that no
// stranger can have made point here.
func FuzzHosts(f *testing.F) {
	for _, seed := range []string{"localhost", "127.0.0.1:9999", "[::1]:80", "[fe80::1%25eth0]", "a.localhost.", "evil.test", "fob.example", "a.wild.example:1", "127.0.0.1.evil.test", "u@localhost", "[::ffff:1.2.3.4]", "localhost:", ":80"} {
		f.Add(seed)
	}
	h := newHosts([]string{"fob.example", "*.wild.example"})
	f.Fuzz(func(t *testing.T, host string) {
		if !h.allow(host) || host == "" {
			return
		}
		u, err := url.Parse("http://" + host + "/x")
		if err != nil {
			if e, ok := errors.AsType[*url.Error](err); !ok || !strings.Contains(e.Error(), "invalid port") {
				t.Fatalf("%q is let in, and net/url says %v", host, err)
			}
			return
		}
		name := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
		_, err = netip.ParseAddr(name)
		if u.Host != host || u.User != nil || u.Path != "/x" ||
			err != nil && name != "localhost" && !strings.HasSuffix(name, ".localhost") && name != "fob.example" && !strings.HasSuffix(name, ".wild.example") {
			t.Fatalf("%q is let in, and is %q for net/url", host, u.Host)
		}
	})
}

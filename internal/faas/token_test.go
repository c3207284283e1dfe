package faas

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

const tokenTestID = "3f2b8c1e-5d0a-4e6f-9b7c-1a2d3e4f5a6b"

func TestGrants(t *testing.T) {
	for text, want := range map[string]Grant{
		"admin":                                  {Scope: ScopeAdmin},
		"invoke:hello":                           {ScopeInvoke, "hello"},
		"read:" + tokenTestID:                    {ScopeRead, tokenTestID},
		"deploy:" + strings.ToUpper(tokenTestID): {ScopeDeploy, tokenTestID},
		"deploy:" + strings.Repeat("x", 63):      {ScopeDeploy, strings.Repeat("x", 63)},
		"":                                       {},
		"Admin":                                  {},
		"fly":                                    {},
		"invoke:":                                {},
		"invoke:hello@1":                         {},
		"invoke:hello:live":                      {},
		"invoke:a b":                             {},
		"invoke: hello":                          {},
		"invoke hello":                           {},
		strings.Repeat("x", 1000):                {},
		"invoke:" + strings.Repeat("x", 64):      {},
		"invoke:\x1b[31mred":                     {},
		"admin:hello,read":                       {},
		"read:{" + tokenTestID + "}":             {},
		"read:urn:uuid:" + tokenTestID:           {},
		"read:" + strings.ReplaceAll(tokenTestID, "-", "") + "-": {ScopeRead, strings.ReplaceAll(tokenTestID, "-", "") + "-"},
	} {
		got, err := ParseGrant(text)
		if got != want || (err == nil) != (want != Grant{}) {
			t.Errorf("%q: got %+v, %v", text, got, err)
		}
		if err != nil && (CodeOf(err) != CodeBadRequest || len(err.Error()) > 300 || strings.ContainsRune(err.Error(), '\x1b')) {
			t.Errorf("%q: the error is %q", text, err)
		}
	}
	var read []Grant
	if err := json.Unmarshal([]byte(`["read","invoke:hello"]`), &read); err != nil {
		t.Fatal(err)
	}
	if text, err := json.Marshal(read); err != nil || string(text) != `["read","invoke:hello"]` {
		t.Errorf("written again: %s, %v", text, err)
	}
}

func TestMay(t *testing.T) {
	hello := &Function{ID: tokenTestID, Name: "hello"}
	other := &Function{ID: "7c9e6679-7425-40de-944b-e07fc1f90ae7"} // without a name
	fresh := &Function{Name: "fresh"}                              // yet to be made
	for _, c := range []struct {
		grants                         string
		scope                          Scope
		all, hello, other, fresh, some bool
	}{
		{"admin", ScopeInvoke, true, true, true, true, true},
		{"admin", ScopeAdmin, true, true, true, true, true},
		{"read", ScopeRead, true, true, true, true, true},
		{"read", ScopeInvoke, false, false, false, false, false},
		{"deploy", ScopeRead, false, false, false, false, false},
		{"deploy", ScopeAdmin, false, false, false, false, false},
		{"read:hello", ScopeRead, false, true, false, false, true},
		{"read:" + tokenTestID, ScopeRead, false, true, false, false, true},
		{"read:hello", ScopeDeploy, false, false, false, false, false},
		{"admin:hello", ScopeDeploy, false, true, false, false, true},
		{"admin:hello", ScopeAdmin, false, true, false, false, true},
		{"deploy:fresh", ScopeDeploy, false, false, false, true, true},
		{"read:hello invoke", ScopeInvoke, true, true, true, true, true},
		{"read:hello read:fresh", ScopeRead, false, true, false, true, true},
	} {
		token := &Token{}
		for _, text := range strings.Fields(c.grants) {
			g, err := ParseGrant(text)
			if err != nil {
				t.Fatal(err)
			}
			token.Grants = append(token.Grants, g)
		}
		got := [...]bool{token.May(c.scope, nil), token.May(c.scope, hello), token.May(c.scope, other), token.May(c.scope, fresh), token.MaySome(c.scope)}
		if want := [...]bool{c.all, c.hello, c.other, c.fresh, c.some}; got != want {
			t.Errorf("%s, %s: got %v, want %v", c.grants, c.scope, got, want)
		}
		caller := Caller{Kind: CallerToken, Token: token}
		if caller.May(c.scope, hello) != c.hello {
			t.Errorf("%s, %s: the caller may %v", c.grants, c.scope, !c.hello)
		}
	}
	for kind, may := range map[CallerKind]bool{CallerStranger: false, CallerSandbox: false, CallerTrusted: true, CallerLocal: true} {
		caller := Caller{Kind: kind}
		if caller.May(ScopeRead, hello) != may || caller.May(ScopeAdmin, nil) != may {
			t.Errorf("a caller of kind %d may %v", kind, !may)
		}
	}
}

func TestCheckToken(t *testing.T) {
	now := time.Now()
	grants := []Grant{{Scope: ScopeRead}}
	for _, c := range []struct {
		name    string
		grants  []Grant
		expires time.Time
		good    bool
	}{
		{"ann", grants, time.Time{}, true},
		{"ann", grants, now.Add(time.Second), true},
		{"", grants, time.Time{}, false},
		{"two words", grants, time.Time{}, false},
		{"line\nbreak", grants, time.Time{}, false},
		{"ann", nil, time.Time{}, false},
		{"ann", make([]Grant, 101), time.Time{}, false},
		{"ann", []Grant{{Scope: ScopeRead}, {}}, time.Time{}, false},
		{"ann", []Grant{{ScopeRead, "a b"}}, time.Time{}, false},
		{"ann", grants, now, false},
		{"ann", grants, now.Add(-time.Hour), false},
	} {
		if err := CheckToken(c.name, c.grants, c.expires, now); (err == nil) != c.good || err != nil && CodeOf(err) != CodeBadRequest {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

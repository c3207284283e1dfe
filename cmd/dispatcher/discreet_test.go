package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStrangersLearnNothing: strangers who call a public function see nothing of
// its code in any error, and who may read it does.
func TestStrangersLearnNothing(t *testing.T) {
	p := boot(t, nil)
	broken := filepath.Join(shortDir(t), "broken")
	admin, reader, caller := p.token(t, "admin"), p.token(t, "read:hush", "read:hush-node", "read:cold"), p.token(t, "invoke")
	put := func(path, code string) {
		p.as(t, admin.Token, "PUT", "/api/functions/"+path, code).wantsStatus(t, 201)
	}
	put("hush?public=true", `
import os, json
def callme(how="", n: int = 0, key="WORD-OF-THE-CODE"):
    secret = "WORD-OF-THE-CODE"
    if how == "raise": raise RuntimeError(secret)
    if how == "exit": raise SystemExit(secret)
    if how == "value": raise ValueError(secret)
    if how == "deep": json.loads(secret)
    if how == "result": return type(secret, (), {})()
    if how == "die": os._exit(3)
    return how
`)
	put("hush-node?public=true&lang=node", `
function callme(how = '', n = 0) {
  if (how === 'raise') throw new RangeError('WORD-OF-THE-CODE');
  if (how === 'result') return new (class { toJSON() { throw new Error('WORD-OF-THE-CODE') } })();
  if (how === 'die') process.exit(3);
  return how;
}
`)
	put("cold?public=true&idle_timeout=1s", fmt.Sprintf("import os\nif os.path.exists(%q): raise ImportError('WORD-OF-THE-CODE')\ndef callme(): os._exit(1)\n", broken))
	// It loads no more once its first sandbox is gone.
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.do("GET", "/api/call/cold", "").wantsProblem(t, 502, "sandbox_died")

	for _, c := range []struct {
		call   string
		status int
		code   string
		shows  string // to who may read it
	}{
		{"hush?how=raise", 500, "function_raised", "RuntimeError: WORD-OF-THE-CODE"},
		{"hush?how=exit", 500, "function_raised", "SystemExit"},
		{"hush?how=value", 404, "bad_arguments", "WORD-OF-THE-CODE"},
		{"hush?how=deep", 500, "function_raised", "JSONDecodeError"},
		{"hush?how=result", 500, "bad_result", "WORD-OF-THE-CODE"},
		{"hush?how=die", 502, "sandbox_died", "code 3"},
		{"hush-node?how=raise", 500, "function_raised", "RangeError"},
		{"hush-node?how=result", 500, "bad_result", "WORD-OF-THE-CODE"},
		{"hush-node?how=die", 502, "sandbox_died", "code 3"},
		{"cold", 500, "function_raised", "ImportError: WORD-OF-THE-CODE"},
	} {
		for who, bearer := range map[string]string{"a stranger": "", "who may call": caller.Token, "an unknown token": "fob_nothing"} {
			got := p.as(t, bearer, "GET", "/api/call/"+c.call, "")
			said := got.wantsProblem(t, c.status, c.code)
			if strings.Contains(got.Body, c.shows) || strings.Contains(got.Body, "WORD-OF") || said.Error != nil {
				t.Errorf("%s: %s sees %s", c.call, who, got.Body)
			}
			if said.CallID == "" || said.CallID != got.Header.Get("X-Call-Id") || !strings.Contains(said.Detail, "log") {
				t.Errorf("%s: %s is not told where to look: %s", c.call, who, got.Body)
			}
		}
		for who, bearer := range map[string]string{"who may read": reader.Token, "an admin": admin.Token} {
			if got := p.as(t, bearer, "GET", "/api/call/"+c.call, ""); !strings.Contains(got.Body, c.shows) || got.Status != c.status {
				t.Errorf("%s: %s sees %s", c.call, who, got.Body)
			}
		}
		if got, err := tryLocal(p.cfg.Data, "GET", "/api/call/"+c.call, ""); !strings.Contains(got+fmt.Sprint(err), c.shows) {
			t.Errorf("%s: over the control socket there is %s, %v", c.call, got, err)
		}
	}
	// What a caller did wrong it is told.
	for call, shows := range map[string]string{"hush?n=many": "n: ", "hush?other=1": "callme(", "hush-node?other=1": "callme("} {
		if said := p.do("GET", "/api/call/"+call, "").wantsProblem(t, 404, "bad_arguments"); !strings.Contains(said.Detail, shows) || strings.Contains(said.Detail, "WORD") {
			t.Errorf("%s: the caller is told %q", call, said.Detail)
		}
	}
}

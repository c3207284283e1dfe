package main

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

func TestStandbyTakesOver(t *testing.T) {
	var data string
	first := boot(t, func(c *Config) { data = c.Data })
	id := first.gen("?name=greet", "def callme(): return 1")

	second := bootUnready(t, func(c *Config) { c.Data, c.Standby = data, true })
	eventually(t, time.Minute, "the second one is on standby", func() bool {
		a, err := second.try("GET", "/readyz", "")
		return err == nil && strings.Contains(a.Body, `"standby"`)
	})
	second.do("GET", "/healthz", "").wants(t, 200, `{"status": "ok"}`)
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/readyz", ""},
		{"GET", "/api/call/" + id, ""},
		{"POST", "/api/call/" + id, "{}"},
		{"POST", "/api/gen", "def callme(): return 2"},
		{"PUT", "/api/functions/greet", "def callme(): return 2"},
		{"DELETE", "/api/functions/greet", ""},
		{"GET", "/api/stats", ""},
		{"GET", "/api/functions", ""},
		{"GET", "/api/meta/" + id, ""},
		{"GET", "/api/cs/" + id, ""},
	} {
		a := second.do(c.method, c.path, c.body)
		p := a.wantsProblem(t, 503, "standby")
		if a.Header.Get("Retry-After") == "" || a.Header.Get("Fob-Error") != "platform" || !p.Retryable {
			t.Errorf("%s %s: %v %s", c.method, c.path, a.Header, a.Body)
		}
	}
	for _, path := range []string{"/metrics", "/api/version", "/api/openapi.yaml"} {
		if a := second.do("GET", path, ""); a.Status != http.StatusOK {
			t.Errorf("%s on standby: %d %s", path, a.Status, a.Body)
		}
	}
	first.do("GET", "/api/call/greet", "").wants(t, 200, `{"result": 1}`) // undisturbed

	first.stop()
	second.awaitReady(time.Minute)
	second.do("GET", "/api/call/greet", "").wants(t, 200, `{"result": 1}`)
	second.do("GET", "/api/stats", "").wants(t, 200, `{"functions": ["`+id+`"]}`)
	if other := second.gen("", "def callme(): return 2"); other == id {
		t.Error("an ID was given twice")
	}
}

func TestTwoWithoutStandby(t *testing.T) {
	first := boot(t, nil)
	cfg := testConfig(t)
	cfg.Data = first.cfg.Data
	second, err := New(cfg, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	err = second.Run(t.Context(), func() { t.Error("the second one says that it is ready") })
	if err == nil {
		t.Fatal("the second one ended as if all were well")
	}
	for _, word := range []string{"another dispatcher", "--standby", "FOB_DATA", first.cfg.Data} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error %q does not mention %s", err, word)
		}
	}
	first.gen("", "def callme(): return 1")
}

// One that is stopped while it waits has nothing to clear up, and ends well.
func TestStandbyIsStopped(t *testing.T) {
	first := boot(t, nil)
	second := bootUnready(t, func(c *Config) { c.Data, c.Standby = first.cfg.Data, true })
	eventually(t, time.Minute, "the second one is on standby", func() bool {
		a, err := second.try("GET", "/readyz", "")
		return err == nil && strings.Contains(a.Body, `"standby"`)
	})
	second.stop()
	first.gen("", "def callme(): return 1")
}

// Stopped programs leave no sandbox's folder behind.
func TestStopRemovesSandboxes(t *testing.T) {
	r := boot(t, nil)
	r.gen("", "def callme(): return 1")
	sandboxes := func() (found []string) {
		all, err := filepath.Glob(filepath.Join(r.cfg.Sockets, "*", "sandbox.json"))
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	if len(sandboxes()) == 0 {
		t.Fatal("there is no sandbox's folder to begin with")
	}
	r.stop()
	if left := sandboxes(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOpen: the browser gets the page's address, without the token, and who has no
// browser reads it.
func TestOpen(t *testing.T) {
	t.Parallel()
	s := shellFor(t)
	s.write("browser", "#!/bin/sh\necho \"$@\" > opened\n")
	if err := os.Chmod(filepath.Join(s.dir, "browser"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.does("context", "set", "prod", "https://fob.example.com", "--token", "fob_secret")
	s.env = []string{"BROWSER=" + filepath.Join(s.dir, "browser")}
	if out := s.does("open"); out != "https://fob.example.com/\n" {
		t.Errorf("open printed %q", out)
	}
	if opened, err := os.ReadFile(filepath.Join(s.dir, "opened")); err != nil || string(opened) != "https://fob.example.com/\n" {
		t.Errorf("the browser was told %q (%v)", opened, err)
	}
	s.env = []string{"BROWSER=", "DISPLAY=", "WAYLAND_DISPLAY="}
	if out := s.does("open"); out != "https://fob.example.com/\n" {
		t.Errorf("without a browser it printed %q", out)
	}
	s.env = []string{"BROWSER=/no/such"}
	s.fails(1, []string{"open"}, "open the address above yourself")
	s.env = []string{"FOB_DATA=" + s.dir}
	s.fails(1, []string{"open"}, "give FOB_URL")
}

// TestContexts: a name stands for a dispatcher and its token, in a file that only its
// owner reads, and never against what was said.
func TestContexts(t *testing.T) {
	t.Parallel()
	one, other := boot(t), boot(t)
	secret := strings.TrimSpace(mustCommand(t, one.Data, "token", "create", "me", "--grant", "admin"))
	s := shellFor(t)
	s.write("a.py", "def callme(): return 'one'\n")
	if out := s.does("context", "list"); strings.Count(out, "\n") != 1 {
		t.Errorf("at first: %s", out)
	}
	cmd := s.command("context", "set", "one", one.URL)
	cmd.Stdin = strings.NewReader(secret + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.does("context", "set", "other", other.Addr(), "--token", "")
	if out := s.does("context", "list"); strings.Contains(out, secret) || !strings.Contains(out, "*  other  "+other.URL+"  no") || !strings.Contains(out, "   one    "+one.URL+"  yes") {
		t.Errorf("it lists\n%s", out)
	}
	file := filepath.Join(s.dir, "config", "fob", "contexts.json")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v (%v)", info.Mode(), err)
	}
	s.does("deploy", "a.py", "--context", "one")
	if out := s.does("list"); strings.Contains(out, "\na ") {
		t.Errorf("the context in use has\n%s", out)
	}
	s.does("context", "use", "one")
	if out := s.does("call", "a"); out != `{"result": "one"}` {
		t.Errorf("the call printed %s", out)
	}
	// What is said counts more than the context in use.
	s.env = []string{"FOB_DATA=" + other.Data}
	if out := s.does("list"); strings.Contains(out, "\na ") {
		t.Errorf("of the data folder: %s", out)
	}
	if out := s.does("list", "--context", "one"); !strings.Contains(out, "\na ") {
		t.Errorf("of the context: %s", out)
	}
	s.env = []string{"FOB_URL=" + other.URL}
	if out := s.does("list"); strings.Contains(out, "\na ") {
		t.Errorf("of FOB_URL: %s", out)
	}
	s.fails(1, []string{"list", "--context", "one"}, "contradict")
	s.env = nil
	s.fails(1, []string{"list", "--context", "none"}, "there are one, other")
	s.fails(1, []string{"context", "use", "none"}, "there are one, other")
	s.fails(1, []string{"context", "delete", "none"}, "there are one, other")
	s.fails(1, []string{"context", "set", "a b", one.URL}, "not a name")
	s.fails(1, []string{"context", "set", "x", "ftp://x"}, "not a URL")
	s.fails(1, []string{"list", "--token", "fob_nonsense"}, "token", "try: fob context set")

	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	s.fails(1, []string{"list"}, "chmod 600")
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	s.does("context", "delete", "one")
	if out := s.does("context", "list"); strings.Contains(out, "*") || strings.Contains(out, "one") {
		t.Errorf("it still lists\n%s", out)
	}
	if err := os.WriteFile(file, []byte("{nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.fails(1, []string{"list"}, "cannot be read")
}

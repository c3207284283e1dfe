package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// TestLogsByCommand: a call's lines, and its traceback, are found after its sandbox is gone
// and the dispatcher was killed, new lines come as they are written, and none does anything
// to a terminal.
func TestLogsByCommand(t *testing.T) {
	t.Parallel()
	r := boot(t)
	s := shellFor(t, "FOB_DATA="+r.Data)
	s.write("talk.py", `import logging, sys
def callme(word):
    print("says", word)
    print("\x1b[2J evil", file=sys.stderr)
    logging.warning("careful with %s", word)
    print('{"user": 17, "word": "%s"}' % word)
    if word == "bad":
        raise KeyError(word)
`)
	s.does("deploy", "talk.py", "--idle-timeout", "1s")
	s.fails(3, []string{"call", "talk", "word=bad", "X-Call-Id:call-bad"}, "KeyError")
	s.does("call", "talk", "word=one", "X-Call-Id:call-one")
	s.does("call", "talk", "word=two", "X-Call-Id:call-two")
	has := func(args []string, want ...string) bool {
		out := s.does(append([]string{"logs"}, args...)...)
		for _, text := range want {
			if !strings.Contains(out, text) {
				return false
			}
		}
		return true
	}
	eventually(t, time.Minute, "the lines are there", func() bool {
		return has([]string{"talk"}, "call-one says one", "call-two says two", `call-two {"user"`, "call-bad KeyError: 'bad'")
	})
	eventually(t, time.Minute, "no sandbox is left", func() bool { return len(r.meta("talk").Sandboxes) == 0 })
	time.Sleep(time.Second) // the longest that may be missing after a kill
	r.kill()
	again := boot(t, "FOB_DATA="+r.Data)
	s.env = []string{"FOB_DATA=" + again.Data}
	out := s.does("logs", "--call", "call-one", "talk")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 4 || strings.Contains(out, "two") {
		t.Fatalf("the call's lines are\n%s", out)
	}
	for i, want := range []string{"stdout says one", "stderr \x1b[2J evil", "warn   WARNING:root:careful with one", `stdout {"user": 17, "word": "one"}`} {
		want = strings.ReplaceAll(want, "\x1b", `\u001b`)
		if _, rest, _ := strings.Cut(lines[i], " "); strings.ReplaceAll(rest, " ", "") != strings.ReplaceAll(want, " ", "") {
			t.Errorf("line %d is %q, want %q", i+1, lines[i], want)
		}
	}
	out = s.does("logs", "--call", "call-bad", "talk")
	lines = strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) < 7 || !strings.Contains(lines[0], "says bad") || !strings.HasSuffix(lines[4], " Traceback (most recent call last):") || !strings.HasSuffix(lines[len(lines)-1], " KeyError: 'bad'") || strings.Contains(out, "one") {
		t.Errorf("the lines of the call that failed are\n%s", out)
	}
	for _, line := range lines[min(4, len(lines)):] {
		if _, rest, _ := strings.Cut(line, " "); !strings.HasPrefix(rest, "error ") {
			t.Errorf("%q is of no level error", line)
		}
	}
	if out := s.does("calls", "--failed", "talk"); !strings.Contains(out, "call-bad") || !strings.Contains(out, "Traceback (most recent call last):") || !strings.Contains(out, "raise KeyError(word)") || strings.Contains(out, "call-one") {
		t.Errorf("the calls that failed are\n%s", out)
	}
	if out := s.does("logs", "talk", "--level", "warn", "--since", "1h", "--json"); strings.Count(out, "\n") != 3 || !json.Valid([]byte(strings.SplitN(out, "\n", 2)[0])) {
		t.Errorf("as JSON:\n%s", out)
	}
	if out := s.does("logs", "talk", "--text", "user:17", "--limit", "1"); strings.Count(out, "\n") != 1 || !strings.Contains(out, "two") {
		t.Errorf("by a member:\n%s", out)
	}
	p := runIn(t, s.command("logs", "-f", "talk"), 120)
	eventually(t, time.Minute, "a new line comes", func() bool {
		s.does("call", "talk", "word=three")
		return strings.Contains(p.text(), "says three")
	})
	if strings.Contains(p.text(), "\x1b[2J") {
		t.Errorf("the terminal gets %q", p.text())
	}
	s.fails(1, []string{"logs", "nobody"}, "there is no function nobody", "try: fob list")
	s.fails(1, []string{"logs", "talk", "--level", "loud"}, "level")
}

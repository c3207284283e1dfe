package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// TestLogsSurviveKills: the lines of a call can be read after the dispatcher was killed
// and its function deleted, and are that call's alone.
func TestLogsSurviveKills(t *testing.T) {
	t.Parallel()
	r := boot(t)
	id := r.gen("?name=chatty", "def callme(n=0):\n    print('number', n)\n    print('{\"event\": \"done\", \"n\": \"%s\"}' % n)\n")
	for _, n := range []string{"1", "2"} {
		if a := r.do("GET", "/api/call/chatty?n="+n, "", "X-Call-Id", "call-"+n); a.Status != 200 {
			t.Fatalf("answered %d %s", a.Status, a.Body)
		}
	}
	for deadline := time.Now().Add(30 * time.Second); strings.Count(r.do("GET", "/api/logs?function=chatty", "").Body, "\n") < 4; {
		if time.Now().After(deadline) {
			t.Fatal("the lines do not come")
		}
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(time.Second) // the longest that a call may be missing after a kill
	r.kill()
	again := boot(t, "FOB_DATA="+r.Data)
	text := again.do("GET", "/api/logs?call=call-2", "").Body
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) != 2 || !strings.HasSuffix(lines[0], " stdout call-2 number 2") || !strings.HasSuffix(lines[1], ` stdout call-2 {"event": "done", "n": "2"}`) {
		t.Errorf("the call's lines are %q", text)
	}
	found := again.do("GET", "/api/logs?function=chatty&text=n:1", "", "Accept", "application/json").Body
	if strings.Count(found, `"number"`) != 1 || !strings.Contains(found, `"json": {"event": "done", "n": "1"}`) {
		t.Errorf("by a member is found %s", found)
	}
	again.do("GET", "/api/logs?call=nobody's", "").wantsProblem(t, 404, string(faas.CodeUnknownCall))
	again.do("GET", "/api/logs?function=chatty&level=loud", "").wantsProblem(t, 400, string(faas.CodeBadRequest))
	again.do("DELETE", "/api/functions/chatty", "").wantsStatus(t, 204)
	if text := again.do("GET", "/api/logs?function="+id, "").Body; strings.Count(text, "\n") != 4 {
		t.Errorf("a deleted function's lines are %q", text)
	}
}

// TestDockerDeathsInLogs: the log of a call whose sandbox ran out of memory says so, after
// what it printed.
func TestDockerDeathsInLogs(t *testing.T) {
	t.Parallel()
	r := boot(t, "FOB_AVIARY="+testAviary(t), "FOB_POOL=python=1,node=1")
	for lang, code := range map[string]string{
		"python": "def callme():\n    print('printed')\n    x = []\n    while True: x.append(b'x' * 1000000)\n",
		"node":   "exports.callme = () => {\n    console.log('printed');\n    for (const x = [];;) x.push(Buffer.alloc(1000000, 1));\n};\n",
	} {
		r.gen("?name=eats-"+lang+"&lang="+lang+"&memory=64MB", code)
		r.do("GET", "/api/call/eats-"+lang, "", "X-Call-Id", "dies").wantsProblem(t, 502, string(faas.CodeSandboxDied))
		var text string
		eventually(t, time.Minute, "its lines come", func() bool {
			text = r.do("GET", "/api/logs?call=dies&function=eats-"+lang, "").Body
			return strings.Count(text, "\n") >= 2
		})
		lines := strings.Split(strings.TrimSpace(text), "\n")
		if len(lines) != 2 || !strings.HasSuffix(lines[0], " stdout dies printed") || !strings.Contains(lines[1], " error dies the sandbox ran out of memory (") {
			t.Errorf("%s: the lines are %q", lang, text)
		}
	}
}

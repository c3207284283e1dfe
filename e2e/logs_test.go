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

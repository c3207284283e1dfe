package e2e

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
)

// TestHistorySurvivesKills: calls can be looked up after the dispatcher was killed, with
// their tracebacks, and after their function was deleted.
func TestHistorySurvivesKills(t *testing.T) {
	t.Parallel()
	r := boot(t)
	id := r.gen("?name=moody", "def callme(n=0):\n    return 1 // int(n)\n")
	for i, n := range []string{"1", "0", "2"} {
		r.do("GET", "/api/call/moody?n="+n, "").wantsStatus(t, []int{200, 500, 200}[i])
	}
	time.Sleep(time.Second) // the longest that a call may be missing after a kill
	r.kill()
	again := boot(t, "FOB_DATA="+r.Data)
	list := func(query string) (page api.Calls) {
		t.Helper()
		a := again.do("GET", "/api/calls"+query, "")
		if err := json.Unmarshal([]byte(a.Body), &page); err != nil || a.Status != 200 {
			t.Fatalf("%s is answered %d %s", query, a.Status, a.Body)
		}
		return page
	}
	if all := list("?function=moody").Calls; len(all) != 3 {
		t.Errorf("of three calls there are %+v", all)
	}
	failed := list("?outcome=failed").Calls
	if len(failed) != 1 || failed[0].Error == nil || failed[0].Error.Type != "ZeroDivisionError" || !strings.Contains(failed[0].Error.Traceback, "line 2, in callme") || failed[0].Sandbox == "" {
		t.Errorf("failed are %+v", failed)
	}
	again.do("DELETE", "/api/functions/moody", "").wantsStatus(t, 204)
	again.do("GET", "/api/calls?function=moody", "").wantsProblem(t, 404, string(faas.CodeUnknownFunction))
	if all := list("?function=" + id).Calls; len(all) != 3 {
		t.Errorf("of a deleted function's calls there are %+v", all)
	}
}

// TestNoHistory: FOB_HISTORY=0 keeps none.
func TestNoHistory(t *testing.T) {
	t.Parallel()
	r := boot(t, "FOB_HISTORY=0")
	r.gen("?name=hello", "def callme(): return 1")
	r.do("GET", "/api/call/hello", "").wantsStatus(t, 200)
	p := r.do("GET", "/api/calls", "").wantsProblem(t, 404, string(faas.CodeUnknownCall))
	if !strings.Contains(p.Detail, "FOB_HISTORY") {
		t.Errorf("it is said: %s", p.Detail)
	}
	if _, err := os.Stat(filepath.Join(r.Data, "history")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a history, %v", err)
	}
}

// TestBrokenHistory: calls go on when the history cannot be opened, and the log says so.
func TestBrokenHistory(t *testing.T) {
	t.Parallel()
	data := shortDir(t)
	if err := os.WriteFile(filepath.Join(data, "history"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := boot(t, "FOB_DATA="+data)
	r.gen("?name=hello", "def callme(): return 1")
	r.do("GET", "/api/call/hello", "").wants(t, 200, `{"result": 1}`)
	r.do("GET", "/api/calls", "").wantsProblem(t, 503, string(faas.CodeUnreadable))
	r.do("GET", "/api/calls/x", "").wantsProblem(t, 503, string(faas.CodeUnreadable))
	if metrics := r.do("GET", "/metrics", "").Body; !strings.Contains(metrics, "\nfob_history_lost_total 1\n") {
		t.Error("the call is not counted as lost")
	}
}

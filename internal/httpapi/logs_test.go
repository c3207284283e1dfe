package httpapi

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/api"
	"github.com/flockofbirds/fob/internal/faas"
	past "github.com/flockofbirds/fob/internal/history"
	"github.com/flockofbirds/fob/internal/logs"
)

// listening returns an API with a real history and real logs, and both.
func listening(t *testing.T, grants map[string]string) (*API, *past.History, *logs.Logs) {
	t.Helper()
	a, kept := remembering(t, grants)
	lines, err := logs.Open(logs.Config{
		Data: t.TempDir(), MaxBytes: 64 << 20, Lost: func(n int) { t.Errorf("%d lines are lost", n) }, Failed: func(err error) { t.Error(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lines.Close() })
	b := a.opened.Load().Backend
	b.Logs = lines
	a.Open(b)
	return a, kept, lines
}

// printed is a line of a call.
func printed(function, call, text string, at time.Time) faas.LogLine {
	return faas.LogLine{Function: function, Version: 3, Sandbox: "0123456789abcdef", Call: faas.LogID(call), Level: "stdout", Time: at, Text: []byte(text)}
}

// knownCall returns the document of a call, which must be there.
func knownCall(t *testing.T, a *API, id string, headers ...string) (call api.Call, body string) {
	t.Helper()
	w := serve(a, "GET", "/api/calls/"+id, "", headers...)
	if err := json.Unmarshal(w.Body.Bytes(), &call); w.Code != 200 || err != nil {
		t.Fatalf("%s is answered %d %s, %v", id, w.Code, w.Body, err)
	}
	return call, w.Body.String()
}

// textsOf returns the texts of lines.
func textsOf(lines []api.LogLine) string {
	var all []string
	for _, l := range lines {
		if l.Text != nil {
			all = append(all, *l.Text)
		} else {
			all = append(all, string(l.JSON))
		}
	}
	return strings.Join(all, " ")
}

// TestCallHasItsLog: the document of a call has what that call printed, and nothing else.
func TestCallHasItsLog(t *testing.T) {
	a, kept, lines := listening(t, nil)
	began := time.Now().Add(-15 * time.Minute)
	long := strings.Repeat("x", 100)
	for i, id := range []string{"c1", "c2", long} {
		kept.Record(faas.CallRecord{ID: id, Function: testID, Outcome: "ok", Started: began.Add(time.Duration(i) * time.Minute), Timing: faas.CallTiming{Total: 1000}})
	}
	recorded(t, kept, 3)
	lines.Write(printed(testID, "c1", "of an earlier call with that ID", began.Add(-time.Minute)))
	lines.Write(printed(testID, "c1", "one", began))
	lines.Write(printed(testID, "c2", "other", began))
	lines.Write(printed(otherID, "c1", "forged", began))
	lines.Write(printed(testID, "", "of no call", began))
	lines.Write(printed(testID, "c1", `{"n": 2}`, began.Add(500*time.Millisecond)))
	lines.Write(printed(testID, "c1", "late", began.Add(5*time.Minute)))
	lines.Write(printed(testID, "c1", "of a later call with that ID", began.Add(12*time.Minute)))
	lines.Write(printed(testID, long, "long", began.Add(2*time.Minute)))
	call, _ := knownCall(t, a, "c1")
	if got := textsOf(call.Log); got != `one {"n": 2} late` || call.LogNext != nil {
		t.Errorf("its lines are %s", got)
	}
	if l := call.Log[0]; l.Name != "hello" || l.Function != testID || l.Call != "c1" || l.Level != "stdout" || !l.Time.Equal(began.Truncate(time.Microsecond)) {
		t.Errorf("a line is %+v", l)
	}
	if call, _ := knownCall(t, a, long); textsOf(call.Log) != "long" {
		t.Errorf("a call with a long ID has the lines %s", textsOf(call.Log))
	}
}

// TestCallsLogIsBounded: of a call that printed much the document has the newest lines,
// and says where the others are.
func TestCallsLogIsBounded(t *testing.T) {
	a, kept, lines := listening(t, nil)
	now := time.Now()
	for _, id := range []string{"many", "wide", "silent"} {
		kept.Record(faas.CallRecord{ID: id, Function: testID, Outcome: "ok", Started: now})
	}
	recorded(t, kept, 3)
	for i := range 150 {
		lines.Write(printed(testID, "many", fmt.Sprint("n", i), now))
	}
	for range 100 {
		lines.Write(printed(testID, "wide", strings.Repeat("\x01", 60<<10), now))
	}
	call, _ := knownCall(t, a, "many")
	if len(call.Log) != 100 || *call.Log[0].Text != "n50" || *call.Log[99].Text != "n149" || call.LogNext == nil {
		t.Fatalf("there are %d lines: %s", len(call.Log), textsOf(call.Log))
	}
	var before api.LogPage
	w := serve(a, "GET", "/api/logs?call=many&after="+*call.LogNext, "", "Accept", "application/json")
	if err := json.Unmarshal(w.Body.Bytes(), &before); err != nil || len(before.Logs) != 50 || *before.Logs[49].Text != "n49" || before.Next != nil {
		t.Errorf("before them are %s, %v", w.Body, err)
	}
	if call, body := knownCall(t, a, "wide"); len(call.Log) < 4 || len(body) > 4<<20 || call.LogNext == nil {
		t.Errorf("of long lines there are %d with %d bytes", len(call.Log), len(body))
	}
	if call, body := knownCall(t, a, "silent"); len(call.Log) != 0 || !strings.Contains(body, `"log": []`) {
		t.Errorf("a call that printed nothing is %s", body)
	}
}

// TestCallWithoutLogs: a call is there also when its lines are not, to those who may read
// its function.
func TestCallWithoutLogs(t *testing.T) {
	a, kept, lines := listening(t, map[string]string{"bob": "read:hello", "carl": "read:other"})
	kept.Record(faas.CallRecord{ID: "c1", Function: testID, Outcome: "ok", Started: time.Now()})
	recorded(t, kept, 1)
	lines.Write(printed(testID, "c1", "secret", time.Now()))
	bob, carl := []string{"Authorization", "Bearer " + secretOf("bob")}, []string{"Authorization", "Bearer " + secretOf("carl")}
	if call, _ := knownCall(t, a, "c1", bob...); textsOf(call.Log) != "secret" {
		t.Errorf("bob sees %s", textsOf(call.Log))
	}
	if w := serve(a, "GET", "/api/calls/c1", "", carl...); w.Code != 404 || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("carl sees %d %s", w.Code, w.Body)
	}
	for what, instead := range map[string]faas.Logs{"no logs are kept": nil, "they cannot be read": brokenLogs(t)} {
		b := a.opened.Load().Backend
		b.Logs = instead
		a.Open(b)
		if call, body := knownCall(t, a, "c1", bob...); call.ID != "c1" || strings.Contains(body, `"log`) {
			t.Errorf("%s: answered %s", what, body)
		}
	}
}

// brokenLogs returns logs that could not be opened.
func brokenLogs(t *testing.T) *logs.Logs {
	t.Helper()
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, logs.Name), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	broken, err := logs.Open(logs.Config{Data: data, MaxBytes: 64 << 20, Lost: func(int) {}, Failed: func(error) {}})
	if err == nil {
		t.Fatal("logs are opened in place of a file")
	}
	t.Cleanup(func() { broken.Close() })
	return broken
}

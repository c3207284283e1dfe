package store_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/store"
	"github.com/flockofbirds/fob/internal/store/storetest"
)

// functionRecord is a good record, changed by a case of TestRecords.
func functionRecord(t *testing.T, change func(record, version map[string]any)) string {
	fn, _ := storetest.NewFunction("hello")
	fn.ID, fn.Versions[0].FunctionID = "ID", "ID"
	text, err := json.Marshal(fn)
	check(t, err)
	var record map[string]any
	check(t, json.Unmarshal(text, &record))
	record["schema"] = 1
	change(record, record["versions"].([]any)[0].(map[string]any))
	text, err = json.Marshal(record)
	check(t, err)
	return string(text)
}

// tokenRecord is the record of a token, with so many digits of a hash.
func tokenRecord(id string, digits int) string {
	return `{"schema":1,"id":"` + id + `","name":"x","grants":["read:hello"],"created":"2026-01-02T03:04:05Z","sha256":"` + strings.Repeat("0", digits) + `"}`
}

// TestRecords reads records that this dispatcher did not write. want is a part
// of the error, "" where the record is good.
func TestRecords(t *testing.T) {
	function := func(change func(record, version map[string]any)) string { return functionRecord(t, change) }
	type fields = map[string]any
	for name, test := range map[string]struct{ key, value, want string }{
		"as written":          {"function/ID", function(func(_, _ fields) {}), ""},
		"more than we know":   {"function/ID", function(func(r, v fields) { r["owner"] = "x"; v["gpus"] = 1 }), ""},
		"no bytes":            {"function/ID", "", "function/ID"},
		"not JSON":            {"function/ID", `{"schema": 1`, "function/ID"},
		"null":                {"function/ID", `null`, "schema"},
		"a list":              {"function/ID", `[]`, "function/ID"},
		"no schema":           {"function/ID", function(func(r, _ fields) { delete(r, "schema") }), "schema"},
		"newer schema":        {"function/ID", function(func(r, _ fields) { r["schema"] = 3 }), "newer dispatcher"},
		"no ID":               {"function/ID", function(func(r, _ fields) { delete(r, "id") }), "ID"},
		"another's ID":        {"function/OTHER", function(func(_, _ fields) {}), "function \"ID\""},
		"no versions":         {"function/ID", function(func(r, _ fields) { r["versions"] = []any{} }), "no version"},
		"null versions":       {"function/ID", function(func(r, _ fields) { r["versions"] = nil }), "no version"},
		"a null version":      {"function/ID", function(func(r, _ fields) { r["versions"] = []any{nil} }), "versions"},
		"version 0":           {"function/ID", function(func(_, v fields) { v["version"] = 0 }), "versions"},
		"the same twice":      {"function/ID", function(func(r, v fields) { r["versions"] = []any{v, v} }), "ascending"},
		"another's version":   {"function/ID", function(func(_, v fields) { v["function"] = "OTHER" }), "versions"},
		"no live":             {"function/ID", function(func(r, _ fields) { r["aliases"] = fields{"stable": 1} }), "live"},
		"no aliases":          {"function/ID", function(func(r, _ fields) { delete(r, "aliases") }), "live"},
		"live to nowhere":     {"function/ID", function(func(r, _ fields) { r["aliases"] = fields{"live": 2} }), "live"},
		"alias to nowhere":    {"function/ID", function(func(r, _ fields) { r["aliases"] = fields{"live": 1, "x": 7} }), `"x"`},
		"bad duration":        {"function/ID", function(func(_, v fields) { v["settings"] = fields{"timeout": "soon"} }), "function/ID"},
		"bad time":            {"function/ID", function(func(r, _ fields) { r["created"] = "yesterday" }), "function/ID"},
		"sandbox as written":  {"sandbox/00aa", `{"schema":1,"function":"ID","version":1}`, ""},
		"sandbox not JSON":    {"sandbox/00aa", `x`, "sandbox/00aa"},
		"sandbox of nothing":  {"sandbox/00aa", `{"schema":1}`, "no version"},
		"sandbox, new schema": {"sandbox/00aa", `{"schema":9,"function":"ID","version":1}`, "newer dispatcher"},
		"token as written":    {"token/ab", tokenRecord("ab", 64), ""},
		"another's token":     {"token/cd", tokenRecord("ab", 64), `token "ab"`},
		"token, short hash":   {"token/ab", tokenRecord("ab", 62), "hash"},
		"token, no schema":    {"token/ab", `{"id":"ab"}`, "schema"},
		"token, odd grant":    {"token/ab", `{"schema":1,"id":"ab","grants":["fly"]}`, "token/ab"},
		"secret of another":   {"secret/A", `{"schema":1,"name":"B","version":1,"key":"k","sealed":"eA=="}`, "another secret"},
		"secret of nothing":   {"secret/A", `{"schema":1,"name":"A","version":1,"key":"k"}`, "no sealed secret"},
		"secret, new schema":  {"secret/A", `{"schema":9,"name":"A","version":1,"key":"k","sealed":"eA=="}`, "newer dispatcher"},
		"aviary":              {"meta/aviary", `01234abc`, ""},
		"aviary too long":     {"meta/aviary", `01234abcd`, "meta/aviary"},
		"aviary empty":        {"meta/aviary", ``, "meta/aviary"},
	} {
		t.Run(name, func(t *testing.T) {
			kv := store.NewMemory()
			s := newStore(t, kv)
			check(t, kv.Commit(t.Context(), store.Txn{Put: []store.Pair{{Key: test.key, Value: []byte(test.value)}}}))
			_, err1 := s.Functions(t.Context())
			_, err2 := s.Sandboxes(t.Context())
			_, err3 := s.Aviary(t.Context())
			_, err4 := s.Tokens(t.Context())
			_, err5 := s.Secrets(t.Context())
			err := errors.Join(err1, err2, err3, err4, err5)
			if test.want == "" {
				check(t, err)
				return
			}
			wantMessage(t, err, test.key, test.want)
			if domain, ok := errors.AsType[*faas.Error](err); !ok || domain.Code != faas.CodeInternal {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// TestRecordKeepsAll guards against a field of Function or Version that JSON
// does not carry: every one is given a value that is not its zero.
func TestRecordKeepsAll(t *testing.T) {
	fn, code := storetest.NewFunction("hello")
	v := fn.Versions[0]
	v.Settings.MinScale, v.Settings.PauseAfter, v.Settings.Network, v.Settings.Public = 1, 1, faas.NetworkNone, true
	v.Settings.Env, v.Settings.Secrets, v.Settings.Runtime = `{"A":"1"}`, "B,C", "runsc"
	v.Settings.CORS = faas.AnyOrigin
	for _, value := range []any{*fn, *v, v.Settings} {
		for field, held := range reflect.ValueOf(value).Fields() {
			if held.IsZero() {
				t.Fatalf("give %T.%s a value", value, field.Name)
			}
		}
	}
	s := newStore(t, store.NewMemory())
	check(t, s.CreateFunction(t.Context(), fn, code, ""))
	stored, err := s.Functions(t.Context())
	check(t, err)
	got := stored[0]
	if !got.Created.Equal(fn.Created) || !got.Versions[0].Created.Equal(v.Created) {
		t.Error("the times changed")
	}
	got.Created, got.Versions[0].Created = fn.Created, v.Created
	if !reflect.DeepEqual(got, fn) {
		t.Errorf("stored %+v, got %+v", fn, got)
	}
}

// TestRecordOfFewerSettings: what an older dispatcher stored must not read as
// a limit of zero.
func TestRecordOfFewerSettings(t *testing.T) {
	kv := store.NewMemory()
	s := newStore(t, kv)
	value := functionRecord(t, func(_, v map[string]any) {
		v["settings"] = map[string]any{"timeout": "5s", "memory": "64MB", "cpus": 1, "concurrency": 2, "min_scale": 0,
			"max_scale": 3, "idle_timeout": "1m0s", "queue": 5, "queue_timeout": "1s", "network": "none"}
	})
	check(t, kv.Commit(t.Context(), store.Txn{Put: []store.Pair{{Key: "function/ID", Value: []byte(value)}}}))
	stored, err := s.Functions(t.Context())
	check(t, err)
	want := faas.DefaultSettings()
	want.Timeout, want.Memory, want.Concurrency, want.MaxScale = faas.Duration(5*time.Second), 64<<20, 2, 3
	want.IdleTimeout, want.Queue, want.QueueTimeout, want.Network = faas.Duration(time.Minute), 5, faas.Duration(time.Second), faas.NetworkNone
	if got := stored[0].Live().Settings; got != want || got.MaxConcurrency != faas.Unlimited {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestMissingCode tells damage from a version that never was.
func TestMissingCode(t *testing.T) {
	kv := store.NewMemory()
	s := newStore(t, kv)
	fn, code := storetest.NewFunction("")
	check(t, s.CreateFunction(t.Context(), fn, code, ""))
	check(t, kv.Commit(t.Context(), store.Txn{DeletePrefix: []string{"code/"}}))
	_, err := s.Code(t.Context(), fn.ID, 1)
	wantMessage(t, err, "code/"+fn.ID+"/00000001", "backup")
	_, err = s.Code(t.Context(), fn.ID, 2)
	if faas.CodeOf(err) != faas.CodeUnknownFunction {
		t.Error(err)
	}
}

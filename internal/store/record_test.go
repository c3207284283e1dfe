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
	version := map[string]any{"version": 1, "digest": faas.Digest("")}
	record := map[string]any{
		"schema": 3, "id": "ID", "name": "hello", "created": time.Now(), "aliases": map[string]any{"live": 1}, "versions": []any{version},
	}
	change(record, version)
	text, err := json.Marshal(record)
	check(t, err)
	return string(text)
}

// versionRecord is that of the version in it.
func versionRecord(t *testing.T, change func(record map[string]any)) string {
	v, _ := storetest.NewFunction("hello")
	text, err := json.Marshal(v.Live())
	check(t, err)
	var record map[string]any
	check(t, json.Unmarshal(text, &record))
	record["schema"], record["function"] = 3, "ID"
	change(record)
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
	version := func(change func(record map[string]any)) string { return versionRecord(t, change) }
	const first = "version/ID/00000001"
	for name, test := range map[string]struct{ key, value, want string }{
		"as written":          {"function/ID", function(func(_, _ fields) {}), ""},
		"more than we know":   {"function/ID", function(func(r, v fields) { r["owner"] = "x"; v["gpus"] = 1 }), ""},
		"no bytes":            {"function/ID", "", "function/ID"},
		"not JSON":            {"function/ID", `{"schema": 1`, "function/ID"},
		"null":                {"function/ID", `null`, "schema"},
		"a list":              {"function/ID", `[]`, "function/ID"},
		"no schema":           {"function/ID", function(func(r, _ fields) { delete(r, "schema") }), "schema"},
		"newer schema":        {"function/ID", function(func(r, _ fields) { r["schema"] = 5 }), "newer dispatcher"},
		"no ID":               {"function/ID", function(func(r, _ fields) { delete(r, "id") }), "ID"},
		"another's ID":        {"function/OTHER", function(func(_, _ fields) {}), "function \"ID\""},
		"no versions":         {"function/ID", function(func(r, _ fields) { r["versions"] = []any{} }), "no version"},
		"null versions":       {"function/ID", function(func(r, _ fields) { r["versions"] = nil }), "no version"},
		"a null version":      {"function/ID", function(func(r, _ fields) { r["versions"] = []any{nil} }), "ascending"},
		"version 0":           {"function/ID", function(func(_, v fields) { v["version"] = 0 }), "ascending"},
		"the same twice":      {"function/ID", function(func(r, v fields) { r["versions"] = []any{v, v} }), "ascending"},
		"version as written":  {first, version(func(fields) {}), ""},
		"version, more":       {first, version(func(r fields) { r["gpus"] = 1 }), ""},
		"version not JSON":    {first, `x`, first},
		"version null":        {first, `null`, first},
		"another's version":   {first, version(func(r fields) { r["function"] = "OTHER" }), "another version"},
		"another version":     {first, version(func(r fields) { r["version"] = 2 }), "another version"},
		"version, no schema":  {first, version(func(r fields) { delete(r, "schema") }), "schema"},
		"version, new schema": {first, version(func(r fields) { r["schema"] = 5 }), "newer dispatcher"},
		"no live":             {"function/ID", function(func(r, _ fields) { r["aliases"] = fields{"stable": 1} }), "live"},
		"no aliases":          {"function/ID", function(func(r, _ fields) { delete(r, "aliases") }), "live"},
		"live to nowhere":     {"function/ID", function(func(r, _ fields) { r["aliases"] = fields{"live": 2} }), "live"},
		"alias to nowhere":    {"function/ID", function(func(r, _ fields) { r["aliases"] = fields{"live": 1, "x": 7} }), `"x"`},
		"bad duration":        {first, version(func(r fields) { r["settings"] = fields{"timeout": "soon"} }), first},
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
			txn := store.Txn{Put: []store.Pair{{Key: test.key, Value: []byte(test.value)}}}
			switch test.key {
			case "function/ID", "function/OTHER":
				txn.Put = append(txn.Put, store.Pair{Key: first, Value: []byte(version(func(fields) {}))})
			case first:
				txn.Put = append(txn.Put, store.Pair{Key: "function/ID", Value: []byte(function(func(_, _ fields) {}))})
			}
			check(t, kv.Commit(t.Context(), txn))
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
	v := fn.Live()
	v.Settings.MinScale, v.Settings.PauseAfter, v.Settings.Network, v.Settings.Public = 1, 1, faas.NetworkNone, true
	v.Settings.Env, v.Settings.Secrets, v.Settings.Runtime = `{"A":"1"}`, "B,C", "runsc"
	v.Settings.CORS, v.Settings.Description, v.Settings.MaxCalls = faas.AnyOrigin, "Greets.", 1
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
	if !got.Created.Equal(fn.Created) || !got.Current.Created.Equal(v.Created) {
		t.Error("the times changed")
	}
	got.Created, got.Current.Created = fn.Created, v.Created
	if !reflect.DeepEqual(got, fn) {
		t.Errorf("stored %+v, got %+v", fn, got)
	}
}

// TestRecordOfFewerSettings: what an older dispatcher stored must not read as
// a limit of zero.
func TestRecordOfFewerSettings(t *testing.T) {
	kv := store.NewMemory()
	s := newStore(t, kv)
	value := versionRecord(t, func(v map[string]any) {
		v["settings"] = map[string]any{"timeout": "5s", "memory": "64MB", "cpus": 1, "concurrency": 2, "min_scale": 0,
			"max_scale": 3, "idle_timeout": "1m0s", "queue": 5, "queue_timeout": "1s", "network": "none"}
	})
	check(t, kv.Commit(t.Context(), store.Txn{Put: []store.Pair{
		{Key: "function/ID", Value: []byte(functionRecord(t, func(_, _ map[string]any) {}))},
		{Key: "version/ID/00000001", Value: []byte(value)},
	}}))
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
	check(t, kv.Commit(t.Context(), store.Txn{DeletePrefix: []string{"meta/code/"}}))
	_, err := s.Code(t.Context(), fn.ID, 1)
	wantMessage(t, err, "meta/code/"+fn.ID+"/", "backup")
	_, err = s.Code(t.Context(), fn.ID, 2)
	if faas.CodeOf(err) != faas.CodeUnknownFunction {
		t.Error(err)
	}
	check(t, kv.Commit(t.Context(), store.Txn{DeletePrefix: []string{"version/"}}))
	for _, read := range []func() error{
		func() error { _, err := s.Version(t.Context(), fn.ID, 1); return err },
		func() error { _, err := s.Functions(t.Context()); return err },
	} {
		wantMessage(t, read(), "version/"+fn.ID+"/00000001", "backup")
	}
}

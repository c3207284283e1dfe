package store

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// FuzzRecords: what is read from the file is a record on which others can rely, or an
// error; and it is written again as it was read.
func FuzzRecords(f *testing.F) {
	v := &faas.Version{FunctionID: "id", Number: 1, Lang: "python", Settings: faas.DefaultSettings(), Created: time.Unix(1e9, 0).UTC(), Size: 3, Digest: "sha256:0"}
	fn := (&faas.Function{ID: "id", Name: "hello", Created: v.Created}).With(v)
	addRecord(f, &functionKind, "id", &functionRecord{Function: fn, Versions: []keptVersion{{1, v.Digest}}})
	addRecord(f, &versionKind, "id/00000001", &versionRecord{Version: v})
	addRecord(f, &sandboxKind, "s", &sandboxRecord{VersionKey: v.Key()})
	addRecord(f, &tokenKind, "t", &tokenRecord{Token: faas.Token{ID: "t", Grants: []faas.Grant{{Scope: faas.ScopeRead}}, Created: v.Created}, Hash: &hexHash{1}})
	addRecord(f, &secretKind, "S", &secretRecord{SealedSecret: &faas.SealedSecret{Secret: faas.Secret{Name: "S", Version: 1, Created: v.Created}, Key: "k", Sealed: []byte{1}}})
	for _, seed := range []string{
		"", "null", "{}", `{"schema":1}`, `{"schema":2,"id":"id"}`, `{"schema":1,"id":"id","versions":[null],"aliases":{"live":1}}`, `{"schema":1,"id":"id","versions":[{"function":"id","version":1}],"aliases":{"live":1}}`,
		`{"schema":1,"id":"id","versions":[{"function":"id","version":1}],"aliases":{"live":2}}`, `{"schema":1,"id":"id","versions":[{"function":"id","version":2},{"function":"id","version":1}],"aliases":{"live":1}}`,
		`{"schema":1,"id":"id","versions":[{"function":"id","version":1,"settings":{"timeout":"x"}}],"aliases":{"live":1}}`, `{"schema":1,"function":"id","version":1}`, `{"schema":1,"function":"","version":1}`, `{"schema":1,"Function":null}`,
	} {
		f.Add("function/id", []byte(seed))
		f.Add("sandbox/s", []byte(seed))
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		e := Entry{Key: key, Value: value}
		fn := readAgain(t, &functionKind, e)
		if fn != nil {
			if fn := fn.function(); !fn.Has(fn.Aliases[faas.Live]) || !fn.Has(fn.Latest()) {
				t.Fatalf("%s holds %+v", key, fn)
			}
			if old, err := readSecond(e); err == nil && len(old.Versions) != len(fn.Versions) {
				t.Fatalf("%s is a function of an older schema only: %+v", key, old)
			}
		}
		readAgain(t, &versionKind, e)
		readAgain(t, &sandboxKind, e)
		readAgain(t, &tokenKind, e)
		readAgain(t, &secretKind, e)
	})
}

// addRecord adds a good record to what is fuzzed.
func addRecord[R any](f *testing.F, k *kind[R], id string, r *R) {
	pair, err := k.put(id, r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pair.Key, pair.Value)
}

// readAgain reads an entry as a record, or returns nil, and has it written and read
// again.
func readAgain[R any](t *testing.T, k *kind[R], e Entry) *R {
	r, err := k.decode(e)
	if (r == nil) != (err != nil) {
		t.Fatalf("%+v with %v", r, err)
	}
	id, is := strings.CutPrefix(e.Key, k.prefix)
	if err != nil || !is { // a record that does not say where it belongs is good anywhere
		return nil
	}
	again, err := k.put(id, r)
	if err != nil {
		t.Fatalf("%+v cannot be written: %v", r, err)
	}
	if back, err := k.decode(Entry{Key: again.Key, Value: again.Value}); err != nil || !same(r, back) {
		t.Fatalf("%+v was written as %s and read as %+v, %v", r, again.Value, back, err)
	}
	return r
}

// same compares what two records say; an empty list is as good as none.
func same(a, b any) bool {
	one, err := json.Marshal(a)
	if err != nil {
		return false
	}
	other, err := json.Marshal(b)
	return err == nil && reflect.DeepEqual(one, other)
}

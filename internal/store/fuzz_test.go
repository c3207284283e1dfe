package store

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// FuzzRecords: what is read from the file is a function, a version, or the record of a
// sandbox, on which others can rely, or an error; and it is written again as it
// was read.
func FuzzRecords(f *testing.F) {
	v := &faas.Version{FunctionID: "id", Number: 1, Lang: "python", Settings: faas.DefaultSettings(), Created: time.Unix(1e9, 0).UTC(), Size: 3, Digest: "sha256:0"}
	fn := (&faas.Function{ID: "id", Name: "hello", Created: v.Created}).With(v)
	whole, err := encodeFunction(fn, []keptVersion{{1, v.Digest}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("function/id", whole)
	if whole, err = encodeVersion(v); err != nil {
		f.Fatal(err)
	}
	f.Add("version/id/00000001", whole)
	held, err := encodeSandbox(v.Key())
	if err != nil {
		f.Fatal(err)
	}
	f.Add("sandbox/s", held)
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
		fn, kept, err := decodeFunction(e)
		if (fn == nil) != (err != nil) {
			t.Fatalf("%+v with %v", fn, err)
		}
		if err == nil {
			if functionKey(fn.ID) != key || !fn.Has(fn.Aliases[faas.Live]) || !fn.Has(fn.Latest()) || len(kept) != len(fn.Versions) {
				t.Fatalf("%s holds %+v", key, fn)
			}
			again, err := encodeFunction(fn, kept)
			if err != nil {
				t.Fatalf("it cannot be written: %v", err)
			}
			if back, _, err := decodeFunction(Entry{Key: key, Value: again}); err != nil || !same(fn, back) {
				t.Fatalf("%+v was written as %s and read as %+v, %v", fn, again, back, err)
			}
		}
		if old, err := decodeSecond(e); err == nil && (fn == nil || len(old.Versions) != len(fn.Versions)) {
			t.Fatalf("%s is a function of an older schema only: %+v", key, old)
		}
		v, err := decodeVersion(e)
		if (v == nil) != (err != nil) {
			t.Fatalf("%+v with %v", v, err)
		}
		if err == nil {
			again, err := encodeVersion(v)
			if err != nil || versionKey(v.FunctionID, v.Number) != key {
				t.Fatalf("%s holds %+v, %v", key, v, err)
			}
			if back, err := decodeVersion(Entry{Key: key, Value: again}); err != nil || !same(v, back) {
				t.Fatalf("%+v was written as %s and read as %+v, %v", v, again, back, err)
			}
		}
		held, err := decodeSandbox(e)
		if (held == faas.VersionKey{}) != (err != nil) {
			t.Fatalf("%+v with %v", held, err)
		}
		if err == nil {
			again, err := encodeSandbox(held)
			if back, readErr := decodeSandbox(Entry{Key: key, Value: again}); err != nil || readErr != nil || back != held {
				t.Fatalf("%+v was written as %s and read as %+v, %v, %v", held, again, back, err, readErr)
			}
		}
	})
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

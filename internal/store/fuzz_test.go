package store

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// FuzzRecords: what is read from the file is a function, or the record of a
// sandbox, on which others can rely, or an error; and it is written again as it
// was read.
func FuzzRecords(f *testing.F) {
	v := &faas.Version{FunctionID: "id", Number: 1, Lang: "python", Settings: faas.DefaultSettings(), Created: time.Unix(1e9, 0).UTC(), Size: 3, Digest: "sha256:0"}
	fn := (&faas.Function{ID: "id", Name: "hello", Created: v.Created}).With(v)
	whole, err := encodeFunction(fn)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("function/id", whole)
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
		fn, err := decodeFunction(e)
		if (fn == nil) != (err != nil) {
			t.Fatalf("%+v with %v", fn, err)
		}
		if err == nil {
			if functionKey(fn.ID) != key || fn.Live() == nil || fn.Latest() == nil || fn.Live().FunctionID != fn.ID {
				t.Fatalf("%s holds %+v", key, fn)
			}
			again, err := encodeFunction(fn)
			if err != nil {
				t.Fatalf("it cannot be written: %v", err)
			}
			if back, err := decodeFunction(Entry{Key: key, Value: again}); err != nil || !same(fn, back) {
				t.Fatalf("%+v was written as %s and read as %+v, %v", fn, again, back, err)
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

// same compares what two functions say; an empty list is as good as none.
func same(a, b *faas.Function) bool {
	one, err := json.Marshal(a)
	if err != nil {
		return false
	}
	other, err := json.Marshal(b)
	return err == nil && reflect.DeepEqual(one, other)
}

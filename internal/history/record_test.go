package history

import (
	"math/rand"
	"reflect"
	"testing"
	"testing/quick"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// usualCall is a record like nearly all.
var usualCall = faas.CallRecord{
	ID: "74673aaf-d67a-4802-81b8-0123456789ab", Function: "5717445b-494a-41cf-a079-0123456789ab", Name: "hello", Outcome: "ok", Version: 12, State: faas.CallDone,
	Started: time.Date(2026, 11, 28, 7, 30, 1, 123456000, time.UTC), Timing: faas.CallTiming{Queue: 0.012, Run: 1.207, Total: 1.293},
	Status: 200, Method: "POST", Path: "/api/call/hello", BytesIn: 14, BytesOut: 19, Caller: "token 5f0c0123456789ab (shop)", Address: "192.0.2.17:32976",
	Trace: "87e5774d45faad0189da0123456789ab", Span: "0123456789abcdef", Sandbox: "f310f8f03e1c39cd", Usage: faas.CallUsage{CPU: 0.093, Memory: 14 << 20},
}

// What is appended is what encoding/json makes of a record, whatever is in it.
func TestAppendCall(t *testing.T) {
	same := func(call *faas.CallRecord) bool {
		got, want := appendCall(nil, call), encode(call)
		if string(got) != string(want) {
			t.Errorf("it is\n%s, want\n%s", got, want)
		}
		return string(got) == string(want)
	}
	same(&usualCall)
	same(&faas.CallRecord{})
	random := rand.New(rand.NewSource(1))
	for range 2000 {
		call := usualCall
		fill(t, random, reflect.ValueOf(&call).Elem())
		if !same(&call) {
			return
		}
	}
}

// fill sets about half of the fields to anything.
func fill(t *testing.T, random *rand.Rand, v reflect.Value) {
	texts := []string{"", "plain", "a \"quote\" \\ and \n\r\t\x00\x1f", "é\u2028<b>&\xff", "\x7f"}
	numbers := []float64{0, 0.001, 1, 1234567.891, 1e-9, 1e21, -3.5, 1e300}
	for i := range v.NumField() {
		f := v.Field(i)
		if random.Intn(2) == 0 {
			continue
		}
		switch f.Kind() {
		case reflect.String:
			f.SetString(texts[random.Intn(len(texts))])
		case reflect.Float64:
			f.SetFloat(numbers[random.Intn(len(numbers))])
		case reflect.Struct:
			if f.Type() == reflect.TypeFor[time.Time]() {
				f.Set(reflect.ValueOf(time.Unix(random.Int63n(1<<32), random.Int63n(1e9)).UTC()))
				continue
			}
			fill(t, random, f)
		case reflect.Pointer:
			f.Set(reflect.New(f.Type().Elem()))
			fill(t, random, f.Elem())
		default:
			value, ok := quick.Value(f.Type(), random)
			if !ok {
				t.Fatalf("no value of type %s", f.Type())
			}
			f.Set(value)
		}
	}
}

// BenchmarkEncode encodes a record as the history does, and by encoding/json.
func BenchmarkEncode(b *testing.B) {
	for name, encoded := range map[string]func() []byte{
		"history": func() []byte { return appendCall(make([]byte, 0, 768), &usualCall) },
		"json":    func() []byte { return encode(&usualCall) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				encoded()
			}
		})
	}
}

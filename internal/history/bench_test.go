package history

import (
	"fmt"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
)

// BenchmarkSearch searches a history of a million calls: for the failures of one
// function, for a text that one record has, for one call, and for long ones.
func BenchmarkSearch(b *testing.B) {
	const records = 1_000_000
	h, err := Open(Config{Data: b.TempDir(), MaxBytes: 1 << 30, Lost: func(n int) { b.Errorf("%d are lost", n) }, Failed: func(err error) { b.Error(err) }})
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	begun := time.Now().UTC()
	size := 0
	for i := range records {
		call := faas.CallRecord{
			ID: fmt.Sprintf("74673aaf-d67a-4802-81b8-%012d", i), Function: fmt.Sprintf("5717445b-494a-41cf-a079-%012d", i%100), Name: fmt.Sprintf("hello-%d", i%100),
			Outcome: "ok", Version: 1 + i%10, State: faas.CallDone, Started: begun, Timing: faas.CallTiming{Run: float64(i%1000) / 10, Total: float64(i%1000) / 10},
			Status: 200, Method: "POST", Path: fmt.Sprintf("/api/call/hello-%d", i%100), BytesIn: 14, BytesOut: 19, Caller: "token 5f0c0123456789ab (shop)", Address: "192.0.2.17:32976",
			Trace: fmt.Sprintf("87e5774d45faad0189da%012d", i), Sandbox: "f310f8f03e1c39cd",
		}
		if i%1000 == 0 {
			call.Outcome, call.Status, call.Error = "function_raised", 0, &faas.CallError{Type: "KeyError", Message: fmt.Sprintf("'user-%d'", i), Line: 7, Traceback: "Traceback (most recent call last):\n  File \"function.py\", line 7, in callme\n"}
		}
		payload := encode(&call)
		size += len(payload)
		if _, err := h.journal.Append(payload); err != nil {
			b.Fatal(err)
		}
	}
	for name, query := range map[string]faas.CallQuery{
		"failed of one function": {Functions: []string{"5717445b-494a-41cf-a079-000000000000"}, Outcome: faas.OutcomeFailed},
		"text":                   {Text: "user-1000'"},
		"slow":                   {MinRun: 99900 * time.Microsecond},
		"a function's text":      {Functions: []string{"5717445b-494a-41cf-a079-000000000000"}, Text: "no such text"},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				n := 0
				for _, err := range h.Calls(query, nil) {
					if err != nil {
						b.Fatal(err)
					}
					if n++; n == 100 {
						break
					}
				}
			}
			b.ReportMetric(float64(size)/records, "bytes/record")
		})
	}
	b.Run("one call", func(b *testing.B) {
		for b.Loop() {
			if c, err := h.Call("74673aaf-d67a-4802-81b8-000000000000", nil, nil); err != nil || c.Number != 1 {
				b.Fatal(c, err)
			}
		}
	})
}

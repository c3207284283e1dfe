package observe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/telemetry"
)

// TestFailuresHaveALine: each call that failed has a line, and no other has.
func TestFailuresHaveALine(t *testing.T) {
	version := &faas.Version{FunctionID: "f", Number: 2}
	stream := func(body io.Reader) faas.Result {
		return faas.Result{Version: version, Body: io.NopCloser(body), Length: -1}
	}
	for name, test := range map[string]struct {
		answers
		ref  faas.Ref
		line string
	}{
		"raised": {answers{faas.Result{Version: version}, faas.Errorf(faas.CodeRaised, "\nthe function raised E: x\nmore")}, faas.Ref{Name: "hello"},
			`{"level":"warn","call":"c1","function":"f","name":"hello","version":2,"outcome":"function_raised","error":"the function raised E: x","message":"a call failed"}` + "\n"},
		"by its ID": {answers{faas.Result{Version: version}, faas.Errorf(faas.CodeSandboxDied, "died").Because(errors.New("reset"))}, faas.Ref{ID: "f"},
			`{"level":"warn","call":"c1","function":"f","name":"name of f","version":2,"outcome":"sandbox_died","error":"died: reset","message":"a call failed"}` + "\n"},
		"breaks off": {answers{stream(breaks{strings.NewReader("x")}), nil}, faas.Ref{Name: "hello"},
			`{"level":"warn","call":"c1","function":"f","name":"hello","version":2,"outcome":"timeout","error":"too late","message":"a call failed"}` + "\n"},
		"no function": {answers{faas.Result{}, faas.Errorf(faas.CodeStorage, "no disk")}, faas.Ref{Name: "hello"},
			`{"level":"warn","call":"c1","function":"","name":"hello","version":0,"outcome":"storage_failed","error":"no disk","message":"a call failed"}` + "\n"},
		"a bug": {answers{faas.Result{Version: version}, errors.New("oh")}, faas.Ref{Name: "hello"},
			`{"level":"warn","call":"c1","function":"f","name":"hello","version":2,"outcome":"internal","error":"oh","message":"a call failed"}` + "\n"},
		"unknown":   {answers{faas.Result{}, faas.UnknownFunction(faas.Ref{Name: "hello"})}, faas.Ref{Name: "hello"}, ""},
		"left":      {answers{faas.Result{Version: version}, context.Canceled}, faas.Ref{Name: "hello"}, ""},
		"went well": {answers{faas.Result{Version: version, Body: io.NopCloser(strings.NewReader("x")), Length: 1}, nil}, faas.Ref{Name: "hello"}, ""},
		"streamed":  {answers{stream(strings.NewReader("x")), nil}, faas.Ref{Name: "hello"}, ""},
	} {
		var log bytes.Buffer
		failures := NewFailures(zerolog.New(&log), func(id string) string { return "name of " + id })
		invoker := Metrics(telemetry.NewMetrics(), failures)(test.answers)
		result, err := invoker.Invoke(t.Context(), &faas.Invocation{ID: "c1", Ref: test.ref}, nil)
		if err == nil {
			io.Copy(io.Discard, result.Body)
			result.Body.Close()
		}
		failures.Close()
		if log.String() != test.line {
			t.Errorf("%s: the log is %s, and not %s", name, log.String(), test.line)
		}
	}
}

// TestAccount: a function has so many lines at once and so many a second, and what is more
// is counted.
func TestAccount(t *testing.T) {
	var a account
	now := time.Now()
	takes := func(tries, want, left int) {
		t.Helper()
		n := 0
		for range tries {
			if a.take(now) {
				n++
			}
		}
		if n != want || a.left != left {
			t.Errorf("%d of %d had a line and %d were left out, and not %d and %d", n, tries, a.left, want, left)
		}
	}
	takes(100, failureBurst, 80)
	now = now.Add(time.Second)
	takes(100, failureRate, 175)
	now = now.Add(-time.Hour) // a clock that is set back gives nothing, and takes nothing
	takes(1, 0, 176)
	now = now.Add(time.Hour + time.Minute)
	takes(100, failureBurst, 256)
}

// TestLeftOutIsTold: the log tells once how many failures of each function had no line, and
// what is kept of a function goes when it fails no more.
func TestLeftOutIsTold(t *testing.T) {
	var log bytes.Buffer
	f := NewFailures(zerolog.New(&log), strings.ToUpper)
	now := time.Now()
	for range 100 {
		f.admit("a", now)
	}
	f.admit("b", now)
	f.tell(now)
	const line = `{"level":"warn","function":"a","name":"A","left_out":80,"message":"more calls failed than the log has lines for"}` + "\n"
	if log.String() != line {
		t.Errorf("the log is %s, and not %s", log.String(), line)
	}
	log.Reset()
	f.tell(now.Add(time.Minute))
	if log.Len() > 0 || len(f.each) > 0 {
		t.Errorf("the log tells %s again, and knows of %d functions", log.String(), len(f.each))
	}
	f.tick()
	if f.timer != nil {
		t.Error("the timer runs though nothing fails")
	}
	for range 30 {
		f.admit("a", time.Now())
	}
	f.Close()
	if !strings.Contains(log.String(), `"function":"a","name":"A","left_out":10`) {
		t.Errorf("at the end the log is %s", log.String())
	}
}

// TestManyFunctionsFail: what is kept is bounded, and no failure is left uncounted.
func TestManyFunctionsFail(t *testing.T) {
	var log bytes.Buffer
	f := NewFailures(zerolog.New(&log), func(string) string { return "" })
	now, lines := time.Now(), 0
	for i := range 10 * maxFailing {
		if f.admit(fmt.Sprint(i), now) {
			lines++
		}
	}
	if lines != maxFailing+failureBurst || len(f.each) != maxFailing {
		t.Errorf("%d lines, and %d functions are kept", lines, len(f.each))
	}
	f.Close()
	if want := fmt.Sprintf(`"left_out":%d,"message":"more calls failed than the log has lines for, of many functions"`, 10*maxFailing-lines); !strings.Contains(log.String(), want) {
		t.Errorf("the log is %s, and lacks %s", log.String(), want)
	}
}

// TestFailuresAtOnce: of failures that come at once each has a line or is counted.
func TestFailuresAtOnce(t *testing.T) {
	var log bytes.Buffer
	f := NewFailures(zerolog.New(zerolog.SyncWriter(&log)), func(string) string { return "" })
	version, err := &faas.Version{FunctionID: "f"}, faas.Errorf(faas.CodeRaised, "no")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 500 {
				f.failed(&faas.Invocation{ID: "c"}, version, err)
			}
		})
	}
	all.Go(f.tick)
	all.Wait()
	f.Close()
	seen := strings.Count(log.String(), `"a call failed"`)
	for line := range strings.Lines(log.String()) {
		var n int
		if _, after, is := strings.Cut(line, `"left_out":`); is {
			fmt.Sscan(strings.TrimRight(after[:strings.Index(after, ",")], " "), &n)
		}
		seen += n
	}
	if seen != 8*500 {
		t.Errorf("the log tells of %d failures", seen)
	}
}

// TestFailureTexts: whatever a function raises, the line is one line, not long, and harmless.
func TestFailureTexts(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		path := filepath.Join(t.TempDir(), "log")
		out, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		log, err := telemetry.NewLogger(out, format, "warn")
		if err != nil {
			t.Fatal(err)
		}
		f := NewFailures(log, func(string) string { return "" })
		texts := []string{
			"\x1b[31mred\x00\u009b1m\u202e", "one\nlevel=error", "one\rlevel=error", "one\u2028level=error", "one\u0085level=error",
			"\xff\xfe", "\n\n", strings.Repeat("é", 1<<20), strings.Repeat("\x1b", 1<<20),
		}
		for i, text := range texts {
			f.failed(&faas.Invocation{ID: "c"}, &faas.Version{FunctionID: fmt.Sprint(i)}, faas.Errorf(faas.CodeRaised, "%s", text))
		}
		f.Close()
		out.Close()
		said, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(said), "\n"); n != len(texts) || strings.Contains(string(said), "level=error") {
			t.Errorf("%s: %d lines: %s", format, n, said)
		}
		for _, r := range string(said) {
			if !unicode.IsPrint(r) && r != '\n' {
				t.Errorf("%s: there is %U", format, r)
			}
		}
		for line := range strings.Lines(string(said)) {
			if len(line) > 6*maxFailureText+500 {
				t.Errorf("%s: a line of %d bytes", format, len(line))
			}
		}
	}
}

// TestSuccessCostsNothing: the log of failures costs a call that went well no allocation,
// also one that streams.
func TestSuccessCostsNothing(t *testing.T) {
	version := &faas.Version{FunctionID: "f"}
	failures := NewFailures(zerolog.Nop(), nil)
	call := &faas.Invocation{ID: "c1"}
	for _, length := range []int64{0, -1} {
		allocations := func(failures *Failures) float64 {
			metrics := telemetry.NewMetrics()
			metrics.Know("f")
			invoker := Metrics(metrics, failures)(answers{faas.Result{Version: version, Body: io.NopCloser(strings.NewReader("")), Length: length}, nil})
			return testing.AllocsPerRun(100, func() {
				result, _ := invoker.Invoke(t.Context(), call, nil)
				result.Body.Read(nil)
				result.Body.Close()
			})
		}
		if with, without := allocations(failures), allocations(nil); with > without {
			t.Errorf("length %d: %v allocations, and without %v", length, with, without)
		}
	}
}

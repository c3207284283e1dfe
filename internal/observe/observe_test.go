package observe

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/telemetry"
)

// answers is an Invoker that always answers the same.
type answers struct {
	result faas.Result
	err    error
}

func (a answers) Invoke(context.Context, *faas.Invocation, faas.LiveBody) (faas.Result, error) {
	return a.result, a.err
}

// breaks is a body that fails once it was read.
type breaks struct{ io.Reader }

func (b breaks) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		err = faas.Errorf(faas.CodeTimeout, "too late")
	}
	return n, err
}

// TestACallIsSeenOnce: each call is counted and logged once, when it is over, with how
// it ended.
func TestACallIsSeenOnce(t *testing.T) {
	version := &faas.Version{FunctionID: "f", Number: 2}
	timing := faas.Timing{Queue: time.Second, Run: time.Millisecond}
	text := func(s string) io.ReadCloser { return io.NopCloser(strings.NewReader(s)) }
	for name, test := range map[string]struct {
		answers
		read    bool // to its end, before it is closed
		outcome string
		counted string // as this outcome
		line    string // what the log has besides
	}{
		"whole":          {answers{faas.Result{Version: version, Timing: timing, Status: 201, Body: text("x"), Length: 1}, nil}, true, "ok", "ok", `"status":201`},
		"streams":        {answers{faas.Result{Version: version, Timing: timing, Status: 200, Body: text("x"), Length: -1}, nil}, true, "ok", "ok", `"function":"f","version":2`},
		"is left":        {answers{faas.Result{Version: version, Timing: timing, Status: 200, Body: text("x"), Length: -1}, nil}, false, "cancelled", "cancelled", `"run":1`},
		"breaks off":     {answers{faas.Result{Version: version, Timing: timing, Status: 200, Body: io.NopCloser(breaks{strings.NewReader("x")}), Length: -1}, nil}, true, "timeout", "function_error", `"error":"too late"`},
		"fails":          {answers{faas.Result{Version: version, Timing: timing}, faas.Errorf(faas.CodeRaised, "no")}, false, "function_raised", "function_error", `"queue":1000`},
		"was left":       {answers{faas.Result{Version: version}, context.Canceled}, false, "cancelled", "cancelled", `"who":"local"`},
		"fails for us":   {answers{faas.Result{Version: version}, errors.New("a bug")}, false, "internal", "platform_error", `"ref":"hello"`},
		"is refused":     {answers{faas.Result{Version: version}, faas.Errorf(faas.CodeOverLimit, "busy")}, false, "over_limit", "throttled", `"error":"busy"`},
		"asks wrongly":   {answers{faas.Result{Version: version}, faas.Errorf(faas.CodeBadArguments, "no")}, false, "bad_arguments", "caller_error", `"error":"no"`},
		"has no version": {answers{faas.Result{}, faas.UnknownFunction(faas.Ref{Name: "hello"})}, false, "", "", `"outcome":"unknown_function"`},
	} {
		metrics, log := telemetry.NewMetrics(), new(bytes.Buffer)
		metrics.Know("f")
		invoker := faas.Stack(test.answers, Metrics(metrics, nil), Log(zerolog.New(log)))
		result, err := invoker.Invoke(t.Context(), &faas.Invocation{ID: "c1", Ref: faas.Ref{Name: "hello"}, Who: faas.Caller{Kind: faas.CallerLocal}}, nil)
		if !errors.Is(err, test.err) || result.Version != test.result.Version || result.Timing != test.result.Timing {
			t.Errorf("%s: became %+v, %v", name, result, err)
		}
		shows := func() string {
			w := httptest.NewRecorder()
			metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
			return w.Body.String()
		}
		if err == nil {
			if streams := result.Length < 0; streams && (log.Len() > 0 || !strings.Contains(shows(), "fob_calls_in_flight 1\n")) {
				t.Errorf("%s: seen before its end: %s", name, log)
			}
			if test.read {
				io.Copy(io.Discard, result.Body)
			}
			result.Body.Close()
			result.Body.Close()
		}
		got := shows()
		if !strings.Contains(got, "fob_calls_in_flight 0\n") || test.outcome != "" && !strings.Contains(got, `fob_calls_total{function="f",outcome="`+test.counted+`"} 1`+"\n") {
			t.Errorf("%s: the metrics are\n%s", name, got)
		}
		if code := `fob_call_errors_total{code="` + string(faas.CodeOf(test.err)) + `"} 1` + "\n"; test.err != nil && test.outcome != "cancelled" && !strings.Contains(got, code) {
			t.Errorf("%s: the metrics lack %s", name, code)
		}
		if test.outcome == "" && strings.Contains(got, "fob_calls_total{") {
			t.Errorf("%s: it is counted", name)
		}
		if strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), test.line) || test.outcome != "" && !strings.Contains(log.String(), `"outcome":"`+test.outcome+`"`) {
			t.Errorf("%s: the log is %s, and lacks %s", name, log, test.line)
		}
	}
}

// TestNoLayer: without the level debug the log costs a call nothing.
func TestNoLayer(t *testing.T) {
	if next := (&answers{}); Log(zerolog.New(io.Discard).Level(zerolog.InfoLevel))(next) != faas.Invoker(next) {
		t.Error("there is a layer")
	}
}

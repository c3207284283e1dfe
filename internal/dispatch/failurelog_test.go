package dispatch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox/process"
)

// TestFailuresInLogs: the log of a real function says after what a call printed how it
// failed, once, and how a load failed.
func TestFailuresInLogs(t *testing.T) {
	leakless(t)
	dir, err := os.MkdirTemp("/tmp", "fob") // short, for the sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	engine, err := process.New(process.Config{Dir: dir, Aviary: "fails", Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	kept := &linesKept{}
	w := newWorld(t, func(c *config) { c.Engine, c.Logs, c.LoadTimeout = engine, kept, time.Minute })
	defer w.Close()
	for name, test := range map[string]struct {
		lang, code, settings string
		want                 []string // LEVEL TEXT of the call's lines; a text that ends with … has more
		fails                faas.Code
	}{
		"python raises": {"python", "def callme():\n    print('printed')\n    raise KeyError('a\\nb')", "", []string{
			"stdout printed", "error Traceback (most recent call last):", `error   File "function.py", line 3, in callme`, "error     raise KeyError('a\\nb')", "error KeyError: 'a\\nb'",
		}, faas.CodeRaised},
		"node raises": {"node", "exports.callme = () => {\n  console.log('printed');\n  throw new RangeError('a\\nb');\n};", "", []string{
			"stdout printed", "error RangeError: a", "error b", "error     at …",
		}, faas.CodeRaised},
		"python exits": {"python", "import os\ndef callme():\n    print('printed')\n    os._exit(3)", "", []string{
			"stdout printed", "error the sandbox exited with code 3 while the function ran",
		}, faas.CodeSandboxDied},
		"node exits": {"node", "exports.callme = () => {\n  console.log('printed');\n  process.reallyExit(3);\n};", "", []string{
			"stdout printed", "error the sandbox exited with code 3 while the function ran",
		}, faas.CodeSandboxDied},
		"python runs on": {"python", "def callme():\n    print('printed')\n    while True: pass", "timeout=1s", []string{
			"stdout printed", "error the function was still running after its timeout of 1s, and was stopped",
		}, faas.CodeTimeout},
		"node runs on": {"node", "exports.callme = () => {\n  console.log('printed');\n  for (;;);\n};", "timeout=1s", []string{
			"stdout printed", "error the function was still running after its timeout of 1s, and was stopped",
		}, faas.CodeTimeout},
		"python streams and raises": {"python", "def callme():\n    yield 1\n    print('printed')\n    raise ValueError('late')", "", []string{
			"stdout printed", "stderr Traceback (most recent call last):", "stderr …", "stderr …", "stderr ValueError: late",
		}, faas.CodeRaised},
		"python streams and exits": {"python", "import os\ndef callme():\n    yield 1\n    print('printed')\n    os._exit(3)", "", []string{
			"stdout printed", "error the sandbox exited with code 3 while the function ran",
		}, faas.CodeSandboxDied},
		"python streams and runs on": {"python", "def callme():\n    yield 1\n    print('printed')\n    while True: pass", "timeout=1s", []string{
			"stdout printed", "error the function was still running after its timeout of 1s, and was stopped",
		}, faas.CodeTimeout},
		"python asks wrongly": {"python", "def callme(a):\n    pass", "", nil, faas.CodeBadArguments},
	} {
		fn, err := w.Create(t.Context(), "", faas.Draft{Code: test.code, Lang: test.lang, Settings: settings(test.settings)})
		if err != nil {
			t.Fatal(name, err)
		}
		result, err := w.Invoke(context.Background(), &faas.Invocation{ID: "mine", Ref: faas.Ref{ID: fn.ID}}, nil)
		if err == nil {
			buffer := make([]byte, 100)
			for err == nil {
				_, err = result.Body.Read(buffer)
			}
			result.Body.Close()
		}
		if faas.CodeOf(err) != test.fails {
			t.Errorf("%s: fails with %v", name, err)
		}
		var got []faas.LogLine
		eventually(t, name+": its lines come", func() bool {
			got = append(got, kept.take()...)
			return len(got) >= len(test.want)
		})
		time.Sleep(2 * failureQuiet) // any others would come now
		got = append(got, kept.take()...)
		if test.lang == "node" && len(got) > len(test.want) && test.fails == faas.CodeRaised {
			got = got[:len(test.want)] // how many there are is Node's affair
		}
		same := len(got) == len(test.want) && slices.IsSortedFunc(got, func(a, b faas.LogLine) int { return a.Time.Compare(b.Time) })
		for i := 0; same && i < len(got); i++ {
			want, begins := strings.CutSuffix(test.want[i], "…")
			text := got[i].Level + " " + string(got[i].Text)
			same = (text == want || begins && strings.HasPrefix(text, want)) &&
				got[i].Call == "mine" && got[i].Function == fn.ID && got[i].Version == 1 && got[i].Sandbox != ""
		}
		if !same {
			t.Errorf("%s: the lines are", name)
			for _, l := range got {
				t.Errorf("%v %s %s %q", l.Time, l.Call, l.Level, l.Text)
			}
		}
	}
}

// TestFailuresWait: failures come after the lines that were printed before them, those of
// loads too. What has no room is counted.
func TestFailuresWait(t *testing.T) {
	logging(t, func(t *testing.T, w *world, kept *linesKept) {
		w.engine.calls["raises"] = func(*fakeSandbox, *http.Request) string { return driverError(500, "raised", "KeyError", "x") }
		fn := w.create("raises", "")
		conn := w.engine.there()[0].logTo()
		began := time.Now()
		fails := func() {
			if o := w.call(t.Context(), faas.Ref{ID: fn.ID}); faas.CodeOf(o.err) != faas.CodeRaised {
				t.Errorf("answered %v", o.err)
			}
		}
		fails()
		synctest.Wait()
		fmt.Fprintf(conn, "x stdout %d 4\nlate", began.UnixMicro())
		time.Sleep(failureQuiet - time.Millisecond)
		if lines := kept.take(); len(lines) != 1 || string(lines[0].Text) != "late" {
			t.Errorf("first comes %+v", lines)
		}
		// One that is of a later time ends the wait.
		time.Sleep(time.Millisecond)
		fails()
		time.Sleep(time.Millisecond)
		fmt.Fprintf(conn, "x stdout %d 4\nnext", time.Now().UnixMicro())
		time.Sleep(2 * failureStep)
		lines := kept.take()
		if len(lines) != 3 || string(lines[2].Text) != "the function raised KeyError: x" || lines[2].Level != "error" || !lines[2].Time.Before(lines[1].Time) {
			t.Errorf("then come %+v", lines)
		}
		// A function that goes on printing does not hold it up for ever.
		fails()
		at := time.Now()
		for time.Since(at) < failurePatience+failureStep {
			fmt.Fprintf(conn, "x stdout %d 4\nmore", at.UnixMicro())
			time.Sleep(failureStep)
		}
		if !slices.ContainsFunc(kept.take(), func(l faas.LogLine) bool { return l.Level == "error" && l.Time.Equal(at) }) {
			t.Error("a failure waits for ever")
		}
		// Too many at once.
		log := w.flockOf(fn).birds[0].log
		const many, long = 100, 64 << 10
		for range many {
			log.fail("x", faas.Errorf(faas.CodeRaised, "%s", strings.Repeat("x", long)))
		}
		time.Sleep(time.Minute)
		came, missing := 0, 0
		for _, l := range kept.take() {
			if l.Level == "error" {
				came++
			}
			missing += l.Dropped
		}
		if came == 0 || came*long > maxFailures || came+missing != many {
			t.Errorf("of %d failures %d came and %d are missing", many, came, missing)
		}
		// What is nobody's fault but the caller's or the platform's is not in it.
		log.fail("x", errors.New("a bug"))
		log.fail("x", faas.Errorf(faas.CodeBadArguments, "no"))
		log.fail("x", faas.Errorf(faas.CodeNoCapacity, "no"))
		(*logListener)(nil).fail("x", faas.Errorf(faas.CodeRaised, "no"))
		time.Sleep(time.Second)
		if lines := kept.take(); len(lines) > 0 {
			t.Errorf("the log has %+v", lines)
		}
	})
}

// TestFailedLoadsInLogs: a load that fails is in the log of a function that is there.
func TestFailedLoadsInLogs(t *testing.T) {
	logging(t, func(t *testing.T, w *world, kept *linesKept) {
		down := driverError(422, "load_failed", "OSError", "no service")
		load := down
		w.engine.loads["imports"] = func(*fakeSandbox) string { return load }
		if _, err := w.Create(t.Context(), "", faas.Draft{Code: "imports"}); err == nil {
			t.Fatal("it is created")
		}
		time.Sleep(time.Second)
		if lines := kept.take(); len(lines) > 0 {
			t.Errorf("a function that is not there has %+v", lines)
		}
		load = ""
		fn := w.create("imports", "idle_timeout=1s")
		time.Sleep(5 * time.Second) // it is scaled to zero
		load = down
		w.call(t.Context(), faas.Ref{ID: fn.ID})
		time.Sleep(time.Second)
		lines := kept.take()
		if len(lines) == 0 || lines[0].Function != fn.ID || lines[0].Call != "" || lines[0].Level != "error" || !strings.Contains(string(lines[0].Text), "OSError: no service") {
			t.Errorf("the log has %+v", lines)
		}
	})
}

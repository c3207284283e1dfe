package dispatch

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// linesKept is a faas.LogWriter that keeps everything.
type linesKept struct {
	mu  sync.Mutex
	all []faas.LogLine
}

func (k *linesKept) Write(l faas.LogLine) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l.Text = []byte(string(l.Text))
	k.all = append(k.all, l)
}

// take returns what has come since it was asked last.
func (k *linesKept) take() []faas.LogLine {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := k.all
	k.all = nil
	return all
}

// logTo connects to the log's socket as a sandbox's code does. It returns nil if nobody
// listens.
func (s *fakeSandbox) logTo() net.Conn {
	s.mu.Lock()
	log := s.log
	s.mu.Unlock()
	if log == nil {
		return nil
	}
	ours, theirs := net.Pipe()
	select {
	case log.conns <- theirs:
		return ours
	case <-log.closed:
		return nil
	}
}

// logging simulates a world whose lines are kept.
func logging(t *testing.T, test func(*testing.T, *world, *linesKept)) {
	kept := &linesKept{}
	simulated(t, func(c *config) { c.Logs = kept }, func(t *testing.T, w *world) { test(t, w, kept) })
}

// TestLogOfCalls: a driver learns the call's ID, and its lines come with what the
// dispatcher knows of the sandbox.
func TestLogOfCalls(t *testing.T) {
	logging(t, func(t *testing.T, w *world, kept *linesKept) {
		var conn net.Conn
		w.engine.loads["prints"] = func(s *fakeSandbox) string {
			conn = s.logTo()
			fmt.Fprintf(conn, "- stderr %d 6\nimport", time.Now().UnixMicro())
			return ""
		}
		w.engine.calls["prints"] = func(s *fakeSandbox, r *http.Request) string {
			id := r.Header.Get("Fob-Call-Id")
			fmt.Fprintf(conn, "%s stdout+ %d %d\n%s- dropped %d 2\n12", id, time.Now().UnixMicro(), len(id), id, time.Now().UnixMicro())
			return s.version()
		}
		fn := w.create("prints", "")
		s := w.engine.there()[0]
		if s.loaded.Log != sandbox.LogName {
			t.Errorf("loaded with log %q", s.loaded.Log)
		}
		w.Invoke(t.Context(), &faas.Invocation{ID: "mine", Ref: faas.Ref{ID: fn.ID}}, nil)
		synctest.Wait()
		lines := kept.take()
		if len(lines) != 3 {
			t.Fatalf("there are %+v", lines)
		}
		for i, want := range []faas.LogLine{
			{Level: "stderr", Text: []byte("import")}, {Level: "stdout", Call: "mine", More: true, Text: []byte("mine")}, {Level: "warn", Dropped: 12},
		} {
			got := lines[i]
			if got.Level != want.Level || got.Call != want.Call || got.More != want.More || got.Dropped != want.Dropped || !strings.HasPrefix(string(got.Text), string(want.Text)) ||
				got.Function != fn.ID || got.Version != 1 || got.Sandbox != s.id || !got.Time.Equal(time.Now()) {
				t.Errorf("got %+v", got)
			}
		}
		// The next dispatcher listens anew.
		w.restart()
		again := s.logTo()
		if again == nil {
			t.Fatal("nobody listens after a restart")
		}
		fmt.Fprintf(again, "x info 0 2\nhi")
		synctest.Wait()
		if lines := kept.take(); len(lines) != 1 || string(lines[0].Text) != "hi" || lines[0].Function != fn.ID || !lines[0].Time.Equal(time.Now()) {
			t.Errorf("after a restart there are %+v", lines)
		}
	})
}

// TestHostileLogs: a sandbox that sends nonsense, opens many connections or floods one
// harms only its own log.
func TestHostileLogs(t *testing.T) {
	logging(t, func(t *testing.T, w *world, kept *linesKept) {
		fn := w.create("version", "")
		s := w.engine.there()[0]
		bad := s.logTo()
		io.WriteString(bad, "a nonsense 1 0\n")
		if _, err := bad.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("nonsense is answered with %v", err)
		}
		var conns []net.Conn
		for range maxLogConns {
			conns = append(conns, s.logTo())
		}
		if _, err := s.logTo().Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("one connection too many ends with %v", err)
		}
		conns[0].Close()
		synctest.Wait()
		conns[0] = s.logTo()
		fmt.Fprintf(conns[0], "a info %d 1\nx", time.Now().Add(-time.Hour).UnixMicro())
		fmt.Fprintf(conns[1], "a info %d 1\nx", time.Now().Add(time.Hour).UnixMicro())
		synctest.Wait()
		for _, l := range kept.take() {
			if !l.Time.Equal(time.Now()) {
				t.Errorf("a line pretends to be of %v", l.Time)
			}
		}
		// The flood is read at the pace that is allowed.
		go func() {
			text := strings.Repeat("x", 4000-lineCost)
			for {
				if _, err := fmt.Fprintf(conns[2], "a stdout %d %d\n%s", time.Now().UnixMicro(), len(text), text); err != nil {
					return
				}
			}
		}()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := len(kept.take()) * 4000; n < logPace*9 || n > logPace*11+logBurst {
			t.Errorf("in 10 s %d bytes were read", n)
		}
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
		conns[2].Close()
		// What a sandbox has sent is read although it is removed.
		if err := w.Delete(t.Context(), faas.Ref{ID: fn.ID}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		kept.take()
		go func() {
			io.WriteString(conns[3], "a error 0 4\nlast")
			for _, c := range conns {
				c.Close()
			}
		}()
		synctest.Wait()
		if lines := kept.take(); len(lines) == 0 || string(lines[len(lines)-1].Text) != "last" {
			t.Errorf("the last lines are %d", len(lines))
		}
	})
}

// TestNoLog: without a keeper of lines, or a socket, functions work, and a driver is
// asked for nothing.
func TestNoLog(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		fn := w.create("version", "")
		if s := w.engine.there()[0]; s.loaded.Log != "" || s.log != nil {
			t.Errorf("loaded with log %q", s.loaded.Log)
		}
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
	})
	logging(t, func(t *testing.T, w *world, _ *linesKept) {
		fn := w.create("version", "")
		for _, s := range w.engine.there() {
			s.mu.Lock()
			s.locked = true
			s.mu.Unlock()
		}
		w.restart()
		w.call(t.Context(), faas.Ref{ID: fn.ID}).wants(t, `{"result":1}`)
	})
}

// TestUsageOfCalls: what a call cost comes with its result.
func TestUsageOfCalls(t *testing.T) {
	simulated(t, nil, func(t *testing.T, w *world) {
		const field = "Fob-Usage: cpu=1500; peak=4096; shared\r\n"
		w.engine.calls["costs"] = func(*fakeSandbox, *http.Request) string { return answerJSON(200, 1, field) }
		w.engine.calls["fails"] = func(*fakeSandbox, *http.Request) string {
			return strings.Replace(driverError(500, "raised", "E", "x"), "Content-Length", field+"Content-Length", 1)
		}
		w.engine.streams = map[string]func(*fakeSandbox, net.Conn, *http.Request) bool{"flows": func(_ *fakeSandbox, c net.Conn, _ *http.Request) bool {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nFob-Error: raised\r\n"+field+"\r\n")
			return false
		}}
		want := faas.Usage{CPU: 1500 * time.Microsecond, Memory: 4096, Shared: true}
		for _, code := range []string{"costs", "fails", "flows"} {
			fn := w.create(code, "")
			result, err := w.Invoke(t.Context(), &faas.Invocation{Ref: faas.Ref{ID: fn.ID}}, nil)
			if result.Body != nil {
				io.Copy(io.Discard, result.Body)
				result.Body.Close()
			}
			if result.Usage == nil || *result.Usage != want {
				t.Errorf("%s: %+v, %v", code, result.Usage, err)
			}
		}
	})
}

package e2e

import (
	"encoding/json"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestTop: it shows what functions do now, and takes its own screen until Ctrl-C.
func TestTop(t *testing.T) {
	t.Parallel()
	r := boot(t)
	s := shellFor(t, "FOB_DATA="+r.Data)
	s.write("busy.py", "def callme(bad=False):\n    if bad: raise RuntimeError('bad')\n")
	s.write("idle.py", "def callme(): return 1\n")
	s.does("deploy", "busy.py", "idle.py")
	over := make(chan struct{})
	var calls sync.WaitGroup
	calls.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-over:
				return
			default:
				_, _ = r.owner.Ask("GET", []string{"/api/call/busy", "/api/call/busy?bad=1"}[i%2], "")
			}
		}
	})
	defer calls.Wait()
	defer close(over)
	type row struct {
		Name              string
		Rate, Errors      float64
		P50, P95          float64
		Sandboxes, Wanted *int
	}
	var rows map[string]row
	eventually(t, time.Minute, "it shows the calls", func() bool {
		rows = map[string]row{}
		for line := range strings.Lines(s.does("top", "--once", "--json", "--every", "500ms")) {
			var one row
			if err := json.Unmarshal([]byte(line), &one); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			rows[one.Name] = one
		}
		return rows["busy"].Rate > 0 && rows["busy"].Errors > 0
	})
	if b := rows["busy"]; b.Errors > b.Rate || b.P50 <= 0 || b.P95 < b.P50 || b.Sandboxes == nil || *b.Sandboxes < 1 || b.Wanted == nil {
		t.Errorf("the busy one: %+v", b)
	}
	if i, there := rows["idle"]; !there || i.Rate != 0 || i.P50 != 0 {
		t.Errorf("the idle one: %+v", i)
	}
	cmd := s.command("top", "--every", "200ms")
	p := runIn(t, cmd, 100)
	eventually(t, time.Minute, "it is drawn twice", func() bool {
		return strings.Count(p.text(), "\x1b[H\x1b[2J") > 1 && strings.Contains(p.text(), "busy ")
	})
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("Ctrl-C ends it with %v", err)
	}
	s.fails(1, []string{"top", "--every", "1ms"}, "100ms or more")
}

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo terminal of so many columns, in which a command runs.
type terminal struct {
	master *os.File
	mu     sync.Mutex
	shown  bytes.Buffer
	read   chan struct{} // closed once the command has ended and all was read
}

// runIn starts a command in a terminal.
func runIn(t *testing.T, cmd *exec.Cmd, columns uint16) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 12, Col: columns}); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.Env = append(cmd.Env, "TERM=xterm")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	p := &terminal{master: master, read: make(chan struct{})}
	go func() {
		defer close(p.read)
		_, _ = io.Copy(p, master) // ends with EIO when the command has ended
	}()
	return p
}

// Write implements io.Writer.
func (p *terminal) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shown.Write(text)
}

// text returns what is shown so far, with plain line breaks.
func (p *terminal) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.ReplaceAll(p.shown.String(), "\r\n", "\n")
}

// all returns what is shown once the command has ended.
func (p *terminal) all() string {
	<-p.read
	return p.text()
}

// TestTerminal: tables fit it, colours are for it alone, and what a function wrote
// cannot do anything to it.
func TestTerminal(t *testing.T) {
	t.Parallel()
	r := boot(t)
	s := shellFor(t, "FOB_DATA="+r.Data)
	s.write("evil.py", "# \x1b[2J\u202e\ndef callme(request):\n\tyield '\\x1b]0;owned\\x07 caf\u00e9\\n'\n")
	s.write("raises.py", "def callme(): raise RuntimeError('\\x1b[31m red')\n")
	s.does("deploy", "evil.py", "raises.py", "--description", strings.Repeat("It does many\u202ethings. ", 20))

	uncoloured := func(args ...string) *exec.Cmd {
		cmd := s.command(args...)
		cmd.Env = append(cmd.Env, "NO_COLOR=1")
		return cmd
	}
	shown := runIn(t, s.command("list"), 60).all()
	if !strings.Contains(shown, "\x1b[1mNAME\x1b[0m") {
		t.Errorf("no colours: %q", shown)
	}
	plain := runIn(t, uncoloured("list"), 60).all()
	if strings.Contains(plain, "\x1b") {
		t.Errorf("with NO_COLOR: %q", plain)
	}
	for line := range strings.Lines(plain) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 60 {
			t.Errorf("%q has %d columns", line, n)
		}
	}
	if piped := s.does("list"); strings.ContainsAny(piped, "\x1b…") {
		t.Errorf("without a terminal: %q", piped)
	}

	if code := runIn(t, s.command("code", "evil"), 60).all(); !strings.Contains(code, `# \u001b[2J\u202e`+"\n") || strings.Contains(code, "\x1b") {
		t.Errorf("the code is shown as %q", code)
	}
	if code := s.does("code", "evil"); !strings.Contains(code, "# \x1b[2J\u202e\n") {
		t.Errorf("without a terminal the code is %q", code)
	}
	if shown := runIn(t, uncoloured("call", "evil"), 60).all(); shown != `\u001b]0;owned\u0007 café`+"\n" {
		t.Errorf("the answer is shown as %q", shown)
	}
	if shown := runIn(t, uncoloured("call", "raises"), 60).all(); strings.Contains(shown, "\x1b") || !strings.Contains(shown, `RuntimeError: \u001b[31m red`) {
		t.Errorf("the error is shown as %q", shown)
	}
	eventually(t, time.Minute, "the call is in the history", func() bool { return strings.Contains(s.does("calls"), "function_raised") })
	for _, args := range [][]string{{"calls"}, {"calls", "--failed"}} {
		if shown := runIn(t, uncoloured(args...), 200).all(); strings.Contains(shown, "\x1b") || !strings.Contains(shown, `\u001b[31m red`) {
			t.Errorf("%v shows %q", args, shown)
		}
	}

	if shown := runIn(t, uncoloured("show", "raises", "--json"), 60).all(); strings.Contains(shown, "\u202e") || !json.Valid([]byte(shown)) || !strings.Contains(shown, `\u202e`) {
		t.Errorf("as JSON it shows %q", shown)
	}

	s.write("more/a.py", "def callme(): return 1\n")
	s.write("more/b.py", "def callme(): return 1 +\n")
	if shown := runIn(t, s.command("deploy", "more"), 60).all(); !strings.Contains(shown, "\r\x1b[K0 of 2") || !strings.Contains(shown, "\x1b[31mfailed\x1b[0m") {
		t.Errorf("the progress is %q", shown)
	}
}

// TestContextAsksForTheToken: a terminal is asked, and does not show the token.
func TestContextAsksForTheToken(t *testing.T) {
	t.Parallel()
	s := shellFor(t)
	p := runIn(t, s.command("context", "set", "prod", "fob.example.com"), 80)
	eventually(t, time.Minute, "it asks", func() bool { return strings.Contains(p.text(), "token (empty for none): ") })
	if _, err := p.master.WriteString("fob_secret\n"); err != nil {
		t.Fatal(err)
	}
	if shown := p.all(); strings.Contains(shown, "fob_secret") || !strings.Contains(shown, "prod is http://fob.example.com from now on") {
		t.Errorf("it shows %q", shown)
	}
	if out := s.does("context", "list"); !strings.Contains(out, "*  prod  http://fob.example.com  yes") {
		t.Errorf("it lists\n%s", out)
	}
}

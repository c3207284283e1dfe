package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/pages"
)

// TestDockerPages does what each page tells its reader to do, from top to
// bottom in a shell of its own, with the real clients and a dispatcher of its
// own on a real engine.
func TestDockerPages(t *testing.T) {
	t.Parallel()
	for _, page := range pages.Documents(t) {
		blocks := pages.Blocks(t, page)
		if !slices.ContainsFunc(blocks, pages.Block.Runs) {
			continue
		}
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			aviary := testAviary(t)
			r := boot(t, "FOB_AVIARY="+aviary)
			follow(t, r.URL, blocks)
		})
	}
}

// follow runs the blocks of a page against the dispatcher at url.
func follow(t *testing.T, url string, blocks []pages.Block) {
	local := strings.NewReplacer("http://127.0.0.1:9999", url)
	sh := newShell(t)
	for i, b := range blocks {
		if b.IsFile() {
			if err := os.WriteFile(filepath.Join(sh.dir, b.Note), []byte(b.Text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if !b.Runs() {
			continue
		}
		want := ""
		if i+1 < len(blocks) && blocks[i+1].IsOutput() {
			want = local.Replace(blocks[i+1].Text)
		}
		for patience := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			got, status := sh.run(local.Replace(b.Text))
			if status == 0 && like(want, got) {
				break
			}
			if b.Note != "soon" || time.Now().After(patience) {
				t.Fatalf("%s\n%s\nended with %d and printed\n%s\nnot\n%s\non standard error: %s", b.At, b.Text, status, got, want, sh.complaints())
			}
		}
	}
}

// like compares what a command printed with what it should print, where …
// stands for anything. A command whose output is not shown may print what it
// likes, but no error.
func like(want, got string) bool {
	if want == "" {
		return !strings.Contains(got, `"retryable"`)
	}
	parts := strings.Split(strings.TrimSpace(want), "…")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(`(?s)^` + strings.Join(parts, ".*?") + `$`).MatchString(strings.TrimSpace(got))
}

// shell is a bash that keeps its variables from one block to the next.
type shell struct {
	t      *testing.T
	dir    string // where it begins
	in     *os.File
	out    *bufio.Reader
	stderr *os.File
}

// On a terminal HTTPie takes no body from it, and the prompt stands on a new
// line; without one it takes all of standard input. curl draws its progress
// where there is no terminal.
const preamble = `
http() { [ /dev/stdin -ef /dev/null ] && set -- --ignore-stdin "$@"; command http "$@" || return; echo; }
`

func newShell(t *testing.T) *shell {
	t.Helper()
	s := &shell{t: t, dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(s.dir, ".curlrc"), []byte("silent\nshow-error\nwrite-out = \"\\n\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	cmd := exec.CommandContext(ctx, "bash", "--noprofile", "--norc")
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "CURL_HOME="+s.dir, "XDG_CONFIG_HOME="+s.dir, "PATH="+filepath.Dir(program)+":"+os.Getenv("PATH"))
	var err error
	// A file, for that can be read while the shell still writes it.
	if s.stderr, err = os.Create(filepath.Join(s.dir, ".stderr")); err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = s.stderr
	stdin, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.in, cmd.Stdin = in, stdin
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewReader(stdout)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	t.Cleanup(func() {
		in.Close()
		cancel()
		cmd.Wait() // it may have been killed
		s.stderr.Close()
	})
	fmt.Fprint(in, preamble)
	return s
}

// run runs commands and returns what they print and how the last one ends.
func (s *shell) run(commands string) (output string, status int) {
	s.t.Helper()
	const end = '\036' // which nothing prints
	fmt.Fprintf(s.in, "{\n%s\n} </dev/null\nprintf '\\036%%d\\036' $?\n", commands)
	output, err := s.out.ReadString(end)
	if err == nil {
		var text string
		if text, err = s.out.ReadString(end); err == nil {
			status, err = strconv.Atoi(strings.Trim(text, string(end)))
		}
	}
	if err != nil {
		s.t.Fatalf("%s\nended the shell: %v: %s", commands, err, s.complaints())
	}
	return strings.ReplaceAll(strings.Trim(output, string(end)), "\r", ""), status
}

// complaints is what went to standard error so far.
func (s *shell) complaints() string {
	content, err := os.ReadFile(s.stderr.Name())
	if err != nil {
		return err.Error()
	}
	return string(content)
}
